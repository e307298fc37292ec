//! Where a container's records go on their way to the file: at once, or through a bounded queue that never holds it up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use crate::attach_protocol::StreamKind;
use crate::config::{Driver, LogConfig};
use crate::error::Result;
use crate::file::LogFile;
use crate::line;
use crate::splitter::Splitter;
use crate::time::Timestamp;

/// Lines of both outputs, made from what comes, and kept.
#[derive(Debug)]
pub(crate) struct Sink {
    way: Option<Way>,
    splitters: [Splitter; 2],
    records: Vec<u8>,
    /// The records' member for the attributes.
    attributes: Vec<u8>,
}

#[derive(Debug)]
enum Way {
    /// Docker's `mode=blocking`.
    Direct(Writer),
    /// `mode=non-blocking`.
    Queued(Queue),
}

impl Sink {
    /// Opens the log file, if there is to be one. `written` is called after each write that a queue has delayed.
    pub(crate) fn open(config: &LogConfig, written: impl Fn() + Send + 'static) -> Result<Sink> {
        let way = match (config.driver, config.buffer) {
            (Driver::None, _) => None,
            (_, 0) => Some(Way::Direct(Writer::open(config)?)),
            (_, most) => Some(Way::Queued(Queue::new(
                Writer::open(config)?,
                most,
                written,
            ))),
        };
        Ok(Sink {
            way,
            splitters: Default::default(),
            records: Vec::new(),
            attributes: line::encode_attributes(&config.attributes),
        })
    }

    pub(crate) fn write(&mut self, stream: StreamKind, bytes: &[u8]) {
        if self.way.is_none() {
            return;
        }
        let time = Timestamp::now().to_string();
        let (records, attributes) = (&mut self.records, &self.attributes);
        let splitter = &mut self.splitters[stream as usize - 1];
        splitter.push(bytes, |log| {
            line::encode(records, log, stream, attributes, &time);
        });
        self.flush();
    }

    pub(crate) fn end_stream(&mut self, stream: StreamKind) {
        let rest = self.splitters[stream as usize - 1].finish();
        if !rest.is_empty() {
            let time = Timestamp::now().to_string();
            line::encode(&mut self.records, &rest, stream, &self.attributes, &time);
            self.flush();
        }
    }

    fn flush(&mut self) {
        match &mut self.way {
            Some(Way::Direct(writer)) => writer.write(&self.records),
            Some(Way::Queued(queue)) => queue.push(&self.records),
            None => {}
        }
        self.records.clear();
        self.records.shrink_to(4096);
    }

    /// No more will come. What a queue still holds is written when the returned thread ends.
    pub(crate) fn close(&mut self) -> Option<JoinHandle<()>> {
        match self.way.take() {
            Some(Way::Queued(queue)) => Some(queue.thread),
            _ => None,
        }
    }
}

/// The file, which a full disk does not make an obstacle: lines are dropped, and counted.
#[derive(Debug)]
struct Writer {
    file: LogFile,
    dropped: u64,
}

impl Writer {
    fn open(config: &LogConfig) -> Result<Writer> {
        let file = LogFile::open(config)?;
        Ok(Writer { file, dropped: 0 })
    }

    fn write(&mut self, records: &[u8]) {
        if records.is_empty() {
            return;
        }
        match self.file.append(records) {
            Ok(()) if self.dropped > 0 => {
                eprintln!(
                    "log: {} bytes were dropped",
                    std::mem::take(&mut self.dropped)
                );
            }
            Ok(()) => {}
            Err(error) => {
                if self.dropped == 0 {
                    eprintln!("log: cannot write: {error}");
                }
                self.dropped += records.len() as u64;
            }
        }
    }
}

/// Records that wait for the disk, up to a bound.
#[derive(Debug)]
struct Queue {
    sender: Sender<Vec<u8>>,
    waiting: Arc<AtomicU64>,
    most: u64,
    thread: JoinHandle<()>,
}

impl Queue {
    fn new(writer: Writer, most: u64, written: impl Fn() + Send + 'static) -> Queue {
        let (sender, records) = mpsc::channel();
        let waiting = Arc::new(AtomicU64::new(0));
        let counter = waiting.clone();
        let thread = thread::spawn(move || drain(writer, records, &counter, written));
        Queue {
            sender,
            waiting,
            most,
            thread,
        }
    }

    /// One batch always fits into an empty queue, as in Docker's.
    fn push(&self, records: &[u8]) {
        let waiting = self.waiting.load(Ordering::Relaxed);
        let length = records.len() as u64;
        if length == 0 || (waiting > 0 && waiting + length > self.most) {
            return;
        }
        self.waiting.fetch_add(length, Ordering::Relaxed);
        // The thread lives as long as this sender.
        drop(self.sender.send(records.to_vec()));
    }
}

fn drain(mut writer: Writer, records: Receiver<Vec<u8>>, waiting: &AtomicU64, written: impl Fn()) {
    for batch in records {
        writer.write(&batch);
        waiting.fetch_sub(batch.len() as u64, Ordering::Relaxed);
        written();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_an_empty_one_takes_all() {
        let dir = tempfile::tempdir().unwrap();
        let (gate, waiting) = mpsc::channel::<()>();
        let mut config = LogConfig::new("c", dir.path());
        config.buffer = 100;
        let mut sink = Sink::open(&config, move || {
            let _ = waiting.recv();
        })
        .unwrap();
        let long = [b'x'; 200];
        sink.write(StreamKind::Stdout, &[&long[..], b"\n"].concat());
        for _ in 0..100 {
            // The writer stands still after its first write, so these cannot all fit.
            sink.write(StreamKind::Stdout, b"short\n");
        }
        drop(gate);
        sink.close().unwrap().join().unwrap();
        let text = std::fs::read_to_string(config.log_path()).unwrap();
        assert!(text.starts_with("{\"log\":\"xxx"));
        assert!((1..10).contains(&text.lines().count()), "{text}");
    }
}
