//! The compressed read-only root, written by `mkfs.erofs`.

use crate::apt::{AptError, run};
use crate::deb::{Node, Tree};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, thiserror::Error)]
pub enum ErofsError {
    #[error("lay out the root in {path}: {source}")]
    LayOut {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{0} (is erofs-utils installed?)")]
    Mkfs(#[source] AptError),
}

/// Any, but always the same: the image depends on its content alone.
const UUID: &str = "6c6f6e67-7368-4f72-8520-726f6f746673";

/// Writes `tree` as an erofs image to `image`; `scratch` is a folder for the laid-out tree.
pub fn write(tree: &Tree, image: &Path, scratch: &Path) -> Result<(), ErofsError> {
    let folder = tempfile::tempdir_in(scratch).map_err(|source| ErofsError::LayOut {
        path: scratch.into(),
        source,
    })?;
    for (path, node) in tree {
        let full = folder.path().join(path);
        lay_out(node, &full).map_err(|source| ErofsError::LayOut { path: full, source })?;
    }
    let _ = std::fs::remove_file(image);
    let mut command = Command::new("mkfs.erofs");
    // lz4hc in clusters of 64 KiB: near zstd in size, and cheap to read under emulation.
    command
        .args([
            "--quiet",
            "-zlz4hc,12",
            "-C65536",
            "-T0",
            "-x-1",
            "--all-root",
        ])
        .arg(format!("-U{UUID}"));
    command.arg(image).arg(folder.path());
    run(&mut command).map_err(ErofsError::Mkfs)?;
    Ok(())
}

fn lay_out(node: &Node, path: &Path) -> std::io::Result<()> {
    let set_mode =
        |mode: u32| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    match node {
        Node::Folder { mode } => {
            std::fs::create_dir_all(path)?;
            set_mode(mode | 0o700)
        }
        Node::File { mode, data } => {
            std::fs::write(path, data)?;
            set_mode(*mode)
        }
        Node::Symlink { target } => symlink(target, path),
    }
}
