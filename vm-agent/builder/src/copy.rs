//! COPY and ADD: which files, where to, and the archive that carries them.
//!
//! The same archive is written twice: once into a hash, which is the cache's key, and once into the image. Owner and
//! times of the source do not count, as under Docker.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use longshore_tar_entries::{attributes, for_each};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use crate::matching;
use crate::owner::Owner;
use crate::root::{Place, Root, clean};

/// A file or folder that is to be copied, and its name in the image (relative to the root).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub from: PathBuf,
    pub to: PathBuf,
    /// The folder's content goes to `to`, not the folder.
    pub content: bool,
    /// Unpacked at `to` instead of copied (ADD of an archive).
    pub unpack: bool,
}

/// Everything that one instruction copies.
pub struct Plan {
    pub root: Arc<Root>,
    pub sources: Vec<Source>,
    pub owner: Owner,
    /// Archives keep their own owners.
    pub keep_owner: bool,
}

/// The paths under `root` that a pattern stands for, in order; the path itself when it is no pattern.
pub fn expand(root: &Root, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let wanted = clean(Path::new(pattern));
    if !matching::is_pattern(pattern) {
        root.place(&wanted, true)?;
        return Ok(vec![wanted]);
    }
    let mut found = vec![PathBuf::new()];
    for part in wanted.components() {
        let part = part.as_os_str().to_string_lossy().into_owned();
        let mut next = Vec::new();
        for folder in found {
            if !matching::is_pattern(&part) {
                let path = folder.join(&part);
                if root.place(&path, false).is_ok() {
                    next.push(path);
                }
                continue;
            }
            let place = root.place(&folder, true)?;
            if !place.meta.is_dir() {
                continue;
            }
            for name in place.names()? {
                if matching::matches(&part, &name.to_string_lossy()) {
                    next.push(folder.join(name));
                }
            }
        }
        found = next;
    }
    Ok(found)
}

/// An archive that ADD unpacks, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packed {
    Tar,
    Gzip,
    Zstd,
}

/// Whether a file is an archive that ADD unpacks. Error: one in a form that is not unpacked here.
pub fn packed(root: &Root, path: &Path) -> io::Result<Option<Packed>> {
    let place = root.place(path, true)?;
    if !place.meta.is_file() {
        return Ok(None);
    }
    let mut head = [0u8; 512];
    let mut file = place.read()?;
    let len = read_full(&mut file, &mut head)?;
    let kind = match &head[..len] {
        [0x1f, 0x8b, ..] => Packed::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Packed::Zstd,
        [b'B', b'Z', b'h', ..] | [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            let why = "archives packed with bzip2 or xz cannot be unpacked here: use gzip, zstd, or RUN tar";
            return Err(io::Error::other(why));
        }
        _ => Packed::Tar,
    };
    // Only what begins as a tar is unpacked; a gzipped text stays what it is.
    let mut head = [0u8; 512];
    let whole =
        opened(place.read()?, kind).and_then(|mut reader| read_full(&mut reader, &mut head));
    let is_tar = matches!(whole, Ok(512)) && is_tar_header(&head);
    Ok(is_tar.then_some(kind))
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match reader.read(&mut buffer[len..])? {
            0 => break,
            n => len += n,
        }
    }
    Ok(len)
}

/// The header's checksum says so, also for archives from before `ustar`.
fn is_tar_header(block: &[u8; 512]) -> bool {
    let header = Header::from_byte_slice(block);
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(i, byte)| u32::from(if (148..156).contains(&i) { b' ' } else { *byte }))
        .sum();
    block.iter().any(|byte| *byte != 0) && header.cksum().is_ok_and(|told| told == sum)
}

fn opened(file: File, kind: Packed) -> io::Result<Box<dyn Read>> {
    Ok(match kind {
        Packed::Tar => Box::new(file),
        Packed::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Packed::Zstd => Box::new(zstd::Decoder::new(file)?),
    })
}

impl Plan {
    /// `file:…`, `dir:…` or `multi:…` over everything that would be copied.
    pub fn checksum(&self) -> io::Result<String> {
        let mut hash = HashWriter(Sha256::new());
        self.write_with(&mut hash, false)?;
        let kind = match self.sources.as_slice() {
            [one] if self.root.place(&one.from, true)?.meta.is_dir() => "dir",
            [_] => "file",
            _ => "multi",
        };
        Ok(format!("{kind}:{}", hex::encode(hash.0.finalize())))
    }

