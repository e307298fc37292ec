//! The guest image: its four files, checked against the manifest before they are booted.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A manifest is a list of packages and three files; more is no manifest.
const MAX_MANIFEST: u64 = 4 << 20;
/// Those that the manifest has checksums of.
const NAMES: [&str; 3] = ["kernel", "initramfs", "root.erofs"];

/// Files of a guest image that QEMU is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestImage {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    pub root: PathBuf,
    pub kernel_release: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("no guest image in {dir}: {path} cannot be read: {source}", dir = dir.display(), path = path.display())]
    Missing {
        dir: PathBuf,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the guest image's manifest {path} is not valid: {reason}", path = path.display())]
    Manifest { path: PathBuf, reason: String },
    #[error("the guest image is for {image}, this machine is {host}")]
    Architecture { image: String, host: &'static str },
    #[error("the guest image is damaged: {path} has {found} bytes, the manifest says {expected}", path = path.display())]
    Size {
        path: PathBuf,
        found: u64,
        expected: u64,
    },
    #[error("the guest image is damaged: {path} has SHA-256 {found}, the manifest says {expected}", path = path.display())]
    Checksum {
        path: PathBuf,
        found: String,
        expected: String,
    },
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    kernel_release: String,
    files: Vec<ManifestFile>,
}

#[derive(Deserialize)]
struct ManifestFile {
    name: String,
    size: u64,
    sha256: String,
}

/// What was checked the last time, so that a warm start reads no image through.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Checked {
    files: Vec<CheckedFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CheckedFile {
    path: PathBuf,
    size: u64,
    modified_ns: u64,
    sha256: String,
}

/// Checks the image in `dir`; `cache` remembers checksums by path, size and time of change.
pub fn check(dir: &Path, cache: &Path) -> Result<GuestImage, ImageError> {
    let manifest = read_manifest(dir)?;
    let host = std::env::consts::ARCH;
    if !manifest.architecture.is_empty() && debian_or_rust(&manifest.architecture) != host {
        return Err(ImageError::Architecture {
            image: manifest.architecture,
            host,
        });
    }
    let before: Checked = fs::read(cache)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    let mut after = Checked::default();
    let mut paths = Vec::new();
    for name in NAMES {
        let path = dir.join(name);
        let expected = expected(&manifest, dir, name)?;
        after.files.push(check_file(dir, &path, expected, &before)?);
        paths.push(path);
    }
    if after != before {
        // Only a cache: the next start reads the files through again.
        let _ = fs::write(cache, serde_json::to_vec(&after).unwrap_or_default());
    }
    let [kernel, initramfs, root] = paths.try_into().expect("three names make three paths");
    Ok(GuestImage {
        kernel,
        initramfs,
        root,
        kernel_release: manifest.kernel_release,
    })
}

/// What tells an image from others: SHA-256, in hex, over the checksums of its files as the manifest gives them.
pub fn digest(dir: &Path) -> Result<String, ImageError> {
    let manifest = read_manifest(dir)?;
    let mut hash = Sha256::new();
    for name in NAMES {
        hash.update(expected(&manifest, dir, name)?.sha256.to_ascii_lowercase());
    }
    Ok(hex(&hash.finalize()))
}

/// Reads all files through and compares them with the manifest.
pub fn verify(dir: &Path) -> Result<(), ImageError> {
    let manifest = read_manifest(dir)?;
    for name in NAMES {
        let expected = expected(&manifest, dir, name)?;
        check_file(dir, &dir.join(name), expected, &Checked::default())?;
    }
    Ok(())
}

fn expected<'a>(
    manifest: &'a Manifest,
    dir: &Path,
    name: &str,
) -> Result<&'a ManifestFile, ImageError> {
    let found = manifest.files.iter().find(|file| file.name == name);
    found.ok_or_else(|| ImageError::Manifest {
        path: dir.join("manifest.json"),
        reason: format!("it does not list {name}"),
    })
}

fn debian_or_rust(architecture: &str) -> &str {
    match architecture {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
}

fn read_manifest(dir: &Path) -> Result<Manifest, ImageError> {
    let path = dir.join("manifest.json");
    let missing = |source| ImageError::Missing {
        dir: dir.into(),
        path: path.clone(),
        source,
    };
    let mut text = Vec::new();
    let file = fs::File::open(&path).map_err(missing)?;
    file.take(MAX_MANIFEST)
        .read_to_end(&mut text)
        .map_err(missing)?;
    serde_json::from_slice(&text).map_err(|error| ImageError::Manifest {
        path,
        reason: error.to_string(),
    })
}

fn check_file(
    dir: &Path,
    path: &Path,
    expected: &ManifestFile,
    before: &Checked,
) -> Result<CheckedFile, ImageError> {
    let missing = |source| ImageError::Missing {
        dir: dir.into(),
        path: path.into(),
        source,
    };
    let metadata = fs::metadata(path).map_err(missing)?;
    let modified = metadata.modified().map_err(missing)?;
    let size = metadata.len();
    if size != expected.size {
        return Err(ImageError::Size {
            path: path.into(),
            found: size,
            expected: expected.size,
        });
    }
    let modified_ns = modified
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_nanos() as u64);
    let now = CheckedFile {
        path: path.into(),
        size,
        modified_ns,
        sha256: expected.sha256.to_ascii_lowercase(),
    };
    if before.files.contains(&now) {
        return Ok(now);
    }
    let found = sha256(path).map_err(missing)?;
    if found != now.sha256 {
        let expected = now.sha256;
        return Err(ImageError::Checksum {
            path: path.into(),
            found,
            expected,
        });
    }
    Ok(now)
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => hash.update(&buffer[..length]),
        }
    }
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(dir: &Path) {
        let mut files = Vec::new();
        for name in NAMES {
            fs::write(dir.join(name), name).unwrap();
            let sha256 = sha256(&dir.join(name)).unwrap();
            files.push(serde_json::json!({"name": name, "size": name.len(), "sha256": sha256}));
        }
        let manifest = serde_json::json!({"architecture": std::env::consts::ARCH, "files": files});
        fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
    }

    #[test]
    fn a_damaged_image_is_told_from_a_whole_one() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache.json");
        image(dir.path());
        check(dir.path(), &cache).unwrap();
        check(dir.path(), &cache).unwrap();
        fs::write(dir.path().join("kernel"), "kernem").unwrap();
        assert!(matches!(
            check(dir.path(), &cache),
            Err(ImageError::Checksum { .. })
        ));
        fs::write(dir.path().join("kernel"), "kern").unwrap();
        assert!(matches!(
            check(dir.path(), &cache),
            Err(ImageError::Size { .. })
        ));
        fs::remove_file(dir.path().join("kernel")).unwrap();
        assert!(matches!(
            check(dir.path(), &cache),
            Err(ImageError::Missing { .. })
        ));
        fs::write(dir.path().join("manifest.json"), "{").unwrap();
        assert!(matches!(
            check(dir.path(), &cache),
            Err(ImageError::Manifest { .. })
        ));
    }
}
