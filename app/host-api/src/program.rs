//! Which program file the service was started from: an update replaces it, and the service that runs stays the old one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::home::Home;
use crate::spawn;

/// A program file as it was at some moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Program {
    path: PathBuf,
    size: u64,
    modified: SystemTime,
}

impl Program {
    fn at(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let metadata = fs::metadata(&path)?;
        Ok(Self {
            path,
            size: metadata.len(),
            modified: metadata.modified()?,
        })
    }

    /// Whether the service that left this record, or none, was started from an older file at the same place.
    fn replaces(&self, record: io::Result<Vec<u8>>) -> bool {
        match record {
            Ok(record) => serde_json::from_slice::<Program>(&record)
                .is_ok_and(|started| started.path == self.path && started != *self),
            // The first programs kept no record.
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// Writes down which program serves from now on; the service does so before it takes requests.
pub fn remember(home: &Home) -> io::Result<()> {
    let program = Program::at(&std::env::current_exe()?)?;
    fs::write(home.program_file(), serde_json::to_vec(&program)?)
}

/// Whether the service's program was replaced since it was started: by the one that stands beside this program.
pub fn is_replaced(home: &Home) -> bool {
    let own = spawn::sibling("longshore-host").ok();
    let own = own.and_then(|path| Program::at(&path).ok());
    own.is_some_and(|own| own.replaces(fs::read(home.program_file())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_file_at_the_same_place_is_an_update() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("longshore-host");
        fs::write(&path, "old").unwrap();
        let old = Program::at(&path).unwrap();
        let record = || Ok(serde_json::to_vec(&old).unwrap());
        assert!(!old.replaces(record()), "the same");
        fs::write(&path, "newer").unwrap();
        let new = Program::at(&path).unwrap();
        assert!(new.replaces(record()), "another");
        let elsewhere = Program {
            path: "/elsewhere/longshore-host".into(),
            ..new.clone()
        };
        assert!(!elsewhere.replaces(record()), "another installation's");
        assert!(new.replaces(fs::read(folder.path().join("none"))), "none");
        assert!(!new.replaces(Ok(b"{".to_vec())), "half a record");
    }
}
