//! A command in the guest for the host, on [`crate::ports::SHELL`].
//!
//! The host sends [`ShellHeader`] as a line; then both sides send [`Frame`]s: one byte of kind, the payload's length (32 bits,
//! big-endian, at most [`MAX_PAYLOAD`]), the payload. The guest ends with [`Frame::Exit`] or [`Frame::Error`].

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest payload of a frame, in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellHeader {
    pub version: u32,
    /// The command and its arguments; empty for a login shell.
    #[serde(default)]
    pub command: Vec<String>,
    /// A terminal of `rows` × `cols`, where output and errors are one.
    #[serde(default)]
    pub tty: bool,
    #[serde(default)]
    pub rows: u16,
    #[serde(default)]
    pub cols: u16,
    /// Added to the guest's own environment.
    #[serde(default)]
    pub env: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Host → guest.
    Stdin(Bytes),
    /// Host → guest: no more input (a terminal gets its end-of-file character).
    StdinEof,
    /// Host → guest.
    Resize { rows: u16, cols: u16 },
    /// Host → guest: a signal's number for the command's process group.
    Signal(u8),
    /// Guest → host.
    Stdout(Bytes),
    /// Guest → host.
    Stderr(Bytes),
    /// Guest → host: the exit code, 128 + signal when killed.
    Exit(i32),
    /// Guest → host: the command could not be run (the code as a shell gives it: 126, 127), and why.
    Error { code: i32, message: String },
}

const STDIN: u8 = 0;
const STDIN_EOF: u8 = 1;
const RESIZE: u8 = 2;
const SIGNAL: u8 = 3;
const STDOUT: u8 = 16;
const STDERR: u8 = 17;
const EXIT: u8 = 18;
const ERROR: u8 = 19;

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("read a shell frame: {0}")]
    Read(#[source] io::Error),
    #[error("a shell frame of {0} bytes is longer than the bound of {MAX_PAYLOAD}")]
    TooLong(usize),
    #[error("a shell frame of unknown kind {0}")]
    UnknownKind(u8),
    #[error("a shell frame of kind {kind} has a wrong length {length}")]
    WrongLength { kind: u8, length: usize },
}

impl Frame {
    /// Reads the next frame; `None` at the end of the stream.
    pub async fn read<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Option<Frame>, FrameError> {
        let mut kind = [0];
        if reader.read(&mut kind).await.map_err(FrameError::Read)? == 0 {
            return Ok(None);
        }
        let length = reader.read_u32().await.map_err(FrameError::Read)? as usize;
        if length > MAX_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        let mut payload = vec![0; length];
        reader
            .read_exact(&mut payload)
            .await
            .map_err(FrameError::Read)?;
        Self::decode(kind[0], payload).map(Some)
    }

    /// Writes the frame; data longer than [`MAX_PAYLOAD`] goes as several.
    pub async fn write<W: AsyncWrite + Unpin>(&self, writer: &mut W) -> io::Result<()> {
        match self {
            Frame::Stdin(data) => write_data(writer, STDIN, data).await,
            Frame::Stdout(data) => write_data(writer, STDOUT, data).await,
            Frame::Stderr(data) => write_data(writer, STDERR, data).await,
            Frame::StdinEof => write_one(writer, STDIN_EOF, &[]).await,
            Frame::Resize { rows, cols } => {
                let [a, b] = rows.to_be_bytes();
                let [c, d] = cols.to_be_bytes();
                write_one(writer, RESIZE, &[a, b, c, d]).await
            }
            Frame::Signal(number) => write_one(writer, SIGNAL, &[*number]).await,
            Frame::Exit(code) => write_one(writer, EXIT, &code.to_be_bytes()).await,
            Frame::Error { code, message } => {
                let mut payload = code.to_be_bytes().to_vec();
                payload.extend_from_slice(message.as_bytes());
                payload.truncate(MAX_PAYLOAD);
                write_one(writer, ERROR, &payload).await
            }
        }
    }

    fn decode(kind: u8, payload: Vec<u8>) -> Result<Frame, FrameError> {
        let wrong = FrameError::WrongLength {
            kind,
            length: payload.len(),
        };
        match (kind, payload.as_slice()) {
            (STDIN, _) => Ok(Frame::Stdin(payload.into())),
            (STDOUT, _) => Ok(Frame::Stdout(payload.into())),
            (STDERR, _) => Ok(Frame::Stderr(payload.into())),
            (STDIN_EOF, []) => Ok(Frame::StdinEof),
            (RESIZE, [a, b, c, d]) => Ok(Frame::Resize {
                rows: u16::from_be_bytes([*a, *b]),
                cols: u16::from_be_bytes([*c, *d]),
            }),
            (SIGNAL, [number]) => Ok(Frame::Signal(*number)),
            (EXIT, [a, b, c, d]) => Ok(Frame::Exit(i32::from_be_bytes([*a, *b, *c, *d]))),
            (ERROR, [a, b, c, d, message @ ..]) => Ok(Frame::Error {
                code: i32::from_be_bytes([*a, *b, *c, *d]),
                message: String::from_utf8_lossy(message).into_owned(),
            }),
            (STDIN_EOF | RESIZE | SIGNAL | EXIT | ERROR, _) => Err(wrong),
            _ => Err(FrameError::UnknownKind(kind)),
        }
    }
}

async fn write_data<W: AsyncWrite + Unpin>(
    writer: &mut W,
    kind: u8,
    data: &[u8],
) -> io::Result<()> {
    for chunk in data.chunks(MAX_PAYLOAD) {
        write_one(writer, kind, chunk).await?;
    }
    Ok(())
}

async fn write_one<W: AsyncWrite + Unpin>(
    writer: &mut W,
    kind: u8,
    payload: &[u8],
) -> io::Result<()> {
    // One write: a channel may send each write as a packet of its own.
    let mut frame = Vec::with_capacity(5 + payload.len());
    frame.push(kind);
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    frame.extend_from_slice(payload);
    writer.write_all(&frame).await?;
    writer.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_back_as_they_were() {
        let frames = [
            Frame::Stdin(Bytes::from_static(b"in")),
            Frame::StdinEof,
            Frame::Resize { rows: 24, cols: 80 },
            Frame::Signal(2),
            Frame::Stdout(Bytes::from_static(b"")),
            Frame::Stderr(Bytes::from_static(b"err")),
            Frame::Exit(-1),
            Frame::Error {
                code: 127,
                message: "not found".into(),
            },
        ];
        for frame in frames {
            let mut bytes = Vec::new();
            frame.write(&mut bytes).await.unwrap();
            let mut reader = bytes.as_slice();
            // Empty data makes no frame at all.
            let expected = if bytes.is_empty() { None } else { Some(frame) };
            assert_eq!(Frame::read(&mut reader).await.unwrap(), expected);
            assert!(reader.is_empty());
        }
    }

    #[tokio::test]
    async fn wrong_frames_are_refused() {
        let cases: [(&[u8], &str); 3] = [
            (&[99, 0, 0, 0, 0], "a shell frame of unknown kind 99"),
            (
                &[2, 0, 0, 0, 1, 0],
                "a shell frame of kind 2 has a wrong length 1",
            ),
            (
                &[0, 255, 255, 255, 255],
                "a shell frame of 4294967295 bytes is longer than the bound of 65536",
            ),
        ];
        for (bytes, message) in cases {
            let error = Frame::read(&mut &bytes[..]).await.unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
}
