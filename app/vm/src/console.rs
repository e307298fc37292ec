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

/// What Linux says when a CPU has not passed through a quiet state for 21 s, in all wordings (`kernel/rcu/tree_stall.h`).
fn tells_of_a_stall(line: &str) -> bool {
    line.contains("rcu: INFO: rcu_") && line.contains("detected") && line.contains("stall")
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
    /// Takes in bytes; a line that they complete is also told to `seen`.
    fn push(&self, bytes: &[u8], seen: impl Fn(&str)) {
        let mut lines = self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        for byte in bytes {
            match byte {
                b'\n' => {
                    if let Some(line) = lines.finish() {
                        seen(line);
                    }
                }
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
    fn finish(&mut self) -> Option<&str> {
        let line = std::mem::take(&mut self.open);
        if line.is_empty() {
            return None;
        }
        if self.done.len() == LAST_LINES {
            self.done.pop_front();
        }
        self.done.push_back(String::from_utf8_lossy(&line).into());
        self.done.back().map(String::as_str)
    }
}

/// Where console and stderr of one VM go, over all its attempts to boot.
#[derive(Clone)]
pub struct Console {
    file: Arc<Mutex<RotatingFile>>,
    pub lines: LastLines,
    pub errors: LastLines,
}

/// What the console has shown of a guest that boots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signs {
    /// A first byte: a kernel runs.
    pub life: bool,
    /// The kernel has said that one of its CPUs stalls.
    pub stall: bool,
}

impl Console {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: Arc::new(Mutex::new(RotatingFile::open(path)?)),
            lines: LastLines::default(),
            errors: LastLines::default(),
        })
    }

    /// Takes in the guest's console until it ends, and tells of its signs.
    pub async fn follow(&self, from: impl AsyncRead + Unpin, signs: watch::Sender<Signs>) {
        let shown = |line: Option<&str>| {
            signs.send_if_modified(|signs| {
                let before = *signs;
                signs.life = true;
                signs.stall |= line.is_some_and(tells_of_a_stall);
                *signs != before
            });
        };
        self.copy(from, &self.lines, shown).await;
    }

    /// Takes in QEMU's stderr until it ends.
    pub async fn follow_errors(&self, from: impl AsyncRead + Unpin) {
        self.copy(from, &self.errors, |_| {}).await;
    }

    /// `seen` hears of each piece, and of each line that is whole.
    async fn copy(
        &self,
        mut from: impl AsyncRead + Unpin,
        lines: &LastLines,
        seen: impl Fn(Option<&str>),
    ) {
        let mut buffer = vec![0; 4096];
        let mut writes = true;
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            seen(None);
            lines.push(&buffer[..length], |line| seen(Some(line)));
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
        let push = |bytes: &[u8]| lines.push(bytes, |_| {});
        push(b"\x1b[31mred\r\n\n");
        push(&[b'x'; 1000]);
        assert_eq!(lines.get(), ["[31mred".to_owned(), "x".repeat(MAX_LINE)]);
        for number in 0..100 {
            push(format!("{number}\n").as_bytes());
        }
        assert_eq!(lines.get().len(), LAST_LINES);
        assert_eq!(lines.get().last().unwrap(), "99");
    }

    #[tokio::test]
    async fn the_signs_of_a_boot_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let console = Console::open(&dir.path().join("console.log")).unwrap();
        let signs_of = async |text: &str| {
            let (sender, signs) = watch::channel(Signs::default());
            console.follow(text.as_bytes(), sender).await;
            let seen = *signs.borrow();
            (seen.life, seen.stall)
        };
        assert_eq!(signs_of("").await, (false, false));
        let harmless = "[    0.0] rcu: Preemptible hierarchical RCU implementation.\n";
        assert_eq!(signs_of(harmless).await, (true, false));
        for words in [
            "rcu_preempt detected stalls on CPUs/tasks:",
            "rcu_preempt self-detected stall on CPU",
            "rcu_preempt detected expedited stalls on CPUs/tasks: { 3-.... }",
        ] {
            let line = format!("[   24.1] rcu: INFO: {words}\r\n");
            assert_eq!(signs_of(&line).await, (true, true), "{line}");
        }
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
