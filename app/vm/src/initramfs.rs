//! The image's initramfs with the boot configuration appended as one more archive.
//!
//! The kernel unpacks concatenated archives one after the other (its `Documentation/driver-api/early-userspace/
//! buffer-format.rst`); an uncompressed one must begin at a multiple of four bytes.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use longshore_protocol::config::{GuestConfig, INITRAMFS_PATH};

#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    #[error("read the guest image's initramfs {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("write the guest's configuration: {0}")]
    Encode(#[from] serde_json::Error),
    #[error("write the initramfs {path}: {source}", path = path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Writes `image` and the configuration behind it to `out`.
pub fn write(image: &Path, config: &GuestConfig, out: &Path) -> Result<(), InitramfsError> {
    let json = serde_json::to_vec(config)?;
    let mut bytes = fs::read(image).map_err(|source| InitramfsError::Read {
        path: image.into(),
        source,
    })?;
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(archive(&json));
    let write = |source| InitramfsError::Write {
        path: out.into(),
        source,
    };
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(out)
        .and_then(|mut file| file.write_all(&bytes))
        .map_err(write)
}

/// A newc archive with the configuration and its folders.
fn archive(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, _) in INITRAMFS_PATH.match_indices('/') {
        entry(&mut out, &INITRAMFS_PATH[..at], 0o040_755, &[]);
    }
    entry(&mut out, INITRAMFS_PATH, 0o100_600, json);
    entry(&mut out, "TRAILER!!!", 0, &[]);
    out
}

/// One entry, see `buffer-format.rst`: thirteen numbers of eight hex digits after the magic.
fn entry(out: &mut Vec<u8>, name: &str, mode: u32, data: &[u8]) {
    let length = u32::try_from(data.len()).expect("a configuration is small");
    let name_length = u32::try_from(name.len() + 1).expect("a name is short");
    let links = if mode & 0o040_000 != 0 { 2 } else { 1 };
    let fields = [0, mode, 0, 0, links, 0, length, 0, 0, 0, 0, name_length, 0];
    out.extend(b"070701");
    for field in fields {
        out.extend(format!("{field:08x}").bytes());
    }
    out.extend(name.bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(data);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpio_reads_what_we_write() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        let out = dir.path().join("out");
        fs::write(&image, b"12345").unwrap();
        write(&image, &GuestConfig::default(), &out).unwrap();
        let bytes = fs::read(&out).unwrap();
        assert_eq!(&bytes[..8], b"12345\0\0\0");
        let listed = std::process::Command::new("busybox")
            .args(["cpio", "-t"])
            .stdin(fs::File::open(tail(&bytes[8..], dir.path())).unwrap())
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&listed.stdout),
            "longshore\nlongshore/config.json\n"
        );
    }

    fn tail(bytes: &[u8], dir: &Path) -> PathBuf {
        let path = dir.join("tail");
        fs::write(&path, bytes).unwrap();
        path
    }
}
