//! Opening and making paths inside a root file system that may be hostile.
//!
//! Everything goes through openat2(RESOLVE_IN_ROOT): symbolic links, absolute or climbing, are
//! followed as the container would, never out of the root; and what was opened is used by its
//! descriptor, so nothing can be exchanged between the check and the use.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::error::Errno;
use crate::sys::{self, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, SysResult};

const RESOLVE: u64 = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
}

/// As many as the kernel itself follows.
const MAX_LINKS: u32 = 40;

pub fn open(root: BorrowedFd<'_>, path: &Path, flags: i32) -> SysResult<OwnedFd> {
    sys::openat2(root.as_raw_fd(), path, flags, 0, RESOLVE)
}

/// Opens (O_PATH) a mount's target, making it and its parents when they are missing.
pub fn open_or_create(root: BorrowedFd<'_>, path: &Path, kind: Kind) -> SysResult<OwnedFd> {
    create(root, &normalize(path), kind, MAX_LINKS)
}

/// The path without `.` and `..`, relative to the root.
fn normalize(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

fn create(root: BorrowedFd<'_>, path: &Path, kind: Kind, links: u32) -> SysResult<OwnedFd> {
    let Some(name) = path.file_name() else {
        return open(root, Path::new("."), libc::O_PATH);
    };
    match open(root, path, libc::O_PATH) {
        Err(Errno(libc::ENOENT)) => {}
        result => return result,
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    let directory = create(root, parent, Kind::Directory, links)?;
    let c_name = sys::cstring(name.as_bytes())?;
    let made = match kind {
        Kind::Directory => sys::mkdirat(directory.as_raw_fd(), &c_name, 0o755),
        Kind::File => {
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
            sys::openat(directory.as_raw_fd(), &c_name, flags, 0o644).map(drop)
        }
    };
    match made {
        Ok(()) => sys::openat(
            directory.as_raw_fd(),
            &c_name,
            libc::O_PATH | libc::O_NOFOLLOW,
            0,
        ),
        // There, yet not to be opened: a link to something missing. Its target is made instead,
        // which is how /etc/resolv.conf works in images where it points into /run.
        Err(Errno(libc::EEXIST)) => {
            let links = links.checked_sub(1).ok_or(Errno(libc::ELOOP))?;
            let target = read_link(directory.as_raw_fd(), &c_name)?;
            create(root, &normalize(&parent.join(target)), kind, links)
        }
        Err(errno) => Err(errno),
    }
}

pub fn read_link(directory: i32, name: &CString) -> SysResult<PathBuf> {
    let mut buffer = vec![0u8; libc::PATH_MAX as usize];
    // SAFETY: name is NUL-terminated, the buffer writable for its whole length.
    let length = sys::check(unsafe {
        libc::readlinkat(
            directory,
            name.as_ptr(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
        )
    } as libc::c_long)?;
    Ok(PathBuf::from(OsStr::from_bytes(&buffer[..length as usize])))
}

/// A path through which mount(2) reaches an open descriptor.
pub fn proc_path(fd: BorrowedFd<'_>) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    #[test]
    fn targets_stay_inside_the_root() {
        let base = std::env::temp_dir().join(format!("longshore-target-{}", std::process::id()));
        let root = base.join("root");
        std::fs::create_dir_all(&root).unwrap();
        symlink("../../../outside", root.join("climb")).unwrap();
        symlink("/run/conf", root.join("absolute")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let fd = sys::open(&root, libc::O_PATH | libc::O_DIRECTORY).unwrap();
        for (path, kind, made) in [
            ("/a/b/c", Kind::Directory, "a/b/c"),
            ("/a/f", Kind::File, "a/f"),
            ("/climb/x", Kind::Directory, "outside/x"),
            ("/absolute", Kind::File, "run/conf"),
            ("../../up", Kind::Directory, "up"),
        ] {
            let result = open_or_create(fd.as_fd(), Path::new(path), kind);
            assert!(result.is_ok(), "{path}: {result:?}");
            assert!(root.join(made).exists(), "{path}");
        }
        assert!(open_or_create(fd.as_fd(), Path::new("/loop/x"), Kind::File).is_err());
        assert!(!base.join("outside").exists());
        std::fs::remove_dir_all(base).unwrap();
    }
}
