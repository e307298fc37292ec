//! A tar stream into a folder of a container; every name is resolved inside the container's root.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::{Component, Path, PathBuf};

use longshore_tar_entries::{attributes, for_each};
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fstatat, futimens, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};
use tar::{Entry, EntryType};

/// What the client asked of the extraction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A folder must not take a file's place, nor the other way round.
    pub no_overwrite_dir_non_dir: bool,
}

/// A folder where a file is to be, or the other way round.
#[derive(Debug, thiserror::Error)]
#[error("a {old} is in the way of a {new}")]
struct InTheWay {
    old: &'static str,
    new: &'static str,
}

struct Target {
    root: OwnedFd,
    /// Where the archive's names start, relative to the root.
    base: PathBuf,
    options: Options,
}

/// Unpacks into `base` below `root`.
pub fn unpack(root: &Path, base: &str, archive: impl Read, options: Options) -> io::Result<()> {
    let target = Target {
        root: File::open(root)?.into(),
        base: clean(Path::new(base)),
        options,
    };
    let mut folder_times = Vec::new();
    let bad = |error: io::Error| match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::UnexpectedEof, _) => io::Error::new(error.kind(), "unexpected EOF"),
        (_, Some(_)) => error,
        _ => {
            tracing::debug!(%error, "an archive is damaged");
            io::Error::new(
                io::ErrorKind::InvalidData,
                "archive/tar: invalid tar header",
            )
        }
    };
    for_each(archive, bad, |entry| {
        let named = entry.path()?;
        if climbs(&named) {
            let words = format!("{named:?} is outside of {base:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
        let name = clean(&named);
        drop(named);
        let at = target.base.join(&name);
        let time = TimeSpec::new(attributes(entry.header())?.mtime, 0);
        if entry.header().entry_type() == EntryType::Directory {
            folder_times.push((at.clone(), time));
        }
        target
            .write(entry, &at, time)
            .map_err(|error| match error.downcast::<InTheWay>() {
                Ok(there) => io::Error::other(format!(
                    "cannot overwrite {} {:?} with {} {base:?}",
                    there.old, name, there.new
                )),
                Err(error) => io::Error::new(error.kind(), format!("/{}: {error}", at.display())),
            })
    })?;
    // Last, for what is put into a folder changes its time.
    for (at, time) in folder_times.iter().rev() {
        if let Ok(folder) = target.folder(at) {
            let _ = futimens(&folder, time, time);
        }
    }
    Ok(())
}

/// Whether a name leads out of the folder that it starts in. An absolute one starts there, too.
fn climbs(name: &Path) -> bool {
    let mut depth = 0;
    name.components().any(|part| {
        match part {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth -= 1,
            _ => {}
        }
        depth < 0
    })
}

/// Relative, without `.` and `..`; names that would climb stay at the top.
fn clean(path: &Path) -> PathBuf {
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

impl Target {
    /// An open folder inside the root, through whatever links the container has.
    fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        Ok(openat2(&self.root, path, how)?)
    }

    /// The folder that `path` is to be in, made with its parents where it is missing.
    fn parent(&self, path: &Path) -> io::Result<OwnedFd> {
        let parent = path.parent().unwrap_or(Path::new(""));
        match self.folder(parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let above = self.parent(parent)?;
                let name = parent.file_name().ok_or(io::ErrorKind::InvalidInput)?;
                mkdirat(&above, name, Mode::from_bits_truncate(0o755))?;
                self.folder(parent)
            }
            other => other,
        }
    }

    fn write(&self, entry: &mut Entry<impl Read>, at: &Path, time: TimeSpec) -> io::Result<()> {
        let Some(name) = at.file_name() else {
            return Ok(()); // The root itself, or `./`.
        };
        let kind = entry.header().entry_type();
        let parent = self.parent(at)?;
        self.make_way(&parent, name, kind)?;
        let attributes = attributes(entry.header())?;
        let mode = attributes.mode & 0o7777;
        let (uid, gid) = (attributes.uid as u32, attributes.gid as u32);
        match kind {
            EntryType::Directory => {
                match mkdirat(&parent, name, Mode::from_bits_truncate(0o700)) {
                    Err(nix::Error::EEXIST) | Ok(()) => {}
                    Err(error) => return Err(error.into()),
                }
                let folder = self.folder(at)?;
                fchown(&folder, Some(uid), Some(gid))?;
                return File::from(folder).set_permissions(fs::Permissions::from_mode(mode));
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
                symlinkat(target.as_ref(), &parent, name)?;
            }
            EntryType::Link => return self.hard_link(entry, &parent, name),
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let device = libc::makedev(
                    entry.header().device_major()?.unwrap_or(0),
                    entry.header().device_minor()?.unwrap_or(0),
                );
                let kind = match kind {
                    EntryType::Char => SFlag::S_IFCHR,
                    EntryType::Block => SFlag::S_IFBLK,
                    _ => SFlag::S_IFIFO,
                };
                mknodat(&parent, name, kind, Mode::from_bits_truncate(mode), device)?;
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlag::O_WRONLY
                    | OFlag::O_CREAT
                    | OFlag::O_EXCL
                    | OFlag::O_NOFOLLOW
                    | OFlag::O_CLOEXEC;
                let created = openat(&parent, name, flags, Mode::from_bits_truncate(0o600))?;
                let mut file = File::from(created);
                io::copy(entry, &mut file)?;
                fchown(&file, Some(uid), Some(gid))?;
                file.set_permissions(fs::Permissions::from_mode(mode))?;
                set_attributes(entry, &file);
                return Ok(futimens(&file, &time, &time)?);
            }
            _ => return Ok(()),
        }
        fchownat(
            &parent,
            name,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )?;
        Ok(utimensat(
            &parent,
            name,
            &time,
            &time,
            UtimensatFlags::NoFollowSymlink,
        )?)
    }

    /// Removes what is there, unless both are folders.
    fn make_way(
        &self,
        parent: &OwnedFd,
        name: &std::ffi::OsStr,
        kind: EntryType,
    ) -> io::Result<()> {
        let there = match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT),
            Err(nix::Error::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (is_folder, was_folder) = (kind == EntryType::Directory, there == SFlag::S_IFDIR);
        if is_folder && was_folder {
            return Ok(());
        }
        if is_folder != was_folder && self.options.no_overwrite_dir_non_dir {
            let (folder, other) = ("directory", "non-directory");
            let (old, new) = if was_folder {
                (folder, other)
            } else {
                (other, folder)
            };
            return Err(io::Error::other(InTheWay { old, new }));
        }
        if !was_folder {
            return Ok(unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?);
        }
        fs::remove_dir_all(
            PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd())).join(name),
        )
    }

    fn hard_link(
        &self,
        entry: &Entry<impl Read>,
        parent: &OwnedFd,
        name: &std::ffi::OsStr,
    ) -> io::Result<()> {
        let target = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
        let from = self.base.join(clean(&target));
        let folder = self.parent(&from)?;
        let last = from.file_name().ok_or(io::ErrorKind::InvalidData)?;
        Ok(linkat(
            folder.as_fd(),
            last,
            parent.as_fd(),
            name,
            AtFlags::empty(),
        )?)
    }
}

