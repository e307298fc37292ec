//! Keeps a container from overwriting this program through /proc/PID/exe (CVE-2019-5736).
//!
//! While the first process waits for `start`, or when a container's command is itself
//! "/proc/self/exe", processes inside the container can open the runtime's file, and root could
//! write to it. Three things stand against that: the process is not dumpable, it is static (no
//! library of the container's runs in it), and its file lies on a read-only mount. In the guest
//! our init sees to that. Elsewhere the program executes itself again from a detached
//! read-only copy of its mount, which costs one execve and no memory; where that cannot be made,
//! from a sealed memfd.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use crate::error::Errno;
use crate::sys::{self, MountAttr, SysResult};

const SELF: &std::ffi::CStr = c"/proc/self/exe";
const ATTR_RDONLY: u64 = 1;
const SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

/// Returns when this process runs from a file that cannot be written.
pub fn protect() -> SysResult<()> {
    let own = sys::open(Path::new("/proc/self/exe"), libc::O_RDONLY)?;
    if sys::is_read_only(own.as_fd())? || is_sealed(&own) {
        return Ok(());
    }
    let copy = match read_only_mount() {
        Ok(copy) => copy,
        Err(_) => sealed_copy(own)?,
    };
    let args: Vec<CString> = std::env::args_os()
        .filter_map(|arg| CString::new(arg.into_vec()).ok())
        .collect();
    let env: Vec<CString> = std::env::vars_os()
        .filter_map(|(name, value)| {
            let mut entry = name.into_vec();
            entry.push(b'=');
            entry.extend(value.into_vec());
            CString::new(entry).ok()
        })
        .collect();
    Err(sys::fexecve(copy.as_raw_fd(), &args, &env))
}

fn is_sealed(fd: &OwnedFd) -> bool {
    // SAFETY: plain integers; fails on anything but a memfd.
    let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & SEALS == SEALS
}

fn read_only_mount() -> SysResult<OwnedFd> {
    let tree = sys::open_tree(libc::AT_FDCWD, SELF, sys::OPEN_TREE_CLONE)?;
    let attr = MountAttr {
        set: ATTR_RDONLY,
        ..MountAttr::default()
    };
    sys::mount_setattr(tree.as_raw_fd(), false, &attr)?;
    Ok(tree)
}

fn sealed_copy(own: OwnedFd) -> SysResult<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | libc::MFD_EXEC;
    // SAFETY: the name is a NUL-terminated literal.
    let fd =
        sys::check(unsafe { libc::memfd_create(c"longshore-runtime".as_ptr(), flags) }.into())?;
    // SAFETY: memfd_create has just returned this descriptor to us.
    let mut copy = File::from(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    std::io::copy(&mut File::from(own), &mut copy).map_err(Errno::from)?;
    // SAFETY: plain integers.
    sys::check(unsafe { libc::fcntl(copy.as_raw_fd(), libc::F_ADD_SEALS, SEALS) }.into())?;
    Ok(copy.into())
}
