//! The data disk: a sparse file that is made, grown and never shrunk.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A smaller disk holds no image worth running.
pub const MIN_DISK: u64 = 1 << 30;
/// Room that a start wants on the host's disk beside what the sparse file takes later.
const MIN_FREE: u64 = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("a data disk of {size} bytes is too small; the least is {MIN_DISK} bytes (1 GiB)")]
    TooSmall { size: u64 },
    #[error(
        "the data disk {path} cannot shrink from {from} to {to} bytes; it only takes the space that is used",
        path = path.display()
    )]
    Shrink { path: PathBuf, from: u64, to: u64 },
    #[error("only {free} bytes are free on the disk of {path}; at least {MIN_FREE} are needed to start", path = path.display())]
    NoSpace { path: PathBuf, free: u64 },
    #[error("make the data disk {path}: {source}", path = path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("grow the data disk {path}: {source}", path = path.display())]
    Grow { path: PathBuf, source: io::Error },
}

/// Makes the disk or grows it to `size`; returns the size it has. A larger disk stays as it is.
pub fn prepare(path: &Path, size: u64) -> Result<u64, DiskError> {
    if size < MIN_DISK {
        return Err(DiskError::TooSmall { size });
    }
    if let Some(free) = free_bytes(path.parent().unwrap_or(path))
        && free < MIN_FREE
    {
        return Err(DiskError::NoSpace {
            path: path.into(),
            free,
        });
    }
    let create = |source| DiskError::Create {
        path: path.into(),
        source,
    };
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(create)?;
    let now = file.metadata().map_err(create)?.len();
    if now >= size {
        return Ok(now);
    }
    let size = size.next_multiple_of(1 << 20);
    let grown = file.set_len(size).and_then(|()| file.sync_all());
    grown.map_err(|source| DiskError::Grow {
        path: path.into(),
        source,
    })?;
    Ok(size)
}

/// Says whether a running VM's disk may become `to` bytes.
pub fn check_growth(path: &Path, from: u64, to: u64) -> Result<(), DiskError> {
    if to < from {
        return Err(DiskError::Shrink {
            path: path.into(),
            from,
            to,
        });
    }
    Ok(())
}

/// Free bytes for this user on the file system of `path`, where the platform tells.
#[cfg(unix)]
pub fn free_bytes(path: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    #[allow(
        clippy::unnecessary_cast,
        reason = "the types differ between platforms"
    )]
    Some(stat.blocks_available() as u64 * stat.fragment_size() as u64)
}

#[cfg(not(unix))]
pub fn free_bytes(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_grown_and_never_shrunk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.img");
        assert!(matches!(
            prepare(&path, 1000),
            Err(DiskError::TooSmall { size: 1000 })
        ));
        assert_eq!(prepare(&path, 2 << 30).unwrap(), 2 << 30);
        assert_eq!(prepare(&path, 3 << 30).unwrap(), 3 << 30);
        assert_eq!(prepare(&path, 2 << 30).unwrap(), 3 << 30);
        assert_eq!(fs::metadata(&path).unwrap().len(), 3 << 30);
        assert!(matches!(
            check_growth(&path, 3, 2),
            Err(DiskError::Shrink { .. })
        ));
        assert!(check_growth(&path, 3, 3).is_ok());
    }
}
