//! Making files in a folder that a hostile archive must not get out of.
//!
//! Every path is resolved by the kernel with the folder as its root (openat2, RESOLVE_IN_ROOT): `..` and links
//! end inside, whatever was unpacked before. The last part of a path is never followed.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstatat, mkdirat, mknodat};
use nix::unistd::{Gid, Uid};
use nix::unistd::{LinkatFlags, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

/// A root folder, and the folder that was used last: entries come folder by folder.
pub struct Place {
    root: OwnedFd,
    last: Option<(PathBuf, OwnedFd)>,
}

/// A path inside, without `..` at its front: its parts, normal ones only.
pub fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => cleaned.push(part),
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

fn inside(flags: OFlag) -> OpenHow {
    OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

/// Splits into folder and name; the root itself has no name.
fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    Some((path.parent()?, path.file_name()?))
}

impl Place {
    pub fn open(root: &Path) -> io::Result<Self> {
        let root = File::open(root)?;
        Ok(Self {
            root: root.into(),
            last: None,
        })
    }

    /// The folder at `path`; `None` when there is none.
    fn folder(&mut self, path: &Path) -> io::Result<Option<&OwnedFd>> {
        if path.as_os_str().is_empty() {
            return Ok(Some(&self.root));
        }
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
            match openat2(self.root.as_fd(), path, inside(flags)) {
                Ok(folder) => self.last = Some((path.to_owned(), folder)),
                Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.last.as_ref().map(|(_, folder)| folder))
    }

    /// The folder that `path`'s last part goes into. Missing folders are made and reported: the archive has no entry for
    /// them, so their attributes are those of the layer below.
    fn folder_for(&mut self, path: &Path, made: &mut dyn FnMut(&Path)) -> io::Result<&OwnedFd> {
        if self.folder(path)?.is_none() {
            let (parent, name) = split(path).ok_or(io::ErrorKind::NotFound)?;
            let parent_fd = self.folder_for(parent, made)?;
            match mkdirat(parent_fd.as_fd(), name, Mode::from_bits_truncate(0o755)) {
                Ok(()) => {}
                // Something that is no folder (a whiteout, a file) is in the way: a folder replaces it.
                Err(Errno::EEXIST) => {
                    unlinkat(parent_fd.as_fd(), name, UnlinkatFlags::NoRemoveDir)?;
                    mkdirat(parent_fd.as_fd(), name, Mode::from_bits_truncate(0o755))?;
                }
                Err(error) => return Err(error.into()),
            }
            made(path);
        }
        self.folder(path)?
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Runs `make` in the folder of `path`. What is in the way (an entry may come twice) is removed first.
    pub fn make<T>(
        &mut self,
        path: &Path,
        made: &mut dyn FnMut(&Path),
        make: impl Fn(&OwnedFd, &OsStr) -> nix::Result<T>,
    ) -> io::Result<T> {
        let (parent, name) = split(path).ok_or(io::ErrorKind::InvalidInput)?;
        let folder = self.folder_for(parent, made)?;
        match make(folder, name) {
            Err(Errno::EEXIST) => {
                let folder = folder.try_clone()?;
                self.last = None;
                remove(&folder, name)?;
                Ok(make(&folder, name)?)
            }
            other => Ok(other?),
        }
    }

    /// What is at `path`, the last part not followed.
    pub fn stat(&mut self, path: &Path) -> io::Result<Option<FileStat>> {
        let Some((parent, name)) = split(path) else {
            return Ok(Some(nix::sys::stat::fstat(&self.root)?));
        };
        let Some(folder) = self.folder(parent)? else {
            return Ok(None);
        };
        match fstatat(folder.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the thing itself at `path`, never what it links to, only to name it.
    pub fn handle(&mut self, path: &Path) -> io::Result<OwnedFd> {
        let Some((parent, name)) = split(path) else {
            return self.root.try_clone();
        };
        let folder = self.folder(parent)?.ok_or(io::ErrorKind::NotFound)?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        Ok(openat2(folder.as_fd(), name, inside(flags))?)
    }

    pub fn link(
        &mut self,
        target: &Path,
        path: &Path,
        made: &mut dyn FnMut(&Path),
    ) -> io::Result<()> {
        let target = self.handle(target)?;
        let by_fd = fd_path(&target);
        self.make(path, made, |folder, name| {
            linkat(
                nix::fcntl::AT_FDCWD,
                by_fd.as_c_str(),
                folder,
                name,
                LinkatFlags::AT_SYMLINK_FOLLOW,
            )
        })
    }

    pub fn set_owner(&mut self, path: &Path, uid: u64, gid: u64) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(uid as u32), Gid::from_raw(gid as u32));
        match split(path) {
            Some((parent, name)) => {
                let folder = self.folder(parent)?.ok_or(io::ErrorKind::NotFound)?;
                fchownat(
                    folder,
                    name,
                    Some(uid),
                    Some(gid),
                    AtFlags::AT_SYMLINK_NOFOLLOW,
                )?;
            }
            None => nix::unistd::fchown(&self.root, Some(uid), Some(gid))?,
        }
        Ok(())
    }

    /// Not for symbolic links, which have no mode.
    pub fn set_mode(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        let mode = Mode::from_bits_truncate(mode & 0o7777);
        match split(path) {
            Some((parent, name)) => {
                let folder = self.folder(parent)?.ok_or(io::ErrorKind::NotFound)?;
                fchmodat(folder, name, mode, FchmodatFlags::FollowSymlink)?;
            }
            None => nix::sys::stat::fchmod(&self.root, mode)?,
        }
        Ok(())
    }

    pub fn set_time(&mut self, path: &Path, seconds: i64) -> io::Result<()> {
        let time = nix::sys::time::TimeSpec::new(seconds, 0);
        match split(path) {
            Some((parent, name)) => {
                let folder = self.folder(parent)?.ok_or(io::ErrorKind::NotFound)?;
                let flags = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
                nix::sys::stat::utimensat(folder, name, &time, &time, flags)?;
            }
            None => nix::sys::stat::futimens(&self.root, &time, &time)?,
        }
        Ok(())
    }
}

/// A name by which system calls that only take paths reach an open file.
pub fn fd_path(fd: &OwnedFd) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).expect("no NUL in a number")
}

