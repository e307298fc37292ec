//! The container's root: its mount tree put together, entered by pivot_root, and closed down.

mod copyup;
pub mod devices;
mod idmap;
pub mod masks;
pub mod mounts;
pub mod options;
pub mod target;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use crate::error::{Context, Error, Result};
use crate::spec::Spec;
use crate::sys::{self, MountAttr};

const ATTR_RDONLY: u64 = 1;

/// Makes the root file system a mount of its own, cut off from the host's propagation, and opens
/// it. From here on the tree is only reached through the descriptor.
pub fn attach(rootfs: &Path, propagation: &str) -> Result<OwnedFd> {
    let flags = propagation_flags(propagation)?.unwrap_or(libc::MS_SLAVE | libc::MS_REC);
    sys::mount(None, c"/", None, flags, None).step(|| "set propagation of /".to_owned())?;
    if flags & libc::MS_SHARED != 0 {
        make_parent_private(rootfs)?;
    }
    let path = sys::cstring(rootfs.as_os_str().as_encoded_bytes())
        .step(|| format!("rootfs {}", rootfs.display()))?;
    let tree_flags = sys::OPEN_TREE_CLONE | sys::AT_RECURSIVE;
    let tree = sys::open_tree(libc::AT_FDCWD, &path, tree_flags)
        .step(|| format!("open rootfs {}", rootfs.display()))?;
    let target = sys::open(rootfs, libc::O_PATH | libc::O_DIRECTORY)
        .step(|| format!("open rootfs {}", rootfs.display()))?;
    sys::move_mount(tree.as_raw_fd(), target.as_raw_fd())
        .step(|| format!("mount rootfs {}", rootfs.display()))?;
    Ok(tree)
}

fn propagation_flags(word: &str) -> Result<Option<u64>> {
    match word {
        "" => Ok(None),
        // The specification's "shared" and so on mean the whole tree, as in runc.
        word => options::propagation(word)
            .map(Some)
            .ok_or_else(|| Error::Config(format!("rootfsPropagation={word} is not supported"))),
    }
}

/// pivot_root refuses a root whose parent mount is shared. The parent is the nearest ancestor
/// that is a mount point, which mount(2) itself tells.
fn make_parent_private(rootfs: &Path) -> Result<()> {
    for ancestor in rootfs.ancestors() {
        let path = sys::cstring(ancestor.as_os_str().as_encoded_bytes())
            .step(|| "rootfs path".to_owned())?;
        if sys::mount(None, &path, None, libc::MS_PRIVATE, None).is_ok() {
            break;
        }
    }
    Ok(())
}

/// Whether /dev is ours to fill: not when the configuration binds one from elsewhere.
pub fn owns_dev(spec: &Spec) -> bool {
    !spec.mounts.iter().any(|mount| {
        let destination = mount.destination.trim_end_matches('/');
        destination == "/dev" && (mount.kind == "bind" || options::parse(&mount.options).bind)
    })
}

/// Enters the root. pivot_root(".", ".") stacks the old root upon the new one, so that no
/// directory for it is needed; the old one is then detached.
pub fn pivot(root: &OwnedFd) -> Result<()> {
    sys::fchdir(root.as_raw_fd()).step(|| "chdir to rootfs".to_owned())?;
    sys::pivot_root_here().step(|| "pivot_root".to_owned())?;
    // What is unmounted below must not be unmounted in the host too.
    sys::mount(None, c".", None, libc::MS_SLAVE | libc::MS_REC, None)
        .step(|| "make old root a slave".to_owned())?;
    sys::umount_detach(c".").step(|| "detach old root".to_owned())?;
    sys::chdir(Path::new("/")).step(|| "chdir to /".to_owned())
}

/// For roots that cannot be pivoted from (an initramfs): the root is moved over "/" instead.
pub fn move_root(root: &OwnedFd) -> Result<()> {
    sys::fchdir(root.as_raw_fd()).step(|| "chdir to rootfs".to_owned())?;
    sys::mount(Some(c"."), c"/", None, libc::MS_MOVE, None).step(|| "move rootfs".to_owned())?;
    sys::chroot(c".").step(|| "chroot".to_owned())?;
    sys::chdir(Path::new("/")).step(|| "chdir to /".to_owned())
}

/// For containers in the caller's mount namespace.
pub fn change_root(rootfs: &Path) -> Result<()> {
    sys::chdir(rootfs).step(|| format!("chdir to {}", rootfs.display()))?;
    sys::chroot(c".").step(|| "chroot".to_owned())
}

pub fn set_propagation(word: &str) -> Result<()> {
    match propagation_flags(word)? {
        Some(flags) => sys::mount(None, c"/", None, flags, None)
            .step(|| format!("set root propagation to {word}")),
        None => Ok(()),
    }
}

pub fn make_readonly() -> Result<()> {
    let root = sys::open(Path::new("/"), libc::O_PATH).step(|| "open /".to_owned())?;
    let attr = MountAttr {
        set: ATTR_RDONLY,
        ..MountAttr::default()
    };
    sys::mount_setattr(root.as_raw_fd(), false, &attr).step(|| "make / read-only".to_owned())
}