    /// The archive, with names from the image's root on.
    pub fn write(&self, output: &mut dyn Write) -> io::Result<()> {
        self.write_with(output, true)
    }

    fn write_with(&self, output: &mut dyn Write, times: bool) -> io::Result<()> {
        let mut tar = tar::Builder::new(output);
        for source in &self.sources {
            let step =
                |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", source.from.display()));
            if source.unpack {
                self.unpacked(&mut tar, source, times).map_err(step)?;
                continue;
            }
            let place = self.root.place(&source.from, true).map_err(step)?;
            if source.content {
                self.children(&mut tar, &source.from, &place, &source.to, times)
                    .map_err(step)?;
            } else {
                self.one(&mut tar, &source.from, &place, &source.to, times)
                    .map_err(step)?;
            }
        }
        tar.finish()
    }

    fn header(&self, place: &Place, kind: EntryType, size: u64, times: bool) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(place.meta.mode() & 0o7777);
        header.set_uid(self.owner.uid.into());
        header.set_gid(self.owner.gid.into());
        header.set_mtime(if times {
            place.meta.mtime().max(0) as u64
        } else {
            0
        });
        header.set_size(size);
        header
    }

    fn one<W: Write>(
        &self,
        tar: &mut tar::Builder<W>,
        from: &Path,
        place: &Place,
        to: &Path,
        times: bool,
    ) -> io::Result<()> {
        let kind = place.meta.file_type();
        if kind.is_dir() {
            let mut header = self.header(place, EntryType::Directory, 0, times);
            tar.append_data(&mut header, folder_name(to), io::empty())?;
            return self.children(tar, from, place, to, times);
        }
        if kind.is_symlink() {
            let mut header = self.header(place, EntryType::Symlink, 0, times);
            return tar.append_link(&mut header, to, place.link_target()?);
        }
        if kind.is_file() {
            // A file that grows or shrinks meanwhile must not shift what follows it.
            let size = place.meta.size();
            let padded = place.read()?.chain(io::repeat(0)).take(size);
            let mut header = self.header(place, EntryType::Regular, size, times);
            return tar.append_data(&mut header, to, padded);
        }
        if kind.is_fifo() {
            let mut header = self.header(place, EntryType::Fifo, 0, times);
            return tar.append_data(&mut header, to, io::empty());
        }
        // Sockets and devices are not copied.
        Ok(())
    }

    fn children<W: Write>(
        &self,
        tar: &mut tar::Builder<W>,
        from: &Path,
        place: &Place,
        to: &Path,
        times: bool,
    ) -> io::Result<()> {
        if !place.meta.is_dir() {
            return self.one(tar, from, place, to, times);
        }
        for name in place.names()? {
            let from = from.join(&name);
            let child = self.root.place(&from, false)?;
            self.one(tar, &from, &child, &to.join(&name), times)?;
        }
        Ok(())
    }

    /// An archive's entries under `to`; names that would climb stay below it.
    fn unpacked<W: Write>(
        &self,
        tar: &mut tar::Builder<W>,
        source: &Source,
        times: bool,
    ) -> io::Result<()> {
        let kind = packed(&self.root, &source.from)?.unwrap_or(Packed::Tar);
        let file = self.root.place(&source.from, true)?.read()?;
        for_each(opened(file, kind)?, std::convert::identity, |entry| {
            let name = clean(&entry.path()?);
            let kind = entry.header().entry_type();
            if name.as_os_str().is_empty() || kind.is_pax_global_extensions() {
                return Ok(());
            }
            let to = source.to.join(&name);
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            let from = attributes(entry.header())?;
            header.set_mode(from.mode & 0o7777);
            let (uid, gid) = match self.keep_owner {
                true => (from.uid, from.gid),
                false => (self.owner.uid.into(), self.owner.gid.into()),
            };
            header.set_uid(uid);
            header.set_gid(gid);
            header.set_mtime(if times { from.mtime.max(0) as u64 } else { 0 });
            header.set_size(0);
            match kind {
                EntryType::Directory => {
                    tar.append_data(&mut header, folder_name(&to), io::empty())?
                }
                EntryType::Symlink => {
                    let target = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
                    tar.append_link(&mut header, &to, target)?;
                }
                EntryType::Link => {
                    let target = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
                    tar.append_link(&mut header, &to, source.to.join(clean(&target)))?;
                }
                EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                    header.set_entry_type(EntryType::Regular);
                    header.set_size(entry.size());
                    tar.append_data(&mut header, &to, entry)?;
                }
                EntryType::Char | EntryType::Block | EntryType::Fifo => {
                    header.set_device_major(entry.header().device_major()?.unwrap_or(0))?;
                    header.set_device_minor(entry.header().device_minor()?.unwrap_or(0))?;
                    tar.append_data(&mut header, &to, io::empty())?;
                }
                _ => {}
            }
            Ok(())
        })
    }
}

