//! The client's and the server's half of hybrid vsock: `CONNECT <port>\n`, answered by `OK <n>\n` or `ERR <reason>\n`.
//!
//! Firecracker's protocol for host-initiated connections over a unix socket (its `docs/vsock.md`); the `ERR` line is ours,
//! Firecracker only hangs up.

use std::io;

use longshore_local_socket::Stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest line of the greeting, with its newline.
const MAX_LINE: usize = 256;

/// Why a connection to a guest port was not made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("connect to the channel's socket: {0}")]
    Socket(#[source] io::Error),
    #[error("greet on the channel's socket: {0}")]
    Greeting(#[source] io::Error),
    #[error("{0}")]
    Refused(String),
}

/// Connects to guest port `port` through `vm/channel.sock`.
pub async fn connect(path: &std::path::Path, port: u32) -> Result<Stream, ConnectError> {
    let mut stream = longshore_local_socket::connect(path)
        .await
        .map_err(ConnectError::Socket)?;
    greet(&mut stream, port).await?;
    Ok(stream)
}

/// The client's greeting over a fresh connection; raw bytes follow it.
pub async fn greet<S>(stream: &mut S, port: u32) -> Result<(), ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let line = format!("CONNECT {port}\n");
    stream
        .write_all(line.as_bytes())
        .await
        .map_err(ConnectError::Greeting)?;
    let answer = read_line(stream).await.map_err(ConnectError::Greeting)?;
    match answer.split_once(' ') {
        Some(("OK", _)) => Ok(()),
        Some(("ERR", reason)) => Err(ConnectError::Refused(reason.into())),
        _ => Err(ConnectError::Refused(format!(
            "the channel answered {answer:?}"
        ))),
    }
}

/// The server's half: the port that the client asks for.
pub async fn read_port<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<u32> {
    let line = read_line(stream).await?;
    line.strip_prefix("CONNECT ")
        .and_then(|port| port.parse().ok())
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("expected `CONNECT <port>`, got {line:?}"),
            )
        })
}

/// The server's answer; the number is the port, as nothing else is known of the guest's end.
pub async fn answer<S: AsyncWrite + Unpin>(
    stream: &mut S,
    outcome: Result<u32, &str>,
) -> io::Result<()> {
    let line = match outcome {
        Ok(number) => format!("OK {number}\n"),
        Err(reason) => {
            let reason: String = reason
                .chars()
                .filter(|c| !c.is_control())
                .take(MAX_LINE / 4 - 5)
                .collect();
            format!("ERR {reason}\n")
        }
    };
    stream.write_all(line.as_bytes()).await
}

/// Reads up to the newline and nothing beyond it.
async fn read_line<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        let byte = stream.read_u8().await?;
        if byte == b'\n' {
            break;
        }
        line.push(byte);
        if line.len() >= MAX_LINE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the line is too long",
            ));
        }
    }
    String::from_utf8(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn greeting_and_answer() {
        for (outcome, expected) in [
            (Ok(7), Ok(())),
            (Err("nobody\nlistens"), Err("nobodylistens".to_owned())),
        ] {
            let (mut client, mut server) = tokio::io::duplex(64);
            let serve = async {
                assert_eq!(read_port(&mut server).await.unwrap(), 1024);
                answer(&mut server, outcome).await.unwrap();
            };
            let (greeted, ()) = tokio::join!(greet(&mut client, 1024), serve);
            assert_eq!(greeted.map_err(|error| error.to_string()), expected);
        }
    }

    #[tokio::test]
    async fn a_wrong_greeting_is_an_error() {
        let long = [b'x'; 300];
        for bytes in [
            &b"GET / HTTP/1.1\n"[..],
            b"CONNECT -1\n",
            b"CONNECT 4294967296\n",
            &long,
        ] {
            assert!(read_port(&mut &bytes[..]).await.is_err());
        }
    }
}
