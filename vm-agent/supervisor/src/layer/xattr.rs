//! Extended attributes of an open file, by way of its name under /proc: also for links and O_PATH descriptors.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use super::place::fd_path;

fn check(result: isize) -> io::Result<usize> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as usize)
    }
}

pub fn set(fd: &OwnedFd, name: &str, value: &[u8]) -> io::Result<()> {
    let (path, name) = (fd_path(fd), CString::new(name)?);
    // SAFETY: both names are NUL-terminated and the value's length is its own.
    let result = unsafe {
        libc::setxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    check(result as isize).map(|_| ())
}

pub fn get(fd: &OwnedFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    let (path, name) = (fd_path(fd), CString::new(name)?);
    let mut value = vec![0; 64 * 1024];
    // SAFETY: both names are NUL-terminated and the buffer's length is its own.
    let result = unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    match check(result) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENODATA) => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

pub fn list(fd: &OwnedFd) -> io::Result<Vec<String>> {
    let path = fd_path(fd);
    let mut names = vec![0u8; 64 * 1024];
    // SAFETY: the path is NUL-terminated and the buffer's length is its own.
    let result = unsafe { libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let length = match check(result) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => 0,
        other => other?,
    };
    let text = String::from_utf8_lossy(&names[..length]).into_owned();
    Ok(text
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}
