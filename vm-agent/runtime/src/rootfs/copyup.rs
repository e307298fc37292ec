//! `tmpcopyup`: a new tmpfs starts with what the directory under it holds.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::target;
use crate::error::Errno;
use crate::sys::{self, SysResult};

/// Deeper trees than this are not a directory that somebody covers with a tmpfs.
const MAX_DEPTH: u32 = 64;

pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> SysResult<()> {
    let from = reopen(from)?;
    let to = reopen(to)?;
    copy_directory(&from, &to, MAX_DEPTH)
}

/// A readable descriptor for an O_PATH one.
fn reopen(fd: BorrowedFd<'_>) -> SysResult<OwnedFd> {
    sys::openat(fd.as_raw_fd(), c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)
}

fn names(directory: &OwnedFd) -> SysResult<Vec<CString>> {
    // The reading offset belongs to the open file: list through one of our own.
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let entries = std::fs::read_dir(path).map_err(Errno::from)?;
    entries
        .map(|entry| sys::cstring(entry.map_err(Errno::from)?.file_name().as_encoded_bytes()))
        .collect()
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd, depth: u32) -> SysResult<()> {
    let depth = depth.checked_sub(1).ok_or(Errno(libc::ELOOP))?;
    for name in names(from)? {
        let entry = sys::openat(from.as_raw_fd(), &name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
        let stat = sys::fstat(entry.as_raw_fd())?;
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => {
                sys::mkdirat(to.as_raw_fd(), &name, 0o700)?;
                let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
                let source = sys::openat(from.as_raw_fd(), &name, flags, 0)?;
                let target = sys::openat(to.as_raw_fd(), &name, flags, 0)?;
                copy_directory(&source, &target, depth)?;
                own(&target, &stat)?;
            }
            libc::S_IFREG => copy_file(from, to, &name, &stat)?,
            libc::S_IFLNK => {
                let text = target::read_link(from.as_raw_fd(), &name)?;
                let text = sys::cstring(text.as_os_str().as_encoded_bytes())?;
                sys::symlinkat(&text, to.as_raw_fd(), &name)?;
                let flags = libc::AT_SYMLINK_NOFOLLOW;
                sys::fchownat(to.as_raw_fd(), &name, stat.st_uid, stat.st_gid, flags)?;
            }
            // Sockets, pipes and devices have no content to keep.
            _ => {}
        }
    }
    Ok(())
}

fn copy_file(from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &libc::stat) -> SysResult<()> {
    let source = sys::openat(from.as_raw_fd(), name, libc::O_RDONLY | libc::O_NOFOLLOW, 0)?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let target = sys::openat(to.as_raw_fd(), name, flags, 0o600)?;
    let mut target_file = File::from(target);
    std::io::copy(&mut File::from(source), &mut target_file).map_err(Errno::from)?;
    own_fd(target_file.as_fd(), stat)
}

fn own(fd: &OwnedFd, stat: &libc::stat) -> SysResult<()> {
    own_fd(fd.as_fd(), stat)
}

fn own_fd(fd: BorrowedFd<'_>, stat: &libc::stat) -> SysResult<()> {
    sys::fchown(fd.as_raw_fd(), stat.st_uid, stat.st_gid)?;
    sys::fchmod(fd.as_raw_fd(), stat.st_mode & 0o7777)
}
