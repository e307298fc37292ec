//! Where a client reads a process's output: the log writer, or the FIFOs themselves under a shim that is not ours.

use crate::error::{ApiError, ApiResult};
use bytes::{Bytes, BytesMut};
use longshore_container_log::{AttachClient, AttachEvent, StreamKind};
use std::path::Path;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// Under this shim an exec has a log writer from its creation on; others start one only with the process.
pub const OUR_SHIM: &str = "io.containerd.longshore.v2";

const CHUNK: usize = 32 << 10;

pub enum Output {
    Log(AttachClient),
    Pipes([Option<pipe::Receiver>; 2]),
}

impl Output {
    /// Opens FIFOs that a shim is about to write to. Read only once the process has started: before there is a writer
    /// a FIFO reads as ended.
    pub fn open_pipes(stdout: &Path, stderr: Option<&Path>) -> ApiResult<Self> {
        let open = |path: &Path| {
            pipe::OpenOptions::new()
                .open_receiver(path)
                .map_err(|error| ApiError::from(error).context("opening a command's output"))
        };
        Ok(Output::Pipes([
            Some(open(stdout)?),
            stderr.map(open).transpose()?,
        ]))
    }

    /// The next piece; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<(StreamKind, Bytes)> {
        match self {
            Output::Log(client) => loop {
                match client.next().await {
                    Ok(Some(AttachEvent::Output(stream, bytes))) => return Some((stream, bytes)),
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return None,
                }
            },
            Output::Pipes([stdout, stderr]) => loop {
                if stdout.is_none() && stderr.is_none() {
                    return None;
                }
                let (stream, read) = tokio::select! {
                    read = read(stdout) => (StreamKind::Stdout, read),
                    read = read(stderr) => (StreamKind::Stderr, read),
                };
                match read {
                    Some(bytes) => return Some((stream, bytes)),
                    None if stream == StreamKind::Stdout => *stdout = None,
                    None => *stderr = None,
                }
            },
        }
    }
}

/// Pends for a pipe that has ended, so that the other one is waited for.
async fn read(pipe: &mut Option<pipe::Receiver>) -> Option<Bytes> {
    let Some(pipe) = pipe else {
        return std::future::pending().await;
    };
    let mut buffer = BytesMut::with_capacity(CHUNK);
    match pipe.read_buf(&mut buffer).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(buffer.freeze()),
    }
}
