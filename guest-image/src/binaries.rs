//! The guest's own programs: built when asked, taken from a folder, without their debugging information.

use crate::deb::Node;
use crate::elf;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const BINARIES: &[&str] = &[
    "longshore-init",
    "longshore-agent",
    "longshore-daemon",
    "longshore-supervisor",
    "longshore-runtime",
    "longshore-log",
    "containerd-shim-longshore-v2",
];

const PACKAGES: &[&str] = &[
    "longshore-init",
    "longshore-agent",
    "longshore-daemon",
    "longshore-supervisor",
    "longshore-runtime",
    "longshore-container-log",
    "containerd-shim-longshore-v2",
];

#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    #[error("run cargo: {0}")]
    Cargo(#[source] std::io::Error),
    #[error("cargo could not build the guest's programs")]
    Build,
    #[error("read {path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{0} is not a static program: build it with -C target-feature=+crt-static")]
    Dynamic(PathBuf),
}

/// Where cargo puts them.
pub fn folder(target: &Path, triple: &str, profile: &str) -> PathBuf {
    // Cargo's one exception: the profile `dev` lives in `debug`.
    target
        .join(triple)
        .join(if profile == "dev" { "debug" } else { profile })
}

pub fn build(workspace: &Path, triple: &str, profile: &str) -> Result<(), BinaryError> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(workspace)
        .args(["build", "--profile", profile, "--target", triple]);
    for package in PACKAGES {
        command.args(["-p", package]);
    }
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    let status = command.status().map_err(BinaryError::Cargo)?;
    if status.success() {
        Ok(())
    } else {
        Err(BinaryError::Build)
    }
}

/// A binary as the guest gets it; `None` when it is not there.
pub fn load(folder: &Path, name: &str) -> Result<Option<Node>, BinaryError> {
    let path = folder.join(name);
    let data = match std::fs::read(&path) {
        Ok(data) => data,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(BinaryError::Read { path, source }),
    };
    if !elf::needed(&data).is_empty() {
        return Err(BinaryError::Dynamic(path));
    }
    let data = if elf::section(&data, ".symtab").is_some() {
        strip(&path).unwrap_or(data)
    } else {
        data
    };
    Ok(Some(Node::File { mode: 0o755, data }))
}

/// Without symbols; `None` (larger, no worse) where there is no `strip` for it.
fn strip(path: &Path) -> Option<Vec<u8>> {
    let out = tempfile::NamedTempFile::new().ok()?;
    let status = Command::new("strip")
        .arg("-o")
        .arg(out.path())
        .arg(path)
        .status()
        .ok()?;
    status.success().then(|| std::fs::read(out.path()).ok())?
}
