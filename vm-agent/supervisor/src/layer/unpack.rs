//! Unpacking a layer into a snapshot's folder, in overlayfs's form.
//!
//! Nothing of the layers below is needed, so layers can be unpacked side by side. What does depend on them is
//! returned as [`Deferred`] and settled when the layers are stacked in order.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use longshore_tar_entries::{Attributes, attributes, for_each};
use nix::sys::stat::{SFlag, makedev};
use tar::{Entry, EntryType};

use super::place::{self, Place, clean};
use super::{OPAQUE_MARKER, OPAQUE_XATTR, WHITEOUT_PREFIX, xattr};
use crate::error::{Error, IoStep, Result};

/// What is left to do once the layers below are known.
#[derive(Debug, Default, PartialEq)]
pub struct Deferred {
    /// Folders without an entry of their own: they look like those below.
    pub implied: Vec<PathBuf>,
    /// Hard links (path, target) whose target is in a layer below.
    pub links: Vec<(PathBuf, PathBuf)>,
}

/// More entries than any real layer; a bound against archives made to exhaust the machine.
const MAX_ENTRIES: u64 = 10_000_000;
const MAX_PATH: usize = 4096;

/// Unpacks an (uncompressed) archive into `folder`.
pub fn unpack(archive: impl Read, folder: &Path) -> Result<Deferred> {
    let place = Place::open(folder).step(|| format!("opening {}", folder.display()))?;
    let mut unpacker = Unpacker {
        place,
        deferred: Deferred::default(),
        folder_times: Vec::new(),
        buffer: vec![0; 128 * 1024],
    };
    let mut count = 0;
    let bad = |error| Error::InvalidArgument(format!("reading a layer: {error}"));
    for_each(archive, bad, |entry| {
        let path = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        count += 1;
        if path.as_os_str().len() > MAX_PATH || count > MAX_ENTRIES {
            let short: String = path.to_string_lossy().chars().take(80).collect();
            return Err(Error::InvalidArgument(format!(
                "layer entry {short:?} is out of bounds"
            )));
        }
        unpacker
            .entry(entry, &path)
            .step(|| format!("unpacking {}", path.display()))
    })?;
    unpacker.finish()
}

struct Unpacker {
    place: Place,
    deferred: Deferred,
    /// Making a file changes its folder's time: these are set last.
    folder_times: Vec<(PathBuf, i64)>,
    buffer: Vec<u8>,
}

impl Unpacker {
    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>, path: &Path) -> io::Result<()> {
        let path = clean(path);
        if let Some(name) = path.file_name().map(OsStrExt::as_bytes) {
            if name == OPAQUE_MARKER {
                return self.opaque(path.parent().unwrap_or(Path::new("")));
            }
            if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) {
                // Other names with `.wh..wh.` are leftovers of aufs.
                if hidden.is_empty() || hidden.starts_with(WHITEOUT_PREFIX) {
                    return Ok(());
                }
                return self.whiteout(&path.with_file_name(OsStr::from_bytes(hidden)));
            }
        }
        let kind = entry.header().entry_type();
        match kind {
            EntryType::Directory => self.folder(&path)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(entry, &path)?;
            }
            EntryType::Link => return self.link(entry, &path),
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or(io::ErrorKind::InvalidData)?;
                self.make(&path, |folder, name| {
                    place::create_symlink(folder, name, OsStr::from_bytes(&target))
                })?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let header = entry.header();
                let major = header.device_major()?.unwrap_or(0);
                let minor = header.device_minor()?.unwrap_or(0);
                // That is how overlayfs spells a whiteout: as a device it would hide a file.
                if kind == EntryType::Char && (major, minor) == (0, 0) {
                    return Ok(());
                }
                let (flag, device) = match kind {
                    EntryType::Char => (SFlag::S_IFCHR, makedev(major.into(), minor.into())),
                    EntryType::Block => (SFlag::S_IFBLK, makedev(major.into(), minor.into())),
                    _ => (SFlag::S_IFIFO, 0),
                };
                self.make(&path, |folder, name| {
                    place::create_node(folder, name, flag, device)
                })?;
            }
            EntryType::XGlobalHeader => return Ok(()),
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("tar entry type {kind:?}"),
                ));
            }
        }
        self.attributes(entry, &path, kind)
    }

    fn make<T>(
        &mut self,
        path: &Path,
        make: impl Fn(&std::os::fd::OwnedFd, &OsStr) -> nix::Result<T>,
    ) -> io::Result<T> {
        let implied = &mut self.deferred.implied;
        self.place
            .make(path, &mut |made| implied.push(made.to_owned()), make)
    }

    fn folder(&mut self, path: &Path) -> io::Result<()> {
        match self.place.stat(path)? {
            Some(stat) if place::is_folder(&stat) => {
                self.deferred.implied.retain(|implied| implied != path);
                Ok(())
            }
            found => {
                self.make(path, place::create_folder)?;
                // In place of a whiteout: what the layers below have here stays hidden.
                if found.is_some_and(|stat| place::is_whiteout(&stat)) {
                    self.opaque(path)?;
                }
                Ok(())
            }
        }
    }

    fn file<R: Read>(&mut self, entry: &mut Entry<'_, R>, path: &Path) -> io::Result<()> {
        let mut file = self.make(path, place::create_file)?;
        loop {
            match entry.read(&mut self.buffer)? {
                0 => return Ok(()),
                n => file.write_all(&self.buffer[..n])?,
            }
        }
    }

    fn link<R: Read>(&mut self, entry: &Entry<'_, R>, path: &Path) -> io::Result<()> {
        let target = entry.link_name_bytes().ok_or(io::ErrorKind::InvalidData)?;
        let target = clean(Path::new(OsStr::from_bytes(&target)));
        if target == path {
            return Ok(());
        }
        match self.place.stat(&target)? {
            Some(stat) if !place::is_whiteout(&stat) => {
                let implied = &mut self.deferred.implied;
                self.place
                    .link(&target, path, &mut |made| implied.push(made.to_owned()))
            }
            _ => {
                self.deferred.links.push((path.to_owned(), target));
                Ok(())
            }
        }
    }

    fn whiteout(&mut self, path: &Path) -> io::Result<()> {
        match self.place.stat(path)? {
            // A whiteout concerns the layers below, whatever the order in the archive.
            Some(stat) if place::is_folder(&stat) => self.opaque(path),
            Some(_) => Ok(()),
            None => self.make(path, place::create_whiteout),
        }
    }

    fn opaque(&mut self, path: &Path) -> io::Result<()> {
        if self
            .place
            .stat(path)?
            .is_none_or(|stat| !place::is_folder(&stat))
        {
            self.make(path, place::create_folder)?;
            self.deferred.implied.push(path.to_owned());
        }
        let folder = self.place.handle(path)?;
        xattr::set(&folder, OPAQUE_XATTR, b"y")
    }

    /// Owner before mode: changing the owner clears the set-user-id bit.
    fn attributes<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        path: &Path,
        kind: EntryType,
    ) -> io::Result<()> {
        let Attributes {
            uid,
            gid,
            mode,
            mtime: time,
        } = attributes(entry.header())?;
        if (uid, gid) != (0, 0) || !nix::unistd::geteuid().is_root() || path.as_os_str().is_empty()
        {
            self.place.set_owner(path, uid, gid)?;
        }
        if kind != EntryType::Symlink {
            self.place.set_mode(path, mode)?;
        }
        self.extended(entry, path)?;
        if kind == EntryType::Directory {
            self.folder_times.push((path.to_owned(), time));
        } else {
            self.place.set_time(path, time)?;
        }
        Ok(())
    }

    /// PAX records `SCHILY.xattr.NAME`. Those of overlayfs itself are not the archive's to set.
    fn extended<R: Read>(&mut self, entry: &mut Entry<'_, R>, path: &Path) -> io::Result<()> {
        let Some(extensions) = entry.pax_extensions()? else {
            return Ok(());
        };
        let mut handle = None;
        for extension in extensions {
            let extension = extension?;
            let Ok(name) = extension.key() else { continue };
            let Some(name) = name.strip_prefix("SCHILY.xattr.") else {
                continue;
            };
            if name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.") {
                continue;
            }
            if handle.is_none() {
                handle = Some(self.place.handle(path)?);
            }
            let Some(handle) = &handle else { continue };
            match xattr::set(handle, name, extension.value_bytes()) {
                // Not every file system keeps every kind; a link cannot have user attributes.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EOPNOTSUPP | libc::EPERM | libc::ELOOP)
                    ) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Deferred> {
        for (path, time) in std::mem::take(&mut self.folder_times) {
            // Replaced by something else meanwhile.
            match self.place.set_time(&path, time) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.step(|| format!("setting the time of {}", path.display()))?,
            }
        }
        Ok(self.deferred)
    }
}

