//! Copies all that is in a folder while containers may change it, and never what is outside of it.
//!
//! Folders are entered by their descriptors and no link is followed, so that one put in the place of a folder leads nowhere.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{Whence, lseek};
use xattr::FileExt as _;

use super::copy_up::copy_attributes;

const PIECE: usize = 1 << 20;
/// Each level keeps a descriptor open.
const DEEPEST: usize = 500;

/// What a copy and whoever waits for it tell one another.
#[derive(Debug, Default)]
pub struct Progress {
    copied: AtomicU64,
    cancelled: AtomicBool,
}

impl Progress {
    /// Bytes of files so far, as `Volume` sizes count them: holes too, and a second name of a file once more.
    pub fn copied(&self) -> u64 {
        self.copied.load(Ordering::Relaxed)
    }

    /// The copy ends soon, with an error of the kind `Interrupted`.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    fn add(&self, bytes: u64) {
        self.copied.fetch_add(bytes, Ordering::Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        match self.cancelled.load(Ordering::Relaxed) {
            true => Err(io::Error::new(io::ErrorKind::Interrupted, "cancelled")),
            false => Ok(()),
        }
    }
}

/// Fills the empty folder `to` with what is in `from`: owners, modes, times, extended attributes, holes and second names of files
/// too. What is removed meanwhile is left out.
pub fn copy_tree(from: &Path, to: &Path, progress: &Progress) -> io::Result<()> {
    let mut copy = Copy {
        names: HashMap::new(),
        progress,
    };
    let folder = open(from, libc::O_DIRECTORY)?;
    copy.folder(&folder, to, 0)
}

struct Copy<'a> {
    /// Device and inode of a file with several names → its copy.
    names: HashMap<(u64, u64), PathBuf>,
    progress: &'a Progress,
}

impl Copy<'_> {
    fn folder(&mut self, from: &File, to: &Path, depth: usize) -> io::Result<()> {
        if depth > DEEPEST {
            let why = format!("folders stand more than {DEEPEST} deep in one another");
            return Err(io::Error::other(why));
        }
        let inside = PathBuf::from(format!("/proc/self/fd/{}", from.as_raw_fd()));
        for entry in fs::read_dir(&inside)? {
            self.progress.check()?;
            let name = entry?.file_name();
            let told = |error: io::Error| match error.kind() {
                io::ErrorKind::Interrupted => error,
                kind => io::Error::new(kind, format!("{}: {error}", name.display())),
            };
            self.entry(&inside.join(&name), &to.join(&name), depth)
                .map_err(told)?;
        }
        finish(from, to)
    }

    fn entry(&mut self, from: &Path, to: &Path, depth: usize) -> io::Result<()> {
        let Some(meta) = unless_gone(fs::symlink_metadata(from))? else {
            return Ok(());
        };
        let kind = meta.file_type();
        if kind.is_dir() {
            let Some(folder) = unless_gone(open(from, libc::O_DIRECTORY))? else {
                return Ok(());
            };
            fs::create_dir(to)?;
            return self.folder(&folder, to, depth + 1);
        }
        if kind.is_file() {
            return self.file(from, to);
        }
        if kind.is_symlink() {
            let Some(target) = unless_gone(fs::read_link(from))? else {
                return Ok(());
            };
            symlink(target, to)?;
        } else {
            let node = SFlag::from_bits_truncate(meta.mode() & libc::S_IFMT);
            mknod(to, node, Mode::from_bits_truncate(meta.mode()), meta.rdev())?;
        }
        copy_attributes(&meta, from, to)
    }

    fn file(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        // Should it be a pipe by now, opening it waits for nobody.
        let Some(file) = unless_gone(open(from, libc::O_NONBLOCK))? else {
            return Ok(());
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("it changed its kind while it was copied"));
        }
        let identity = (meta.dev(), meta.ino());
        if meta.nlink() > 1 {
            if let Some(first) = self.names.get(&identity) {
                fs::hard_link(first, to)?;
                self.progress.add(meta.size());
                return Ok(());
            }
            self.names.insert(identity, to.to_owned());
        }
        let target = File::options().write(true).create_new(true).open(to)?;
        let data = self.data(&file, &target)?;
        target.set_len(meta.size().max(data.end))?;
        self.progress.add(meta.size().saturating_sub(data.bytes));
        finish(&file, to)
    }

    /// Copies what is no hole.
    fn data(&self, from: &File, to: &File) -> io::Result<Data> {
        let mut data = Data::default();
        let mut buffer = vec![0; PIECE];
        while let Some(start) = seek(from, data.end, Whence::SeekData)? {
            data.end = start;
            let stop = seek(from, start, Whence::SeekHole)?.unwrap_or(start);
            while data.end < stop {
                self.progress.check()?;
                let most = PIECE.min(usize::try_from(stop - data.end).unwrap_or(PIECE));
                let length = from.read_at(&mut buffer[..most], data.end)?;
                if length == 0 {
                    // It was cut meanwhile.
                    return Ok(data);
                }
                to.write_all_at(&buffer[..length], data.end)?;
                data.end += length as u64;
                data.bytes += length as u64;
                self.progress.add(length as u64);
            }
        }
        Ok(data)
    }
}