pub fn create_file(folder: &OwnedFd, name: &OsStr) -> nix::Result<File> {
    let flags =
        OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    nix::fcntl::openat(folder, name, flags, Mode::from_bits_truncate(0o600)).map(File::from)
}

pub fn create_folder(folder: &OwnedFd, name: &OsStr) -> nix::Result<()> {
    mkdirat(folder, name, Mode::from_bits_truncate(0o755))
}

pub fn create_symlink(folder: &OwnedFd, name: &OsStr, target: &OsStr) -> nix::Result<()> {
    symlinkat(target, folder, name)
}

pub fn create_node(
    folder: &OwnedFd,
    name: &OsStr,
    kind: SFlag,
    device: nix::libc::dev_t,
) -> nix::Result<()> {
    mknodat(folder, name, kind, Mode::from_bits_truncate(0o600), device)
}

/// overlayfs's whiteout: a character device 0/0.
pub fn create_whiteout(folder: &OwnedFd, name: &OsStr) -> nix::Result<()> {
    create_node(folder, name, SFlag::S_IFCHR, 0)
}

pub fn is_whiteout(stat: &FileStat) -> bool {
    stat.st_mode & nix::libc::S_IFMT == nix::libc::S_IFCHR && stat.st_rdev == 0
}

pub fn is_folder(stat: &FileStat) -> bool {
    stat.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR
}

/// Removes a file or a whole folder, links not followed.
fn remove(folder: &OwnedFd, name: &OsStr) -> nix::Result<()> {
    match unlinkat(folder, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR | Errno::EPERM) => {}
        other => return other,
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut dir = nix::dir::Dir::openat(folder, name, flags, Mode::empty())?;
    let names: Vec<CString> = dir
        .iter()
        .flatten()
        .map(|entry| entry.file_name().to_owned())
        .filter(|name: &CString| !matches!(name.to_bytes(), b"." | b".."))
        .collect();
    let fd = dir
        .as_fd()
        .try_clone_to_owned()
        .map_err(|_| Errno::EMFILE)?;
    for name in names {
        let name: &CStr = &name;
        remove(&fd, OsStr::from_bytes(name.to_bytes()))?;
    }
    unlinkat(folder, name, UnlinkatFlags::RemoveDir)
}
