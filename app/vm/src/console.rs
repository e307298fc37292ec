//! The guest's serial console and QEMU's stderr: a log that is kept small, the last lines, and the first sign of life.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::watch,
};

/// The log begins anew when it is this long; one older file is kept.
const MAX_FILE: u64 = 1 << 20;
const LAST_LINES: usize = 40;
const MAX_LINE: usize = 400;

/// A file that moves to `NAME.1` when it is full.
struct RotatingFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl RotatingFile {
    fn open(path: &Path) -> io::Result<Self> {
        let mut options = fs::OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path)?;
        let length = file.metadata()?.len();
        Ok(Self {
            path: path.into(),
            file,
            length,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.length + bytes.len() as u64 > MAX_FILE {
            let mut older = self.path.clone().into_os_string();
            older.push(".1");
            fs::rename(&self.path, older)?;
            *self = Self::open(&self.path)?;
        }
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }
}

/// The last lines that were seen, for a failure's report.
#[derive(Clone, Default)]
pub struct LastLines(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    done: VecDeque<String>,
    open: Vec<u8>,
}

impl LastLines {
    fn push(&self, bytes: &[u8]) {
        let mut lines = self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        for byte in bytes {
            match byte {
                b'\n' => lines.finish(),
                // Control characters of a hostile guest do not reach the user's terminal.
                0..=31 | 127 if *byte != b'\t' => {}
                _ if lines.open.len() < MAX_LINE => lines.open.push(*byte),
                _ => {}
            }
        }
    }

    /// The last lines, oldest first.
    pub fn get(&self) -> Vec<String> {
        let lines = self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let open = (!lines.open.is_empty()).then(|| String::from_utf8_lossy(&lines.open).into());
        lines.done.iter().cloned().chain(open).collect()
    }

    pub fn clear(&self) {
        *self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = Lines::default();
    }
}

impl Lines {
    fn finish(&mut self) {
        let line = std::mem::take(&mut self.open);
        if line.is_empty() {
            return;
        }
        if self.done.len() == LAST_LINES {
            self.done.pop_front();
        }
        self.done.push_back(String::from_utf8_lossy(&line).into());
    }
}

/// Where console and stderr of one VM go, over all its attempts to boot.
#[derive(Clone)]
pub struct Console {
    file: Arc<Mutex<RotatingFile>>,
    pub lines: LastLines,
    pub errors: LastLines,
}

impl Console {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: Arc::new(Mutex::new(RotatingFile::open(path)?)),
            lines: LastLines::default(),
            errors: LastLines::default(),
        })
    }

    /// Takes in the guest's console until it ends; `life` turns true with the first byte.
    pub async fn follow(&self, from: impl AsyncRead + Unpin, life: watch::Sender<bool>) {
        self.copy(from, &self.lines, || {
            if !*life.borrow() {
                life.send_replace(true);
            }
        })
        .await;
    }

    /// Takes in QEMU's stderr until it ends.
    pub async fn follow_errors(&self, from: impl AsyncRead + Unpin) {
        self.copy(from, &self.errors, || {}).await;
    }

    async fn copy(&self, mut from: impl AsyncRead + Unpin, lines: &LastLines, seen: impl Fn()) {
        let mut buffer = vec![0; 4096];
        let mut writes = true;
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            seen();
            lines.push(&buffer[..length]);
            let mut file = self
                .file
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            if let Err(error) = file.write(&buffer[..length])
                && std::mem::replace(&mut writes, false)
            {
                // The VM goes on without its log, on a full disk for one.
                tracing::warn!(%error, "the console's log cannot be written");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_clean() {
        let lines = LastLines::default();
        lines.push(b"\x1b[31mred\r\n\n");
        lines.push(&[b'x'; 1000]);
        assert_eq!(lines.get(), ["[31mred".to_owned(), "x".repeat(MAX_LINE)]);
        for number in 0..100 {
            lines.push(format!("{number}\n").as_bytes());
        }
        assert_eq!(lines.get().len(), LAST_LINES);
        assert_eq!(lines.get().last().unwrap(), "99");
    }

    #[test]
    fn the_file_rotates() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut file = RotatingFile::open(&path).unwrap();
        for _ in 0..5 {
            file.write(&vec![b'x'; 400 << 10]).unwrap();
        }
        assert!(fs::metadata(&path).unwrap().len() <= MAX_FILE);
        assert!(
            fs::metadata(dir.path().join("console.log.1"))
                .unwrap()
                .len()
                <= MAX_FILE
        );
    }
}
