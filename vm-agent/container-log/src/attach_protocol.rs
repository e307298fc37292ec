//! The attach socket's bytes: one hello, one welcome, then frames with Docker's 8-byte header.
//!
//! Client to server, once (16 bytes): `LSA1`, streams (1 stdout | 2 stderr | 4 wake-ups),
//! overflow (0 block, 1 skip), start (0 oldest, 1 now, 2 cursor), 0, cursor u64 LE.
//! Server to client, once (16 bytes): `LSA1`, 4 zero bytes, the cursor it starts from, u64 LE.
//! Then frames `[kind,0,0,0,len u32 BE]` + payload; kinds 1 and 2 are Docker's own stream numbers.
//! Cursors count the bytes of all streams since the task was created.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::error::{Error, Result};

const MAGIC: &[u8; 4] = b"LSA1";
const FRAME_WAKE: u8 = 3;
const FRAME_LOST: u8 = 4;
const FRAME_END: u8 = 5;

/// Nothing that this server sends is longer.
pub(crate) const MAX_FRAME: usize = 256 << 10;

/// Which of the container's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    Stdout = 1,
    Stderr = 2,
}

impl StreamKind {
    /// Docker's name in json-file lines.
    pub fn name(self) -> &'static str {
        match self {
            StreamKind::Stdout => "stdout",
            StreamKind::Stderr => "stderr",
        }
    }
}

/// What a reader wants to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    pub stdout: bool,
    pub stderr: bool,
    /// An empty [`AttachEvent::Wake`](crate::AttachEvent) after output has reached the log file;
    /// many writes may share one.
    pub wake: bool,
}

impl Streams {
    /// stdout and stderr.
    pub const OUTPUT: Streams = Streams {
        stdout: true,
        stderr: true,
        wake: false,
    };
    /// Only the news that the log has grown, and the end.
    pub const WAKE: Streams = Streams {
        stdout: false,
        stderr: false,
        wake: true,
    };

    pub(crate) fn wants(self, kind: StreamKind) -> bool {
        match kind {
            StreamKind::Stdout => self.stdout,
            StreamKind::Stderr => self.stderr,
        }
    }
}

/// What happens when a reader is slower than the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The container waits, as under Docker.
    #[default]
    Block,
    /// The reader misses output and is told how much.
    Skip,
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// The oldest output that is still kept.
    #[default]
    Oldest,
    /// What comes from now on.
    Now,
    /// A cursor from an earlier connection; too old ones begin with a `Lost` event.
    Cursor(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    pub streams: Streams,
    pub overflow: Overflow,
    pub start: Start,
}

impl Hello {
    pub(crate) fn encode(self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..4].copy_from_slice(MAGIC);
        let bit = |on: bool, value: u8| if on { value } else { 0 };
        let s = self.streams;
        out[4] = bit(s.stdout, 1) | bit(s.stderr, 2) | bit(s.wake, 4);
        out[5] = bit(self.overflow == Overflow::Skip, 1);
        let (start, cursor) = match self.start {
            Start::Oldest => (0, 0),
            Start::Now => (1, 0),
            Start::Cursor(cursor) => (2, cursor),
        };
        out[6] = start;
        out[8..].copy_from_slice(&cursor.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8; 16]) -> Option<Hello> {
        let cursor = u64::from_le_bytes(bytes[8..].try_into().ok()?);
        Some(Hello {
            streams: match (&bytes[..4] == MAGIC, bytes[4]) {
                (true, b @ 0..8) => Streams {
                    stdout: b & 1 != 0,
                    stderr: b & 2 != 0,
                    wake: b & 4 != 0,
                },
                _ => return None,
            },
            overflow: match bytes[5] {
                0 => Overflow::Block,
                1 => Overflow::Skip,
                _ => return None,
            },
            start: match bytes[6] {
                0 => Start::Oldest,
                1 => Start::Now,
                2 => Start::Cursor(cursor),
                _ => return None,
            },
        })
    }
}

pub(crate) fn encode_welcome(cursor: u64) -> [u8; 16] {
    let mut out = [0; 16];
    out[..4].copy_from_slice(MAGIC);
    out[8..].copy_from_slice(&cursor.to_le_bytes());
    out
}

pub(crate) async fn read_welcome(from: &mut (impl AsyncRead + Unpin)) -> Result<u64> {
    let mut bytes = [0; 16];
    from.read_exact(&mut bytes)
        .await
        .map_err(|source| Error::Attach { source })?;
    if &bytes[..4] != MAGIC {
        return Err(Error::Protocol {
            what: "not an attach socket",
        });
    }
    let mut cursor = [0; 8];
    cursor.copy_from_slice(&bytes[8..]);
    Ok(u64::from_le_bytes(cursor))
}

/// One message of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Output(StreamKind, Vec<u8>),
    Wake,
    Lost(u64),
    End,
}

impl Frame {
    pub(crate) async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let lost;
        let (kind, payload): (u8, &[u8]) = match self {
            Frame::Output(stream, bytes) => (*stream as u8, bytes),
            Frame::Wake => (FRAME_WAKE, &[]),
            Frame::Lost(count) => {
                lost = count.to_be_bytes();
                (FRAME_LOST, &lost)
            }
            Frame::End => (FRAME_END, &[]),
        };
        let mut out = Vec::with_capacity(8 + payload.len());
        out.extend_from_slice(&[kind, 0, 0, 0]);
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        out.extend_from_slice(payload);
        to.write_all(&out).await
    }

    /// Reads one frame. Not cancel safe.
    pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Frame> {
        let broke = |source| Error::Attach { source };
        let mut header = [0; 8];
        from.read_exact(&mut header).await.map_err(broke)?;
        let len = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if len > MAX_FRAME {
            return Err(Error::Protocol {
                what: "frame too long",
            });
        }
        let mut payload = vec![0; len];
        from.read_exact(&mut payload).await.map_err(broke)?;
        match header[0] {
            1 => Ok(Frame::Output(StreamKind::Stdout, payload)),
            2 => Ok(Frame::Output(StreamKind::Stderr, payload)),
            FRAME_WAKE => Ok(Frame::Wake),
            FRAME_LOST => match payload.try_into() {
                Ok(count) => Ok(Frame::Lost(u64::from_be_bytes(count))),
                Err(_) => Err(Error::Protocol {
                    what: "bad length of a lost frame",
                }),
            },
            FRAME_END => Ok(Frame::End),
            _ => Err(Error::Protocol {
                what: "unknown frame",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hello_round_trip() {
        for hello in [
            Hello {
                streams: Streams::OUTPUT,
                overflow: Overflow::Block,
                start: Start::Oldest,
            },
            Hello {
                streams: Streams::WAKE,
                overflow: Overflow::Skip,
                start: Start::Now,
            },
            Hello {
                streams: Streams::OUTPUT,
                overflow: Overflow::Skip,
                start: Start::Cursor(u64::MAX),
            },
        ] {
            assert_eq!(Hello::decode(&hello.encode()), Some(hello));
        }
        assert_eq!(Hello::decode(&[0; 16]), None);
    }

    #[tokio::test]
    async fn frame_round_trip() {
        for frame in [
            Frame::Output(StreamKind::Stderr, b"abc".to_vec()),
            Frame::Wake,
            Frame::Lost(9),
            Frame::End,
        ] {
            let mut bytes = Vec::new();
            frame.write(&mut bytes).await.unwrap();
            assert_eq!(Frame::read(&mut bytes.as_slice()).await.unwrap(), frame);
        }
    }
}
