//! The guest's side of the channel's contract tests; offered only when the guest was booted for them.
//!
//! What each port does is written beside its number in `longshore_protocol::ports::contract`.

use std::io;

use longshore_protocol::ports::contract::{
    CLOSE_FIRST, DIE, ECHO, NOBODY, SINK, SOURCE, STALL, VANISH, pattern,
};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Largest write that SOURCE is asked for.
const MAX_CHUNK: usize = 4 << 20;

/// Whether a contract test listens on this port.
pub fn listens(port: u32) -> bool {
    matches!(
        port,
        ECHO | SINK | SOURCE | STALL | CLOSE_FIRST | VANISH | DIE
    ) && port != NOBODY
}

/// Serves one connection to a port for which [`listens`] is true.
pub async fn serve<S>(port: u32, mut stream: S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match port {
        ECHO => echo(stream).await,
        SINK => sink(stream).await,
        SOURCE => source(stream).await,
        STALL => {
            // The stream lives as long as this task; nothing is ever read.
            std::future::pending::<()>().await;
            drop(stream);
            Ok(())
        }
        CLOSE_FIRST => {
            stream.write_all(b"hello\n").await?;
            stream.shutdown().await?;
            drain(&mut stream).await.map(drop)
        }
        VANISH => read_line(&mut stream).await.map(drop),
        DIE => {
            read_line(&mut stream).await?;
            std::process::abort()
        }
        _ => Ok(()),
    }
}

async fn echo(stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    tokio::io::copy(&mut reader, &mut writer).await?;
    writer.shutdown().await
}

async fn sink(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut hash = Sha256::new();
    let mut total = 0;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            length => {
                hash.update(&buffer[..length]);
                total += length as u64;
            }
        }
    }
    let digest: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    stream
        .write_all(format!("{total} {digest}\n").as_bytes())
        .await?;
    stream.shutdown().await
}

async fn source(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let line = read_line(&mut stream).await?;
    let asked = line.split_once(' ').and_then(|(total, chunk)| {
        Some((total.parse::<u64>().ok()?, chunk.parse::<usize>().ok()?))
    });
    let Some((total, chunk)) = asked.filter(|(_, chunk)| (1..=MAX_CHUNK).contains(chunk)) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "expected `<bytes> <chunk>`",
        ));
    };
    // One period more than a chunk, so that every chunk is a slice of it.
    let period: Vec<u8> = (0..chunk as u64 + 251).map(pattern).collect();
    let mut sent = 0;
    while sent < total {
        let start = (sent % 251) as usize;
        let length = chunk.min((total - sent) as usize);
        stream.write_all(&period[start..start + length]).await?;
        sent += length as u64;
    }
    stream.shutdown().await
}

/// Reads to the end; returns how much there was.
async fn drain(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<u64> {
    tokio::io::copy(stream, &mut tokio::io::sink()).await
}

async fn read_line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut line = String::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => return Ok(line),
            byte if line.len() < 100 => line.push(byte.into()),
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the line is too long",
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn source_and_sink_agree() {
        let (mut near, far) = tokio::io::duplex(1000);
        tokio::spawn(serve(SOURCE, far));
        near.write_all(b"100000 333\n").await.unwrap();
        let mut bytes = Vec::new();
        near.read_to_end(&mut bytes).await.unwrap();
        assert!(
            bytes
                .iter()
                .enumerate()
                .all(|(at, byte)| *byte == pattern(at as u64))
        );
        assert_eq!(bytes.len(), 100_000);

        let (near, far) = tokio::io::duplex(1000);
        tokio::spawn(serve(SINK, far));
        let (mut reader, mut writer) = tokio::io::split(near);
        writer.write_all(b"abc").await.unwrap();
        writer.shutdown().await.unwrap();
        let mut answer = String::new();
        reader.read_to_string(&mut answer).await.unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(answer, format!("3 {abc}\n"));
    }
}
