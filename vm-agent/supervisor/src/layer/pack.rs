//! Packing a snapshot's own changes as a layer: the reverse of unpacking.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::{OPAQUE_MARKER, OPAQUE_XATTR, WHITEOUT_PREFIX, xattr};
use crate::error::{IoStep, Result};

/// Writes the upper folder of an overlay, or a whole root, as a layer's archive.
pub fn pack(folder: &Path, output: impl Write) -> Result<()> {
    let mut packer = Packer {
        builder: Builder::new(output),
        links: HashMap::new(),
    };
    packer.children(folder, Path::new(""))?;
    packer.builder.finish().step(|| "ending a layer".into())
}

struct Packer<W: Write> {
    builder: Builder<W>,
    /// Where a file with several names was first.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    fn children(&mut self, folder: &Path, inside: &Path) -> Result<()> {
        let step = || format!("packing {}", folder.display());
        let entries = std::fs::read_dir(folder).step(step)?;
        let mut names: Vec<OsString> = entries
            .map(|entry| entry.map(|e| e.file_name()))
            .collect::<io::Result<_>>()
            .step(step)?;
        // The same content gives the same layer.
        names.sort();
        for name in names {
            let (path, inside) = (folder.join(&name), inside.join(&name));
            let is_folder = self
                .one(&path, &inside)
                .step(|| format!("packing {}", path.display()))?;
            if is_folder {
                self.children(&path, &inside)?;
            }
        }
        Ok(())
    }

    /// Writes one entry; says whether it is a folder to go into.
    fn one(&mut self, path: &Path, inside: &Path) -> io::Result<bool> {
        let metadata = std::fs::symlink_metadata(path)?;
        let kind = metadata.file_type();
        if kind.is_char_device() && metadata.rdev() == 0 {
            self.whiteout(inside)?;
            return Ok(false);
        }
        if kind.is_socket() {
            return Ok(false);
        }
        let mut header = Header::new_gnu();
        header.set_mode(metadata.mode() & 0o7777);
        header.set_uid(metadata.uid().into());
        header.set_gid(metadata.gid().into());
        header.set_mtime(metadata.mtime().max(0) as u64);
        header.set_size(0);
        let identity = (metadata.dev(), metadata.ino());
        if !kind.is_dir() && metadata.nlink() > 1 {
            if let Some(first) = self.links.get(&identity).cloned() {
                header.set_entry_type(EntryType::Link);
                self.builder.append_link(&mut header, inside, first)?;
                return Ok(false);
            }
            self.links.insert(identity, inside.to_owned());
        }
        let handle = open_handle(path)?;
        let opaque = self.extended(&handle)?;
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            let mut name = inside.as_os_str().to_owned();
            name.push("/");
            self.builder.append_data(&mut header, name, io::empty())?;
            if opaque {
                let mut header = Header::new_gnu();
                header.set_size(0);
                let marker = inside.join(OsStr::from_bytes(OPAQUE_MARKER));
                self.builder.append_data(&mut header, marker, io::empty())?;
            }
        } else if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            self.builder
                .append_link(&mut header, inside, std::fs::read_link(path)?)?;
        } else if kind.is_file() {
            header.set_entry_type(EntryType::Regular);
            header.set_size(metadata.len());
            // A file that grows or shrinks meanwhile must not spoil the archive.
            let file = File::open(path)?.take(metadata.len());
            self.builder.append_data(
                &mut header,
                inside,
                file.chain(io::repeat(0)).take(metadata.len()),
            )?;
        } else {
            let entry = match () {
                () if kind.is_char_device() => EntryType::Char,
                () if kind.is_block_device() => EntryType::Block,
                () => EntryType::Fifo,
            };
            header.set_entry_type(entry);
            header.set_device_major(nix::sys::stat::major(metadata.rdev()) as u32)?;
            header.set_device_minor(nix::sys::stat::minor(metadata.rdev()) as u32)?;
            self.builder.append_data(&mut header, inside, io::empty())?;
        }
        Ok(kind.is_dir())
    }

    fn whiteout(&mut self, inside: &Path) -> io::Result<()> {
        let mut name = WHITEOUT_PREFIX.to_vec();
        name.extend(inside.file_name().unwrap_or_default().as_bytes());
        let mut header = Header::new_gnu();
        header.set_size(0);
        let path = inside.with_file_name(OsString::from_vec(name));
        self.builder.append_data(&mut header, path, io::empty())
    }

    /// Writes the extended attributes that follow the file; says whether the folder is opaque.
    fn extended(&mut self, handle: &OwnedFd) -> io::Result<bool> {
        let mut opaque = false;
        let mut records = Vec::new();
        for name in xattr::list(handle)? {
            if name == OPAQUE_XATTR {
                opaque = xattr::get(handle, &name)?.as_deref() == Some(b"y");
            }
            if name == "security.capability"
                || name.starts_with("user.") && !name.starts_with("user.overlay.")
            {
                let value = xattr::get(handle, &name)?.unwrap_or_default();
                records.push((format!("SCHILY.xattr.{name}"), value));
            }
        }
        if !records.is_empty() {
            let pairs = records
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_slice()));
            self.builder.append_pax_extensions(pairs)?;
        }
        Ok(opaque)
    }
}

fn open_handle(path: &Path) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    Ok(std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?
        .into())
}
