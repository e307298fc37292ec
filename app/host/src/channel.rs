//! Streams to numbered guest ports, through `vm/channel.sock`.

use std::io;
use std::path::{Path, PathBuf};

use longshore_local_socket::{self as local_socket, Stream};
use longshore_protocol::line;
use tokio::io::{self as tokio_io, AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};

/// The longest answer line to `CONNECT`.
const MAX_ANSWER: usize = 256;
/// Large pieces: under emulation each piece costs a trip into the guest.
const BUFFER: usize = 64 * 1024;

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
    check(port, &answer)?;
    Ok(stream)
}

fn check(port: u32, answer: &str) -> Result<(), DialError> {
    match answer.split_once(' ') {
        Some(("OK", _)) => Ok(()),
        Some(("ERR", reason)) => Err(DialError::Refused(port, reason.to_owned())),
        _ => Err(DialError::Refused(
            port,
            format!("unexpected answer {answer:?}"),
        )),
    }
}

/// The way back of a stream that the guest has yet to take.
pub struct Opening {
    port: u32,
    read: BufReader<ReadHalf<Stream>>,
}

/// Asks for a stream and sends `first` without waiting for the guest to take it: what is written meanwhile saves a trip there
/// and back, and is lost when the guest refuses.
pub async fn open(
    channel: &Path,
    port: u32,
    first: &[u8],
) -> Result<(Opening, WriteHalf<Stream>), DialError> {
    let stream = local_socket::connect(channel)
        .await
        .map_err(|e| DialError::Channel(channel.to_owned(), e))?;
    let (read, mut write) = tokio_io::split(stream);
    let line = format!("CONNECT {port}\n");
    write
        .write_all(&[line.as_bytes(), first].concat())
        .await
        .map_err(|e| DialError::Broken(port, e))?;
    let read = BufReader::with_capacity(BUFFER, read);
    Ok((Opening { port, read }, write))
}

impl Opening {
    /// What the guest sends, once it has taken the stream.
    pub async fn answered(mut self) -> Result<BufReader<ReadHalf<Stream>>, DialError> {
        let broken = |error| DialError::Broken(self.port, error);
        let answer = line::read_line(&mut self.read, MAX_ANSWER).await;
        let answer = answer.map_err(|error| broken(io::Error::other(error)))?;
        let answer = answer.ok_or_else(|| broken(io::ErrorKind::UnexpectedEof.into()))?;
        check(self.port, &String::from_utf8_lossy(&answer))?;
        Ok(self.read)
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
