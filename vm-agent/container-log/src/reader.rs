//! Reads logged lines back, over rotated files, and follows the live log.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::attach_client::{AttachClient, AttachOptions};
use crate::attach_protocol::{Start, StreamKind, Streams};
use crate::config::LogConfig;
use crate::error::{Error, Result};
use crate::line;
use crate::log_files::{self, LogPart};
use crate::time::Timestamp;

const READ_SIZE: usize = 64 << 10;
/// Our own records stay far below (16 KiB, at most six times escaped); longer ones are skipped.
const MAX_RECORD: usize = 1 << 20;

/// How many of the latest lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tail {
    #[default]
    All,
    /// The last so many records, counted before `since` and `until`, as Docker does.
    Last(u64),
}

/// What to read.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOptions {
    /// Lines at or after.
    pub since: Option<Timestamp>,
    /// Lines at or before; a followed log ends then.
    pub until: Option<Timestamp>,
    pub tail: Tail,
    /// Go on until the writer ends. Without a living writer the same as not following.
    pub follow: bool,
}

/// One logged line, or a piece of one longer than 16 KiB (then without its line feed).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub time: Timestamp,
    pub stream: StreamKind,
    /// What the log options `labels`, `env` and `tag` added.
    pub attributes: BTreeMap<String, String>,
    /// With the line feed, if the container wrote one.
    pub bytes: Bytes,
}

/// Reads the log of one container.
#[derive(Debug, Clone)]
pub struct LogReader {
    dir: PathBuf,
    path: PathBuf,
}

impl LogReader {
    /// The log that the writer with the same settings keeps.
    pub fn new(config: &LogConfig) -> LogReader {
        LogReader {
            dir: config.dir.clone(),
            path: config.log_path(),
        }
    }

    /// Begins to read. A log that does not exist (yet) is an empty one.
    pub async fn read(&self, options: ReadOptions) -> Result<LogLines> {
        // Listening before the files are opened: what is written in between wakes us.
        let wakes = if options.follow {
            self.listen().await
        } else {
            None
        };
        let path = self.path.clone();
        let failed = |source| Error::ReadLog {
            path: self.path.clone(),
            source,
        };
        let opened = tokio::task::spawn_blocking(move || log_files::open_all(&path, options.tail));
        let files = opened
            .await
            .map_err(|e| failed(e.into()))?
            .map_err(failed)?;
        Ok(LogLines {
            path: self.path.clone(),
            options,
            file: None,
            files: files.into(),
            buffer: Vec::new(),
            taken: 0,
            wakes,
        })
    }

    async fn listen(&self) -> Option<AttachClient> {
        let options = AttachOptions {
            streams: Streams::WAKE,
            start: Start::Now,
            ..Default::default()
        };
        AttachClient::connect(&self.dir, options).await.ok()
    }
}

/// The lines of a log, in order.
#[derive(Debug)]
pub struct LogLines {
    path: PathBuf,
    options: ReadOptions,
    /// The one that is being read.
    file: Option<File>,
    /// Those after it, oldest first.
    files: VecDeque<LogPart>,
    buffer: Vec<u8>,
    taken: usize,
    wakes: Option<AttachClient>,
}

impl LogLines {
    /// The next line; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<LogLine>> {
        loop {
            while let Some(line) = self.buffered_line() {
                let after = |limit: Timestamp| line.time > limit;
                match self.options {
                    ReadOptions {
                        until: Some(until), ..
                    } if after(until) => return Ok(None),
                    ReadOptions {
                        since: Some(since), ..
                    } if line.time < since => {}
                    _ => return Ok(Some(line)),
                }
            }
            if self.fill().await? || self.next_file().await? {
                continue;
            }
            if !self.woken().await {
                return Ok(None);
            }
        }
    }

    fn buffered_line(&mut self) -> Option<LogLine> {
        loop {
            let rest = &self.buffer[self.taken..];
            let length = rest.iter().position(|b| *b == b'\n')? + 1;
            let record = line::decode(&rest[..length]);
            self.taken += length;
            // Torn and foreign lines are passed over.
            if let Some(record) = record {
                let bytes = record.log.into();
                return Some(LogLine {
                    time: record.time,
                    stream: record.stream,
                    attributes: record.attributes,
                    bytes,
                });
            }
        }
    }

    /// Reads more of the file; false at its end.
    async fn fill(&mut self) -> Result<bool> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        if self.buffer.len() > MAX_RECORD {
            self.buffer.clear();
        }
        let Some(file) = &mut self.file else {
            return Ok(false);
        };
        self.buffer.reserve(READ_SIZE);
        match file.read_buf(&mut self.buffer).await {
            Ok(count) => Ok(count > 0),
            Err(source) => Err(Error::ReadLog {
                path: self.path.clone(),
                source,
            }),
        }
    }

    /// Goes to the next file, or finds that there are newer ones now; false at the end of all.
    async fn next_file(&mut self) -> Result<bool> {
        let path = self.path.clone();
        let failed = |source| Error::ReadLog {
            path: path.clone(),
            source,
        };
        if let Some(next) = self.files.front() {
            let path = path.clone();
            let next = next.try_clone().map_err(failed)?;
            let unpacked = move || next.into_plain(log_files::folder_of(&path));
            let plain = tokio::task::spawn_blocking(unpacked).await;
            let plain = plain.map_err(|e| failed(e.into()))?.map_err(failed)?;
            self.file = Some(File::from_std(plain));
            self.files.pop_front();
            self.buffer.clear();
            return Ok(true);
        }
        if !self.options.follow {
            return Ok(false);
        }
        let current = match &self.file {
            Some(file) => Some(file.metadata().await.map_err(failed)?),
            None => None,
        };
        let path = self.path.clone();
        let newer = tokio::task::spawn_blocking(move || log_files::open_newer(&path, current));
        let newer = newer.await.map_err(|e| failed(e.into()))?.map_err(failed)?;
        let found = !newer.is_empty();
        // The open one is read to its end once more: the writer may have written to it after our
        // last read and before it rotated.
        self.files.extend(newer);
        Ok(found)
    }

    /// Waits for more; false if there will be none. After the writer's end everything is read
    /// once more.
    async fn woken(&mut self) -> bool {
        let Some(wakes) = &mut self.wakes else {
            return false;
        };
        let event = match self.options.until {
            None => wakes.next().await,
            Some(until) => match tokio::time::timeout(time_to(until), wakes.next()).await {
                Ok(event) => event,
                Err(_elapsed) => Ok(None),
            },
        };
        if !matches!(event, Ok(Some(_))) {
            self.wakes = None;
        }
        true
    }
}

fn time_to(until: Timestamp) -> Duration {
    let until = UNIX_EPOCH + Duration::from_nanos(until.0.max(0) as u64);
    until.duration_since(SystemTime::now()).unwrap_or_default()
}

/// Reading a rotated-away file is no error.
pub(crate) fn missing_is_none<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
