//! The reading end of live attach.

use std::path::Path;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::attach_protocol::{Frame, Hello, Overflow, Start, StreamKind, Streams, read_welcome};
use crate::config::attach_path;
use crate::error::{Error, Result};

/// How to attach; the default is both outputs, from the oldest kept, blocking.
#[derive(Debug, Clone, Copy)]
pub struct AttachOptions {
    pub streams: Streams,
    pub overflow: Overflow,
    pub start: Start,
}

impl Default for AttachOptions {
    fn default() -> Self {
        AttachOptions {
            streams: Streams::OUTPUT,
            overflow: Overflow::default(),
            start: Start::default(),
        }
    }
}

/// What an attached reader sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachEvent {
    /// Output of the container, as written.
    Output(StreamKind, Bytes),
    /// The log file has grown.
    Wake,
    /// Bytes that this reader has missed.
    Lost(u64),
}

/// A connection to one container's (or exec's) log writer. Dropping it detaches.
#[derive(Debug)]
pub struct AttachClient {
    receiver: tokio::sync::mpsc::Receiver<Result<Frame>>,
    pump: tokio::task::JoinHandle<()>,
    cursor: u64,
    ended: bool,
}

impl AttachClient {
    /// Connects to the writer of log folder `dir`. When this returns the position is taken:
    /// output from then on is not missed. The error's source is `NotFound` or
    /// `ConnectionRefused` when no writer lives.
    pub async fn connect(dir: &Path, options: AttachOptions) -> Result<AttachClient> {
        let path = attach_path(dir);
        let connecting = |source| Error::Connect {
            path: path.clone(),
            source,
        };
        let mut stream = connect_unix(&path).await.map_err(connecting)?;
        let AttachOptions {
            streams,
            overflow,
            start,
        } = options;
        let hello = Hello {
            streams,
            overflow,
            start,
        };
        stream
            .write_all(&hello.encode())
            .await
            .map_err(connecting)?;
        let cursor = read_welcome(&mut stream).await?;
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        // A task of its own, so that `next` may be used in `select!`.
        let pump = tokio::spawn(async move {
            loop {
                let frame = Frame::read(&mut stream).await;
                let last = matches!(frame, Ok(Frame::End) | Err(_));
                if sender.send(frame).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(AttachClient {
            receiver,
            pump,
            cursor,
            ended: false,
        })
    }

    /// The next event; `None` when the container's output has ended. An error means that the
    /// writer died. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<AttachEvent>> {
        if self.ended {
            return Ok(None);
        }
        let frame = match self.receiver.recv().await {
            Some(frame) => frame?,
            None => Frame::End,
        };
        Ok(Some(match frame {
            Frame::Output(stream, bytes) => {
                self.cursor += bytes.len() as u64;
                AttachEvent::Output(stream, bytes.into())
            }
            Frame::Wake => AttachEvent::Wake,
            Frame::Lost(count) => {
                self.cursor += count;
                AttachEvent::Lost(count)
            }
            Frame::End => {
                self.ended = true;
                return Ok(None);
            }
        }))
    }

    /// Where this reader stands, for [`Start::Cursor`]. Exact for readers of both outputs.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }
}

impl Drop for AttachClient {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// Connects through `/proc/self/fd`, because a socket address holds only 107 bytes of path.
async fn connect_unix(path: &Path) -> std::io::Result<UnixStream> {
    let (_dir, short) = crate::attach_server::short_path(path)?;
    UnixStream::connect(short).await
}
