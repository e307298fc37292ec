//! Debian packages: verified, and their files as a list that needs no root to unpack.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum DebError {
    #[error("read {path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{0} is not a Debian package (no ar archive with a data.tar)")]
    NotADeb(PathBuf),
    #[error("{path}: data.tar is packed with an unknown method ({member})")]
    UnknownPacking { path: PathBuf, member: String },
    #[error("{path}: read data.tar: {source}")]
    Tar {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// What a path in the guest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Folder { mode: u32 },
    File { mode: u32, data: Vec<u8> },
    Symlink { target: String },
}

/// Paths without a leading slash, in order.
pub type Tree = BTreeMap<String, Node>;

pub fn sha256_file(path: &Path) -> std::io::Result<String> {
    Ok(hex::encode(Sha256::digest(std::fs::read(path)?)))
}

/// The files of a package that `wanted` picks, by their path without a leading slash.
pub fn unpack(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Tree, DebError> {
    let bytes = std::fs::read(path).map_err(|source| DebError::Read {
        path: path.into(),
        source,
    })?;
    let (member, data) = data_member(&bytes).ok_or_else(|| DebError::NotADeb(path.into()))?;
    let reader: Box<dyn Read> = match member.as_str() {
        "data.tar" => Box::new(data),
        "data.tar.xz" => Box::new(liblzma::read::XzDecoder::new(data)),
        "data.tar.zst" => Box::new(zstd::Decoder::new(data).map_err(|source| DebError::Tar {
            path: path.into(),
            source,
        })?),
        _ => {
            return Err(DebError::UnknownPacking {
                path: path.into(),
                member,
            });
        }
    };
    read_tar(reader, wanted).map_err(|source| DebError::Tar {
        path: path.into(),
        source,
    })
}

/// The member `data.tar*` of an ar archive (deb(5), ar(5)).
fn data_member(bytes: &[u8]) -> Option<(String, &[u8])> {
    let mut rest = bytes.strip_prefix(b"!<arch>\n")?;
    while rest.len() >= 60 {
        let (header, body) = rest.split_at(60);
        let name = std::str::from_utf8(&header[..16])
            .ok()?
            .trim_end()
            .trim_end_matches('/');
        let size: usize = std::str::from_utf8(&header[48..58])
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let data = body.get(..size)?;
        if name.starts_with("data.tar") {
            return Some((name.into(), data));
        }
        // Members begin at even offsets.
        rest = body.get(size + size % 2..)?;
    }
    None
}

pub fn read_tar(reader: impl Read, wanted: impl Fn(&str) -> bool) -> std::io::Result<Tree> {
    let mut tree = Tree::new();
    for entry in tar::Archive::new(reader).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let path = path.trim_start_matches("./").trim_matches('/').to_owned();
        if path.is_empty() || !wanted(&path) {
            continue;
        }
        let mode = entry.header().mode()? & 0o7777;
        let target = entry
            .link_name()?
            .map(|target| target.to_string_lossy().into_owned());
        let node = match (entry.header().entry_type(), target) {
            (tar::EntryType::Directory, _) => Node::Folder { mode },
            (tar::EntryType::Symlink, Some(target)) => Node::Symlink { target },
            (tar::EntryType::Link, Some(target)) => {
                let first = target.trim_start_matches("./").to_owned();
                tree.get(&first).cloned().unwrap_or(Node::Symlink {
                    target: format!("/{first}"),
                })
            }
            _ => {
                let mut data = Vec::new();
                entry.read_to_end(&mut data)?;
                Node::File { mode, data }
            }
        };
        tree.insert(path, node);
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ar_members_are_found_at_even_offsets() {
        let member = |name: &str, data: &str| {
            let mut text = format!(
                "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n{data}",
                0,
                0,
                0,
                100644,
                data.len()
            );
            if data.len() % 2 == 1 {
                text.push('\n');
            }
            text
        };
        let archive = format!(
            "!<arch>\n{}{}",
            member("debian-binary", "2.0"),
            member("data.tar.xz/", "xyz")
        );
        assert_eq!(
            data_member(archive.as_bytes()),
            Some(("data.tar.xz".into(), &b"xyz"[..]))
        );
        assert_eq!(data_member(b"!<arch>\n"), None);
        assert_eq!(data_member(b"no archive"), None);
    }
}