fn folder_name(path: &Path) -> &Path {
    // The crate writes the slash that marks a folder by the entry's kind; the root itself needs a name.
    match path.as_os_str().is_empty() {
        true => Path::new(OsStr::from_bytes(b"./")),
        false => path,
    }
}

/// Hashes an archive without the times in it.
struct HashWriter(Sha256);

impl Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn context() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("src/sub")).unwrap();
        std::fs::write(folder.path().join("src/a.txt"), "a").unwrap();
        std::fs::write(folder.path().join("src/b.md"), "b").unwrap();
        std::fs::write(folder.path().join("src/sub/c.txt"), "c").unwrap();
        folder
    }

    fn names(plan: &Plan) -> Vec<String> {
        let mut bytes = Vec::new();
        plan.write(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        archive
            .entries()
            .unwrap()
            .map(|e| {
                e.unwrap()
                    .path()
                    .unwrap()
                    .to_string_lossy()
                    .trim_end_matches('/')
                    .to_owned()
            })
            .collect()
    }

    #[test]
    fn patterns_and_folders() {
        let folder = context();
        let root = Root::open(folder.path()).unwrap();
        assert_eq!(
            expand(&root, "src/*.txt").unwrap(),
            [PathBuf::from("src/a.txt")]
        );
        assert_eq!(expand(&root, "*/sub").unwrap(), [PathBuf::from("src/sub")]);
        assert_eq!(expand(&root, "../../src").unwrap(), [PathBuf::from("src")]);
        assert!(expand(&root, "nothing").is_err());
        let plan = Plan {
            root: Arc::new(root),
            sources: vec![Source {
                from: "src".into(),
                to: "app".into(),
                content: true,
                unpack: false,
            }],
            owner: Owner::default(),
            keep_owner: false,
        };
        assert_eq!(
            names(&plan),
            ["app/a.txt", "app/b.md", "app/sub", "app/sub/c.txt"]
        );
        assert!(plan.checksum().unwrap().starts_with("dir:"));
    }

    #[test]
    fn links_of_the_context_do_not_lead_out_of_it() {
        let folder = context();
        symlink("/etc/passwd", folder.path().join("trap")).unwrap();
        let root = Root::open(folder.path()).unwrap();
        assert!(expand(&root, "trap").is_err());
        symlink("/src/a.txt", folder.path().join("fine")).unwrap();
        assert!(expand(&root, "fine").is_ok());
    }

    #[test]
    fn archives_are_recognised_and_unpacked_below_their_place() {
        let folder = context();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.as_old_mut().name[..7].copy_from_slice(b"../../x");
        header.set_cksum();
        tar.append(&header, &b"x"[..]).unwrap();
        let bytes = tar.into_inner().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&bytes).unwrap();
        std::fs::write(folder.path().join("p.tgz"), gzip.finish().unwrap()).unwrap();
        let root = Root::open(folder.path()).unwrap();
        assert_eq!(
            packed(&root, Path::new("p.tgz")).unwrap(),
            Some(Packed::Gzip)
        );
        assert_eq!(packed(&root, Path::new("src/a.txt")).unwrap(), None);
        let plan = Plan {
            root: Arc::new(root),
            sources: vec![Source {
                from: "p.tgz".into(),
                to: "opt".into(),
                content: false,
                unpack: true,
            }],
            owner: Owner::default(),
            keep_owner: true,
        };
        assert_eq!(names(&plan), ["opt/x"]);
    }
}
