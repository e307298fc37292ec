//! A bounded file of lines: when it is full it becomes `NAME.1.jsonl` and a new one begins.
//!
//! Several processes may share one (all shims do): each line is one append, and whoever sees the file full turns it over.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Size at which a ring's file is turned over; two files exist at most.
const MAX_FILE: u64 = 256 * 1024;

pub struct Ring {
    path: PathBuf,
    previous: PathBuf,
    limit: u64,
    file: Mutex<Option<File>>,
}

impl Ring {
    pub fn new(folder: &Path, service: &str) -> Self {
        Self {
            path: folder.join(format!("{service}.jsonl")),
            previous: folder.join(format!("{service}.1.jsonl")),
            limit: MAX_FILE,
            file: Mutex::new(None),
        }
    }

    /// Appends a line (with its newline); without the folder, and on a full disk, it is lost.
    pub fn append(&self, line: &[u8]) {
        let mut file = self
            .file
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if self.try_append(&mut file, line).is_err() {
            *file = None;
        }
    }

    fn try_append(&self, file: &mut Option<File>, line: &[u8]) -> io::Result<()> {
        if let Some(open) = file
            && open.metadata()?.len() >= self.limit
        {
            // Another process may have turned it over already; then only ours is stale.
            if is_same_file(open, &self.path) {
                std::fs::rename(&self.path, &self.previous)?;
            }
            *file = None;
        }
        let open = match file {
            Some(open) => open,
            None => file.insert(
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(&self.path)?,
            ),
        };
        open.write_all(line)
    }
}

/// Whether `path` still names the open file.
#[cfg(unix)]
pub fn is_same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => open.dev() == named.dev() && open.ino() == named.ino(),
        _ => false,
    }
}

#[cfg(not(unix))]
pub fn is_same_file(_file: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_writers_of_one_ring_stay_within_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let writers: [Ring; 2] = std::array::from_fn(|_| Ring {
            limit: 20,
            ..Ring::new(folder.path(), "t")
        });
        for n in 0..10 {
            writers[n % 2].append(format!("{{\"n\":{n}}}\n").as_bytes());
        }
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        let lines = read("t.1.jsonl") + &read("t.jsonl");
        assert!(lines.ends_with("{\"n\":8}\n{\"n\":9}\n"), "{lines}");
        assert!(lines.len() <= 2 * (20 + 8), "{lines}");
    }

    #[test]
    fn without_the_folder_nothing_happens() {
        Ring::new(Path::new("/nonexistent-folder"), "t").append(b"{}\n");
    }
}
