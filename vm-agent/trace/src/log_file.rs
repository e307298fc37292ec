//! Stderr as the log, turned over when it is the service's own log file and has grown too long.

use crate::ring::is_same_file;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use tracing_subscriber::fmt::MakeWriter;

/// Size at which the log is turned over; `NAME.log` and `NAME.log.1` exist at most.
const MAX_FILE: u64 = 512 * 1024;
/// How often, in bytes written, the file's size is looked at: others (a panic, a child) write there too.
const CHECK_EVERY: u64 = 16 * 1024;

pub struct LogFile {
    path: PathBuf,
    previous: PathBuf,
    since_check: AtomicU64,
}

impl LogFile {
    pub fn new(folder: &Path, service: &str) -> Self {
        Self {
            path: folder.join(format!("{service}.log")),
            previous: folder.join(format!("{service}.log.1")),
            since_check: AtomicU64::new(CHECK_EVERY),
        }
    }

    fn turn_over_when_full(&self) -> io::Result<()> {
        let Some(stderr) = stderr_file()? else {
            return Ok(());
        };
        if stderr.metadata()?.len() < MAX_FILE || !is_same_file(&stderr, &self.path) {
            return Ok(());
        }
        std::fs::rename(&self.path, &self.previous)?;
        let next = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.path)?;
        replace_output(&next)
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(self)
    }
}

/// Writes one event; the formatter hands over a whole line at a time.
pub struct LineWriter<'a>(&'a LogFile);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = line.len() as u64;
        if self.0.since_check.fetch_add(written, Ordering::Relaxed) + written >= CHECK_EVERY {
            self.0.since_check.store(0, Ordering::Relaxed);
            // A log that cannot be turned over goes on growing rather than stop.
            let _ = self.0.turn_over_when_full();
        }
        io::stderr().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(unix)]
fn stderr_file() -> io::Result<Option<File>> {
    use std::os::fd::AsFd;
    let file = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    Ok(file.metadata()?.is_file().then_some(file))
}

#[cfg(unix)]
fn replace_output(file: &File) -> io::Result<()> {
    nix::unistd::dup2_stdout(file)?;
    nix::unistd::dup2_stderr(file)?;
    Ok(())
}

#[cfg(not(unix))]
fn stderr_file() -> io::Result<Option<File>> {
    Ok(None)
}

#[cfg(not(unix))]
fn replace_output(_file: &File) -> io::Result<()> {
    Ok(())
}