/// What was copied of a file.
#[derive(Default)]
struct Data {
    bytes: u64,
    end: u64,
}

/// The next data or hole from `at` on; `None` behind the last.
fn seek(file: &File, at: u64, whence: Whence) -> io::Result<Option<u64>> {
    let at = i64::try_from(at).map_err(io::Error::other)?;
    match lseek(file, at, whence) {
        Ok(found) => Ok(u64::try_from(found).ok()),
        Err(nix::Error::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn open(path: &Path, flags: i32) -> io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | flags)
        .open(path)
}

fn unless_gone<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a folder or file is beside its content.
fn finish(from: &File, to: &Path) -> io::Result<()> {
    for name in from.list_xattr()? {
        if let Some(value) = from.get_xattr(&name)? {
            xattr::set(to, &name, &value)?;
        }
    }
    let path = PathBuf::from(format!("/proc/self/fd/{}", from.as_raw_fd()));
    copy_attributes(&from.metadata()?, &path, to)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_copy_is_the_same_and_no_link_leads_out_of_it() {
        let base = tempfile::tempdir().unwrap();
        let (from, to) = (base.path().join("from"), base.path().join("to"));
        fs::create_dir_all(from.join("sub/empty")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("sub/file"), "content").unwrap();
        fs::set_permissions(from.join("sub"), fs::Permissions::from_mode(0o1770)).unwrap();
        fs::hard_link(from.join("sub/file"), from.join("second")).unwrap();
        symlink("/etc", from.join("link")).unwrap();
        let sparse = File::create(from.join("sparse")).unwrap();
        sparse.set_len(64 << 20).unwrap();
        sparse.write_all_at(b"in the middle", 32 << 20).unwrap();
        // No user owns the right to it everywhere.
        let labelled = xattr::set(from.join("sub/file"), "user.label", b"kept").is_ok();
        mknod(
            &from.join("pipe"),
            SFlag::S_IFIFO,
            Mode::from_bits_truncate(0o600),
            0,
        )
        .unwrap();

        let progress = Progress::default();
        copy_tree(&from, &to, &progress).unwrap();

        assert_eq!(fs::read_to_string(to.join("sub/file")).unwrap(), "content");
        let inode = |name: &str| fs::metadata(to.join(name)).unwrap().ino();
        assert_eq!(inode("sub/file"), inode("second"));
        let mode = |name: &str| fs::metadata(to.join(name)).unwrap().mode() & 0o7777;
        assert_eq!(mode("sub"), 0o1770);
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/etc"));
        let copied = fs::metadata(to.join("sparse")).unwrap();
        assert_eq!(copied.size(), 64 << 20);
        assert!(copied.blocks() * 512 < 4 << 20, "the holes stay");
        let mut text = [0; 13];
        let file = File::open(to.join("sparse")).unwrap();
        file.read_exact_at(&mut text, 32 << 20).unwrap();
        assert_eq!(&text, b"in the middle");
        if labelled {
            let label = xattr::get(to.join("sub/file"), "user.label").unwrap();
            assert_eq!(label.as_deref(), Some(&b"kept"[..]));
        }
        let modified = |folder: &Path| fs::metadata(folder.join("sub")).unwrap().mtime_nsec();
        assert_eq!(modified(&to), modified(&from));
        assert_eq!(progress.copied(), (64 << 20) + 2 * 7);
    }

    #[test]
    fn a_cancelled_copy_ends() {
        let base = tempfile::tempdir().unwrap();
        let (from, to) = (base.path().join("from"), base.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("file"), "content").unwrap();
        let progress = Progress::default();
        progress.cancel();
        let error = copy_tree(&from, &to, &progress).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
    }
}
