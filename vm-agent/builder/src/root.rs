//! A folder that untrusted names are looked up in: the kernel keeps every link inside it (`openat2`, RESOLVE_IN_ROOT).

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};

pub struct Root(File);

/// A file or folder, held open without being read.
pub struct Place {
    handle: OwnedFd,
    pub meta: Metadata,
}

impl Root {
    pub fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Root)
    }

    /// `follow`: through a final link, too.
    pub fn place(&self, path: &Path, follow: bool) -> io::Result<Place> {
        let mut flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        if !follow {
            flags |= OFlag::O_NOFOLLOW;
        }
        let how = OpenHow::new()
            .flags(flags)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let path = clean(path);
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &path
        };
        let handle = openat2(&self.0, path, how)?;
        let meta = File::from(handle.try_clone()?).metadata()?;
        Ok(Place { handle, meta })
    }
}

impl Place {
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }

    pub fn read(&self) -> io::Result<File> {
        File::open(self.path())
    }

    pub fn link_target(&self) -> io::Result<PathBuf> {
        Ok(PathBuf::from(readlinkat(&self.handle, "")?))
    }

    /// Names in a folder, sorted: the same files give the same checksum.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let entries = std::fs::read_dir(self.path())?;
        let mut names = entries
            .map(|e| e.map(|e| e.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }
}

/// Relative, without `.` and `..`; what would climb stays at the top.
pub fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => drop(out.pop()),
            _ => {}
        }
    }
    out
}
