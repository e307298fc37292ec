//! The lock file: which Debian packages the image is made of, by version and sha256.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    pub suite: String,
    pub packages: Vec<Package>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// Of the `.deb` file.
    pub sha256: String,
    /// The source package that it is built from, with its version.
    pub source: String,
    pub source_version: String,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("read the lock file {path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("parse the lock file {path}: {source}")]
    Parse {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("write the lock file {path}: {source}")]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl Lock {
    /// An absent lock file is an empty lock.
    pub fn load(path: &Path) -> Result<Self, LockError> {
        match std::fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|source| LockError::Parse {
                path: path.into(),
                source,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(LockError::Read {
                path: path.into(),
                source,
            }),
        }
    }

    pub fn save(&self, path: &Path) -> Result<(), LockError> {
        let mut text = serde_json::to_string_pretty(self).expect("strings make JSON");
        text.push('\n');
        std::fs::write(path, text).map_err(|source| LockError::Write {
            path: path.into(),
            source,
        })
    }

    pub fn find(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }
}
