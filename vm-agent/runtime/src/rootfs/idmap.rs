//! Id-mapped mounts: the mapping lives in a user namespace that a short-lived child holds open.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use crate::error::Errno;
use crate::namespaces::mapping_text;
use crate::spec::IdMapping;
use crate::sys::{self, Forked, MountAttr, SysResult};

const ATTR_IDMAP: u64 = 0x10_0000;

pub fn apply(
    tree: &OwnedFd,
    recursive: bool,
    uids: &[IdMapping],
    gids: &[IdMapping],
) -> SysResult<()> {
    let namespace = user_namespace(uids, gids)?;
    let attr = MountAttr {
        set: ATTR_IDMAP,
        userns_fd: namespace.as_raw_fd() as u64,
        ..MountAttr::default()
    };
    sys::mount_setattr(tree.as_raw_fd(), recursive, &attr)
}

fn user_namespace(uids: &[IdMapping], gids: &[IdMapping]) -> SysResult<OwnedFd> {
    let (ours, theirs) = sys::socketpair()?;
    match sys::fork(libc::CLONE_NEWUSER as u64, None)? {
        Forked::Child => {
            drop(ours);
            // Lives until the parent has opened the namespace and closed its end.
            let _ = sys::read(theirs.as_raw_fd(), &mut [0u8; 1]);
            sys::exit_now(0);
        }
        Forked::Parent { pid } => {
            drop(theirs);
            let open = || -> SysResult<OwnedFd> {
                let write = |file: &str, text: String| {
                    fs::write(format!("/proc/{pid}/{file}"), text).map_err(Errno::from)
                };
                write("uid_map", mapping_text(uids))?;
                write("gid_map", mapping_text(gids))?;
                sys::open(Path::new(&format!("/proc/{pid}/ns/user")), libc::O_RDONLY)
            };
            let result = open();
            drop(ours);
            let _ = sys::wait(pid);
            result
        }
    }
}
