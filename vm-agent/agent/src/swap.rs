//! Swap: a file on the data disk, made, replaced or removed as the configuration says.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{FallocateFlags, fallocate};

/// init switches it off before it unmounts the disk.
const FILE: &str = "/var/lib/longshore/swap";
/// What is free again is given back to the host's disk (swapon(2)).
const SWAP_FLAG_DISCARD: i32 = 0x10000;

/// Swaps to `bytes` of the data disk; 0 for none.
pub fn set_up(bytes: u64) -> io::Result<()> {
    let path = Path::new(FILE);
    if bytes == 0 {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let page = page_size();
    let bytes = bytes / page * page;
    let there = fs::metadata(path).is_ok_and(|meta| meta.len() == bytes);
    // One of that size may be half made, by a VM that lost its power.
    if there && swap_on(path).is_ok() {
        return Ok(());
    }
    let made = make(path, bytes, page).and_then(|()| swap_on(path));
    if made.is_err() {
        let _ = fs::remove_file(path);
    }
    made
}

fn make(path: &Path, bytes: u64, page: u64) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    // The kernel takes no file with holes, and blocks that were never written take nothing of the host's disk.
    let length = i64::try_from(bytes).map_err(io::Error::other)?;
    fallocate(&file, FallocateFlags::empty(), 0, length)?;
    file.write_all_at(&header(bytes, page), 0)?;
    file.sync_all()
}

/// The first page of a swap area (include/linux/swap.h, `union swap_header`).
fn header(bytes: u64, page: u64) -> Vec<u8> {
    let mut header = vec![0; page as usize];
    let last_page = u32::try_from(bytes / page - 1).unwrap_or(u32::MAX);
    header[1024..1028].copy_from_slice(&1u32.to_ne_bytes());
    header[1028..1032].copy_from_slice(&last_page.to_ne_bytes());
    let end = header.len();
    header[end - 10..].copy_from_slice(b"SWAPSPACE2");
    header
}

fn page_size() -> u64 {
    // SAFETY: sysconf(3) with a name that every system has only reads.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

fn swap_on(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends in NUL and lives until after the call.
    match unsafe { libc::swapon(path.as_ptr(), SWAP_FLAG_DISCARD) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // It is on already.
            error if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_what_mkswap_writes() {
        let header = header(1 << 20, 4096);
        assert_eq!(header.len(), 4096);
        assert_eq!(&header[4086..], b"SWAPSPACE2");
        assert_eq!(
            &header[1024..1032],
            [1u32.to_ne_bytes(), 255u32.to_ne_bytes()].concat()
        );
    }
}
