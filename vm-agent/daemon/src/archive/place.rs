//! Paths inside a container, resolved by the kernel so that no link of the container's leads out of it
//! (`openat2(2)`, `RESOLVE_IN_ROOT`).

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use serde_json::json;

/// A file or folder of a container, held open without being read.
pub struct Place {
    handle: OwnedFd,
    /// The last part of the path as the user wrote it.
    pub name: OsString,
    pub meta: Metadata,
    pub link_target: PathBuf,
}

fn how(flags: OFlag) -> OpenHow {
    OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

/// Opens `path` below `root`; a final link itself, not what it points at, unless the path ends in a slash.
pub fn open(root: &Path, path: &[u8]) -> io::Result<Place> {
    open_with(root, path, path.ends_with(b"/") || path.ends_with(b"/."))
}

/// The same, through a final link.
pub fn open_followed(root: &Path, path: &[u8]) -> io::Result<Place> {
    open_with(root, path, true)
}

fn open_with(root: &Path, path: &[u8], follow: bool) -> io::Result<Place> {
    let folder = File::open(root)?;
    let slashes = path.iter().take_while(|byte| **byte == b'/').count();
    let relative = match &path[slashes..] {
        b"" => b".",
        relative => relative,
    };
    let no_follow = if follow {
        OFlag::empty()
    } else {
        OFlag::O_NOFOLLOW
    };
    let handle = openat2(&folder, relative, how(OFlag::O_PATH | no_follow))?;
    let meta = File::from(handle.try_clone()?).metadata()?;
    let link_target = match meta.file_type().is_symlink() {
        true => PathBuf::from(readlinkat(&handle, "")?),
        false => PathBuf::new(),
    };
    let name = Path::new(OsStr::from_bytes(path))
        .file_name()
        .map_or_else(|| OsString::from("/"), OsString::from);
    Ok(Place {
        handle,
        name,
        meta,
        link_target,
    })
}

impl Place {
    /// A path that leads to the open file and nowhere else, for as long as the value lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }

    /// `X-Docker-Container-Path-Stat`.
    pub fn stat_header(&self) -> String {
        let modified = chrono::DateTime::from_timestamp(
            self.meta.mtime(),
            self.meta.mtime_nsec().clamp(0, 999_999_999) as u32,
        );
        let stat = json!({
            "name": self.name.to_string_lossy(),
            "size": self.meta.size(),
            "mode": go_mode(&self.meta),
            "mtime": modified.map_or_else(String::new, |time| {
                time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
            }),
            "linkTarget": String::from_utf8_lossy(self.link_target.as_os_str().as_bytes()),
        });
        STANDARD.encode(stat.to_string())
    }
}

/// The mode as Go's `os.FileMode` has it, which is what clients read.
fn go_mode(meta: &Metadata) -> u32 {
    let kind = meta.file_type();
    let mode = meta.mode();
    let mut bits = mode & 0o777;
    for (is, bit) in [
        (kind.is_dir(), 31),
        (kind.is_symlink(), 27),
        (kind.is_block_device(), 26),
        (kind.is_fifo(), 25),
        (kind.is_socket(), 24),
        (mode & libc::S_ISUID != 0, 23),
        (mode & libc::S_ISGID != 0, 22),
        (kind.is_char_device(), 21),
        (mode & libc::S_ISVTX != 0, 20),
    ] {
        bits |= u32::from(is) << bit;
    }
    // Go marks character devices as devices, too.
    if kind.is_char_device() {
        bits |= 1 << 26;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_never_lead_out_of_the_root() {
        let base = std::env::temp_dir().join(format!("place-{}", crate::identity::new_id()));
        let root = base.join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/passwd"), "inside").unwrap();
        fs::write(base.join("secret"), "outside").unwrap();
        symlink("/etc/passwd", root.join("absolute")).unwrap();
        symlink("../../../etc/passwd", root.join("etc/relative")).unwrap();
        symlink("/", root.join("top")).unwrap();
        symlink("../secret", root.join("escape")).unwrap();

        let read = |path: &str| fs::read_to_string(open_followed(&root, path.as_bytes())?.path());
        for path in [
            "/absolute",
            "etc/relative",
            "/top/etc/passwd",
            "/../../etc/passwd",
        ] {
            assert_eq!(read(path).unwrap(), "inside", "{path}");
        }
        for path in ["/escape", "../secret", "/top/../secret"] {
            assert_eq!(
                read(path).unwrap_err().kind(),
                io::ErrorKind::NotFound,
                "{path}"
            );
        }
        let link = open(&root, b"/absolute").unwrap();
        assert_eq!(link.link_target, Path::new("/etc/passwd"));
        assert_eq!(go_mode(&link.meta) >> 27, 1);
        assert_eq!(go_mode(&open(&root, b"/etc").unwrap().meta) >> 31, 1);
        fs::remove_dir_all(base).unwrap();
    }
}
