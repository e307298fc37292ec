//! Streams to numbered guest ports, through `vm/channel.sock`.

use std::io;
use std::path::{Path, PathBuf};

use longshore_local_socket::{self as local_socket, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The longest answer line to `CONNECT`.
const MAX_ANSWER: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("cannot reach the VM's channel {0}: {1}")]
    Channel(PathBuf, io::Error),
    #[error("the VM's channel broke off while connecting to guest port {0}: {1}")]
    Broken(u32, io::Error),
    #[error("nobody answers on guest port {0}: {1}")]
    Refused(u32, String),
}

/// Opens a stream to a port of the guest.
pub async fn dial(channel: &Path, port: u32) -> Result<Stream, DialError> {
    let mut stream = local_socket::connect(channel)
        .await
        .map_err(|e| DialError::Channel(channel.to_owned(), e))?;
    let broken = |e| DialError::Broken(port, e);
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .await
        .map_err(broken)?;
    let answer = read_answer(&mut stream).await.map_err(broken)?;
    match answer.split_once(' ') {
        Some(("OK", _)) => Ok(stream),
        Some(("ERR", reason)) => Err(DialError::Refused(port, reason.to_owned())),
        _ => Err(DialError::Refused(
            port,
            format!("unexpected answer {answer:?}"),
        )),
    }
}

/// Byte by byte: what follows the line belongs to the guest's stream.
async fn read_answer(stream: &mut Stream) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => return Ok(String::from_utf8_lossy(&line).into_owned()),
            _ if line.len() == MAX_ANSWER => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "too long an answer",
                ));
            }
            byte => line.push(byte),
        }
    }
}
