//! The latest output of a container in memory, for attached readers, with cursors.
//!
//! A cursor counts bytes of all streams since the beginning. A blocking reader's unread output is
//! never dropped; the writer asks [`Ring::has_room`] before it reads more from the container.

use std::collections::{HashMap, VecDeque};

use crate::attach_protocol::{Overflow, Start, StreamKind};

/// Kept when nobody reads.
const KEEP: usize = 64 << 10;
/// A blocking reader may lag by so much before the container waits.
const MAX_LAG: u64 = 256 << 10;
/// Small writes are joined up to this size, so that each does not cost a chunk.
const JOIN: usize = 4 << 10;

#[derive(Debug)]
struct Chunk {
    start: u64,
    stream: StreamKind,
    bytes: Vec<u8>,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

#[derive(Debug)]
struct Reader {
    cursor: u64,
    overflow: Overflow,
}

/// What a reader finds at its cursor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Output(StreamKind, Vec<u8>),
    Lost(u64),
    Nothing,
    End,
}

#[derive(Debug, Default)]
pub(crate) struct Ring {
    chunks: VecDeque<Chunk>,
    kept: usize,
    end: u64,
    finished: bool,
    readers: HashMap<u64, Reader>,
    next_reader: u64,
}

impl Ring {
    pub(crate) fn append(&mut self, stream: StreamKind, bytes: &[u8]) {
        match self.chunks.back_mut() {
            Some(last) if last.stream == stream && last.bytes.len() + bytes.len() <= JOIN => {
                last.bytes.extend_from_slice(bytes);
            }
            _ => {
                let chunk = Chunk {
                    start: self.end,
                    stream,
                    bytes: bytes.to_vec(),
                };
                self.chunks.push_back(chunk);
            }
        }
        self.end += bytes.len() as u64;
        self.kept += bytes.len();
        self.evict();
    }

    fn evict(&mut self) {
        let needed = self.slowest_blocking();
        while self.kept > KEEP && self.chunks.front().is_some_and(|c| c.end() <= needed) {
            self.kept -= self.chunks.pop_front().map_or(0, |c| c.bytes.len());
        }
    }

    fn slowest_blocking(&self) -> u64 {
        let blocking = self
            .readers
            .values()
            .filter(|r| r.overflow == Overflow::Block);
        blocking.map(|r| r.cursor).min().unwrap_or(self.end)
    }

    /// False while a blocking reader lags too far.
    pub(crate) fn has_room(&self) -> bool {
        self.end - self.slowest_blocking() < MAX_LAG
    }

    /// No more output will come.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// From now on nobody holds the container up.
    pub(crate) fn release_readers(&mut self) {
        for reader in self.readers.values_mut() {
            reader.overflow = Overflow::Skip;
        }
        self.evict();
    }

    /// All bytes so far.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn readers(&self) -> usize {
        self.readers.len()
    }

    /// Adds a reader; returns its key and cursor.
    pub(crate) fn subscribe(&mut self, start: Start, overflow: Overflow) -> (u64, u64) {
        let oldest = self.chunks.front().map_or(self.end, |c| c.start);
        let cursor = match start {
            Start::Oldest => oldest,
            Start::Now => self.end,
            Start::Cursor(cursor) => cursor.min(self.end),
        };
        let key = self.next_reader;
        self.next_reader += 1;
        self.readers.insert(key, Reader { cursor, overflow });
        (key, cursor)
    }

    pub(crate) fn unsubscribe(&mut self, key: u64) {
        self.readers.remove(&key);
        self.evict();
    }

    /// The reader's next chunk; moves its cursor.
    pub(crate) fn read(&mut self, key: u64) -> Read {
        let Some(reader) = self.readers.get_mut(&key) else {
            return Read::End;
        };
        if reader.cursor >= self.end {
            return if self.finished {
                Read::End
            } else {
                Read::Nothing
            };
        }
        let oldest = self.chunks.front().map_or(self.end, |c| c.start);
        if reader.cursor < oldest {
            let lost = oldest - reader.cursor;
            reader.cursor = oldest;
            return Read::Lost(lost);
        }
        let cursor = reader.cursor;
        let index = self.chunks.partition_point(|c| c.end() <= cursor);
        let chunk = &self.chunks[index];
        let bytes = chunk.bytes[(cursor - chunk.start) as usize..].to_vec();
        reader.cursor = chunk.end();
        let stream = chunk.stream;
        self.evict();
        Read::Output(stream, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StreamKind::{Stderr, Stdout};

    #[test]
    fn reads_in_order_and_ends() {
        let mut ring = Ring::default();
        ring.append(Stdout, b"ab");
        let (key, cursor) = ring.subscribe(Start::Oldest, Overflow::Block);
        assert_eq!(cursor, 0);
        ring.append(Stdout, b"c");
        ring.append(Stderr, b"d");
        assert_eq!(ring.read(key), Read::Output(Stdout, b"abc".to_vec()));
        assert_eq!(ring.read(key), Read::Output(Stderr, b"d".to_vec()));
        assert_eq!(ring.read(key), Read::Nothing);
        ring.append(Stderr, b"e");
        assert_eq!(ring.read(key), Read::Output(Stderr, b"e".to_vec()));
        ring.finish();
        assert_eq!(ring.read(key), Read::End);
    }

    #[test]
    fn bounded_without_readers() {
        let mut ring = Ring::default();
        for _ in 0..100 {
            ring.append(Stdout, &[0; JOIN]);
        }
        assert!(ring.kept <= KEEP + JOIN && ring.has_room());
        let (_, cursor) = ring.subscribe(Start::Oldest, Overflow::Block);
        assert_eq!(cursor, ring.end - ring.kept as u64);
    }

    #[test]
    fn blocking_reader_loses_nothing_and_skipping_reader_is_told() {
        let mut ring = Ring::default();
        let (skipping, _) = ring.subscribe(Start::Now, Overflow::Skip);
        let (blocking, _) = ring.subscribe(Start::Now, Overflow::Block);
        let mut written = 0;
        while ring.has_room() {
            ring.append(Stdout, &[1; JOIN]);
            written += JOIN;
        }
        assert_eq!(written as u64, MAX_LAG);
        let mut seen = 0;
        while let Read::Output(_, bytes) = ring.read(blocking) {
            seen += bytes.len();
        }
        assert_eq!(seen, written);
        assert!(ring.has_room());
        assert_eq!(ring.read(skipping), Read::Lost((written - KEEP) as u64));
    }
}