/// Settles what was deferred, now that the layers below (nearest first) are there.
pub fn settle(deferred: &Deferred, folder: &Path, below: &[PathBuf]) -> Result<()> {
    // A path that leaves a lower layer through a link is not looked for elsewhere: `Place` keeps it inside.
    let mut lower = below
        .iter()
        .map(|path| Place::open(path))
        .collect::<io::Result<Vec<_>>>()
        .step(|| "opening the layers below".into())?;
    let mut place = Place::open(folder).step(|| format!("opening {}", folder.display()))?;
    for path in &deferred.implied {
        for layer in &mut lower {
            let found = layer
                .stat(path)
                .step(|| format!("looking at {}", path.display()))?;
            let Some(stat) = found else { continue };
            if place::is_folder(&stat) {
                place
                    .set_owner(path, stat.st_uid.into(), stat.st_gid.into())
                    .and_then(|()| place.set_mode(path, stat.st_mode))
                    .and_then(|()| place.set_time(path, stat.st_mtime))
                    .step(|| format!("copying attributes to {}", path.display()))?;
            }
            break;
        }
    }
    for (path, target) in &deferred.links {
        copy_up(&mut place, &mut lower, below, target)?;
        place
            .link(target, path, &mut |_| {})
            .step(|| format!("linking {} to {}", path.display(), target.display()))?;
    }
    Ok(())
}

/// Copies a file of a lower layer, as overlayfs does before a hard link is made to it.
fn copy_up(place: &mut Place, lower: &mut [Place], below: &[PathBuf], path: &Path) -> Result<()> {
    let step = || format!("copying {} from a layer below", path.display());
    if place
        .stat(path)
        .step(step)?
        .is_some_and(|stat| !place::is_whiteout(&stat))
    {
        return Ok(());
    }
    for layer in lower.iter_mut().take(below.len()) {
        let Some(stat) = layer.stat(path).step(step)? else {
            continue;
        };
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            break;
        }
        let source = layer.handle(path).step(step)?;
        let named = place::fd_path(&source);
        let mut source = std::fs::File::open(OsStr::from_bytes(named.as_bytes())).step(step)?;
        let mut target = place
            .make(path, &mut |_| {}, place::create_file)
            .step(step)?;
        io::copy(&mut source, &mut target).step(step)?;
        return place
            .set_owner(path, stat.st_uid.into(), stat.st_gid.into())
            .and_then(|()| place.set_mode(path, stat.st_mode))
            .and_then(|()| place.set_time(path, stat.st_mtime))
            .step(step);
    }
    Err(Error::InvalidArgument(format!(
        "hard link to {}, which no layer has",
        path.display()
    )))
}
