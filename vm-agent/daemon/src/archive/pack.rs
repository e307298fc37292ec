//! A file or folder of a container as a tar stream.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;

use super::place::Place;

/// Hands what is written to the response, as it comes.
pub struct ChunkWriter(pub mpsc::Sender<io::Result<Bytes>>);

/// Bytes of a piece.
const PIECE: usize = 64 * 1024;

/// Whatever is written goes on in pieces of one size, but the last.
pub fn in_pieces<W: Write>(to: W) -> io::BufWriter<W> {
    io::BufWriter::with_capacity(PIECE, to)
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes `place` under `name`; folders with all they hold.
pub fn write(place: &Place, name: &OsStr, to: impl Write) -> io::Result<()> {
    let mut tar = Builder::new(in_pieces(to));
    if place.meta.file_type().is_symlink() {
        append_link(&mut tar, &place.meta, Path::new(name), &place.link_target)?;
    } else if place.meta.is_file() {
        // The place's path is a link to the descriptor that it holds: to be followed, whatever stands there now.
        append_regular(&mut tar, &place.path(), 0, &place.meta, Path::new(name))?;
    } else {
        append(&mut tar, &place.path(), &place.meta, Path::new(name))?;
    }
    tar.into_inner()?.flush()
}

fn header_of(meta: &fs::Metadata, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(meta.mode() & 0o7777);
    header.set_uid(u64::from(meta.uid()));
    header.set_gid(u64::from(meta.gid()));
    header.set_mtime(meta.mtime().max(0) as u64);
    header.set_size(size);
    header
}

fn append<W: Write>(
    tar: &mut Builder<W>,
    path: &Path,
    meta: &fs::Metadata,
    name: &Path,
) -> io::Result<()> {
    let kind = meta.file_type();
    if kind.is_dir() {
        let mut header = header_of(meta, EntryType::Directory, 0);
        let mut with_slash = name.as_os_str().as_bytes().to_vec();
        with_slash.push(b'/');
        tar.append_data(&mut header, OsStr::from_bytes(&with_slash), io::empty())?;
        return append_children(tar, path, name);
    }
    if kind.is_symlink() {
        return append_link(tar, meta, name, &fs::read_link(path)?);
    }
    if kind.is_file() {
        // A container may put a link in the file's place meanwhile.
        return append_regular(tar, path, libc::O_NOFOLLOW, meta, name);
    }
    let device = if kind.is_char_device() {
        EntryType::Char
    } else if kind.is_block_device() {
        EntryType::Block
    } else if kind.is_fifo() {
        EntryType::Fifo
    } else {
        return Ok(()); // Sockets have no place in an archive.
    };
    let mut header = header_of(meta, device, 0);
    header.set_device_major(libc::major(meta.rdev()))?;
    header.set_device_minor(libc::minor(meta.rdev()))?;
    tar.append_data(&mut header, name, io::empty())
}

fn append_regular<W: Write>(
    tar: &mut Builder<W>,
    path: &Path,
    flags: i32,
    meta: &fs::Metadata,
    name: &Path,
) -> io::Result<()> {
    // A file that grows or shrinks meanwhile must not shift what follows it.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | flags)
        .open(path)?;
    let padded = io::Read::chain(file, io::repeat(0));
    let mut header = header_of(meta, EntryType::Regular, meta.size());
    tar.append_data(&mut header, name, io::Read::take(padded, meta.size()))
}

fn append_children<W: Write>(tar: &mut Builder<W>, folder: &Path, name: &Path) -> io::Result<()> {
    let mut children: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    children.sort();
    for child in children {
        let Some(last) = child.file_name() else {
            continue;
        };
        match fs::symlink_metadata(&child) {
            Ok(meta) => append(tar, &child, &meta, &name.join(last))?,
            // It went while the folder was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn append_link<W: Write>(
    tar: &mut Builder<W>,
    meta: &fs::Metadata,
    name: &Path,
    target: &Path,
) -> io::Result<()> {
    let mut header = header_of(meta, EntryType::Symlink, 0);
    tar.append_link(&mut header, name, target)
}

/// The whole file system of a container, for `export`; other mounts in it are left out.
pub fn write_all(root: &Path, to: impl Write) -> io::Result<()> {
    let mut whole = Whole {
        tar: Builder::new(in_pieces(to)),
        device: fs::metadata(root)?.dev(),
        names: HashMap::new(),
    };
    whole.append_children(root, Path::new(""))?;
    whole.tar.into_inner()?.flush()
}

struct Whole<W: Write> {
    tar: Builder<W>,
    device: u64,
    /// Files that have several names, by device and inode, under the first that came.
    names: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Whole<W> {
    fn append_children(&mut self, folder: &Path, name: &Path) -> io::Result<()> {
        let mut children: Vec<PathBuf> = fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        children.sort();
        for child in children {
            let (Some(last), Ok(meta)) = (child.file_name(), fs::symlink_metadata(&child)) else {
                continue;
            };
            let inside = name.join(last);
            if meta.is_dir() {
                let mut header = header_of(&meta, EntryType::Directory, 0);
                self.tar
                    .append_data(&mut header, inside.join(""), io::empty())?;
                if meta.dev() == self.device {
                    self.append_children(&child, &inside)?;
                }
            } else {
                self.append_file(&child, &meta, inside)?;
            }
        }
        Ok(())
    }

    fn append_file(&mut self, path: &Path, meta: &fs::Metadata, inside: PathBuf) -> io::Result<()> {
        let identity = (meta.dev(), meta.ino());
        if meta.is_file() && meta.nlink() > 1 {
            if let Some(first) = self.names.get(&identity) {
                let mut header = header_of(meta, EntryType::Link, 0);
                return self.tar.append_link(&mut header, inside, first);
            }
            self.names.insert(identity, inside.clone());
        }
        if meta.is_file()
            && let Some(value) = capabilities(path)
        {
            // GNU tar's and Go's name for an extended attribute.
            let name = "SCHILY.xattr.security.capability";
            self.tar.append_pax_extensions([(name, &value[..])])?;
        }
        match append(&mut self.tar, path, meta, &inside) {
            // It went while the folder was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

/// File capabilities (`setcap`): without them `ping` and the like would not work after an import.
fn capabilities(path: &Path) -> Option<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // linux/capability.h: at most 24 bytes.
    let mut value = vec![0u8; 64];
    // SAFETY: both strings end in NUL and live until after the call; the buffer has the length that is told.
    let length = unsafe {
        libc::lgetxattr(
            path.as_ptr(),
            c"security.capability".as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    value.truncate(usize::try_from(length).ok()?);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::super::place;
    use super::*;

    #[test]
    fn folders_are_packed_under_the_name_asked_for() {
        let root = std::env::temp_dir().join(format!("pack-{}", crate::identity::new_id()));
        fs::create_dir_all(root.join("data/sub")).unwrap();
        fs::write(root.join("data/sub/x"), "xy").unwrap();
        std::os::unix::fs::symlink("sub/x", root.join("data/link")).unwrap();
        let mut archive = Vec::new();
        write(
            &place::open(&root, b"/data").unwrap(),
            OsStr::new("data"),
            &mut archive,
        )
        .unwrap();
        let mut names = Vec::new();
        for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
            let entry = entry.unwrap();
            names.push((
                entry.path().unwrap().to_string_lossy().into_owned(),
                entry.size(),
            ));
        }
        let expected = [
            ("data/", 0),
            ("data/link", 0),
            ("data/sub/", 0),
            ("data/sub/x", 2),
        ];
        assert_eq!(names, expected.map(|(name, size)| (name.to_owned(), size)));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn an_export_has_each_file_once() {
        let root = std::env::temp_dir().join(format!("export-{}", crate::identity::new_id()));
        fs::create_dir_all(root.join("a")).unwrap();
        fs::write(root.join("a/x"), "xy").unwrap();
        fs::hard_link(root.join("a/x"), root.join("b")).unwrap();
        let mut archive = Vec::new();
        write_all(&root, &mut archive).unwrap();
        let mut seen = Vec::new();
        for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
            let entry = entry.unwrap();
            let link = entry.link_name().unwrap().map(|link| link.into_owned());
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            seen.push((name, entry.size(), link));
        }
        let expected = [
            ("a/".to_owned(), 0, None),
            ("a/x".to_owned(), 2, None),
            ("b".to_owned(), 0, Some(PathBuf::from("a/x"))),
        ];
        assert_eq!(seen, expected);
        fs::remove_dir_all(root).unwrap();
    }
}