/// Extended attributes travel as PAX records.
fn set_attributes(entry: &mut Entry<impl Read>, file: &File) {
    let Ok(Some(records)) = entry.pax_extensions() else {
        return;
    };
    for record in records.flatten() {
        let name = record
            .key()
            .ok()
            .and_then(|key| key.strip_prefix("SCHILY.xattr."));
        let Some(name) = name.and_then(|name| CString::new(name).ok()) else {
            continue;
        };
        let value = record.value_bytes();
        // SAFETY: the name ends with NUL, and pointer and length describe `value`.
        unsafe {
            libc::fsetxattr(
                file.as_raw_fd(),
                name.as_ptr(),
                value.as_ptr().cast(),
                value.len(),
                0,
            )
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        // SAFETY: getuid and getgid cannot fail.
        let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.set_uid(uid.into());
            header.set_gid(gid.into());
            // Names that the crate itself would refuse to write.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            let data = if *kind == EntryType::Symlink {
                header.set_link_name_literal(content).unwrap();
                ""
            } else {
                content
            };
            header.set_size(data.len() as u64);
            header.set_cksum();
            tar.append(&header, data.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn nothing_is_written_outside_the_root() {
        let base = std::env::temp_dir().join(format!("unpack-{}", crate::identity::new_id()));
        let root = base.join("root");
        fs::create_dir_all(root.join("srv")).unwrap();
        fs::create_dir_all(base.join("outside")).unwrap();
        symlink(base.join("outside"), root.join("srv/trap")).unwrap();
        for climbing in ["../../up", "/../up", "a/../../up"] {
            let archive = archive(&[
                ("a/", EntryType::Directory, ""),
                (climbing, EntryType::Regular, "a"),
            ]);
            let error = unpack(&root, "/srv", &archive[..], Options::default()).unwrap_err();
            let expected = format!("{climbing:?} is outside of \"/srv\"");
            assert_eq!(error.to_string(), expected);
        }
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
        let hostile = archive(&[
            ("trap/file", EntryType::Regular, "b"),
            ("link", EntryType::Symlink, "../../../../outside"),
            ("link/file", EntryType::Regular, "c"),
            ("/abs", EntryType::Regular, "d"),
        ]);
        // Links of the container that lead nowhere inside it are an error, never a way out.
        let _ = unpack(&root, "/srv", &hostile[..], Options::default());
        assert!(fs::read_dir(base.join("outside")).unwrap().next().is_none());
        assert_eq!(fs::read_dir(&base).unwrap().count(), 2);
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn files_replace_files_and_folders_are_merged() {
        let root = std::env::temp_dir().join(format!("unpack-{}", crate::identity::new_id()));
        fs::create_dir_all(root.join("d/keep")).unwrap();
        fs::write(root.join("d/f"), "old").unwrap();
        let entries = [
            ("d/", EntryType::Directory, ""),
            ("d/f", EntryType::Regular, "new"),
            ("d/new/deep", EntryType::Regular, "x"),
        ];
        unpack(&root, "/", &archive(&entries)[..], Options::default()).unwrap();
        assert_eq!(fs::read_to_string(root.join("d/f")).unwrap(), "new");
        assert_eq!(fs::read_to_string(root.join("d/new/deep")).unwrap(), "x");
        assert!(root.join("d/keep").is_dir());

        let options = Options {
            no_overwrite_dir_non_dir: true,
        };
        let error = unpack(
            &root,
            "/",
            &archive(&[("d", EntryType::Regular, "x")])[..],
            options,
        );
        let expected = r#"cannot overwrite directory "d" with non-directory "/""#;
        assert_eq!(error.unwrap_err().to_string(), expected);
        assert_eq!(clean(Path::new("/a/../../b")), Path::new("b"));
        fs::remove_dir_all(root).unwrap();
    }
}
