//! `settings.json` on disk: read with checks, written whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use longshore_host_api::settings::{SettingsError, Stored};

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
    #[error("{0}: {1}")]
    Content(PathBuf, SettingsError),
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, io::Error),
}

pub fn load(path: &Path) -> Result<Stored, FileError> {
    match fs::read_to_string(path) {
        Ok(text) => Stored::parse(&text).map_err(|e| FileError::Content(path.to_owned(), e)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Stored::default()),
        Err(e) => Err(FileError::Read(path.to_owned(), e)),
    }
}

/// After a power cut the file holds the old settings or the new ones, never a part.
pub fn save(path: &Path, stored: &Stored) -> Result<(), FileError> {
    replace(path, stored.to_json().as_bytes()).map_err(|e| FileError::Write(path.to_owned(), e))
}

/// Writes a file whole: temporary file, fsync, rename, fsync of the folder.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = path.with_extension("new");
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temp, path)?;
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings.json");
        let mut stored = load(&path).unwrap();
        stored.assign("cpus=3").unwrap();
        save(&path, &stored).unwrap();
        assert_eq!(load(&path).unwrap(), stored);
        fs::write(&path, r#"{"cpuz": 3}"#).unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(
            error.contains("settings.json") && error.contains("did you mean \"cpus\""),
            "{error}"
        );
    }
}
