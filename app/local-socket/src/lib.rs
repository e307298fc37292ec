//! Byte streams between processes of one user on one machine: unix sockets, on Windows named pipes.
//!
//! It does not know who speaks or what is said. Both kinds keep the same contract: a socket is named by a path, only this user
//! can reach it, a living server is never pushed aside, and `shutdown` closes the writing direction only.

use std::io;
use std::path::PathBuf;

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::{
    Listener, ReadHalf, Stream, WriteHalf, address, connect, hung_up, may_be_served,
    server_process, split,
};

#[cfg(windows)]
mod pipe;
#[cfg(windows)]
pub use pipe::{
    Listener, ReadHalf, Stream, WriteHalf, address, connect, hung_up, may_be_served,
    server_process, split,
};

/// Why a socket is not served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "somebody already serves {0}: stop that program, or set LONGSHORE_HOME to another folder"
    )]
    Taken(PathBuf),
    #[error("{0} exists and is not a socket: move it away")]
    NotASocket(PathBuf),
    #[error("cannot listen on {0}: {1}")]
    Bind(PathBuf, io::Error),
}

/// True for the errors of [`connect`] that mean that nobody serves there.
pub fn nobody_serves(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// A program as messages name it, with the number of its process where that is known (see [`server_process`]).
pub fn named(program: &str, process: Option<u32>) -> String {
    match process {
        Some(number) => format!("{program} (process {number})"),
        None => program.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn pair() -> (tempfile::TempDir, Listener, Stream, Stream) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut listener = Listener::bind(&path).await.unwrap();
        let (client, server) = tokio::join!(connect(&path), listener.accept());
        (dir, listener, client.unwrap(), server.unwrap())
    }

    async fn conversation(mut near: Stream, mut far: Stream) {
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "question");
        // An end that was read stays an end.
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        far.write_all(b"answer").await.unwrap();
        drop(far);
        text.clear();
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "answer");
    }

    #[tokio::test]
    async fn each_direction_closes_alone() {
        let (_dir, _listener, client, server) = pair().await;
        conversation(client, server).await;
        let (_dir, _listener, client, server) = pair().await;
        conversation(server, client).await;
    }

    #[tokio::test]
    async fn long_writes_arrive_whole_and_empty_ones_end_nothing() {
        let (_dir, _listener, mut client, mut server) = pair().await;
        let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
        let send = async {
            server.write_all(&sent[..500_000]).await.unwrap();
            assert_eq!(server.write(&[]).await.unwrap(), 0);
            server.write_all(&sent[500_000..]).await.unwrap();
            // Whoever writes last may close at once.
            drop(server);
        };
        let mut received = Vec::new();
        let (read, ()) = tokio::join!(client.read_to_end(&mut received), send);
        read.unwrap();
        assert!(received == sent);
    }

    #[tokio::test]
    async fn a_hang_up_is_told_and_a_half_close_is_none() {
        let (_dir, _listener, mut client, mut server) = pair().await;
        let gone = hung_up(&server);
        tokio::pin!(gone);
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        // Long enough for a runtime that was told to say so, were it told.
        let soon = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, gone.as_mut()).await.is_err());
        drop(client);
        let limit = std::time::Duration::from_secs(10);
        tokio::time::timeout(limit, gone).await.unwrap();
    }

    #[tokio::test]
    async fn many_clients_at_once_all_get_through() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut listener = Listener::bind(&path).await.unwrap();
        let clients: Vec<_> = (0..50u8)
            .map(|i| {
                let path = path.clone();
                tokio::spawn(async move {
                    let mut stream = connect(&path).await.unwrap();
                    stream.write_all(&[i]).await.unwrap();
                    stream.read_u8().await.unwrap()
                })
            })
            .collect();
        for _ in 0..clients.len() {
            let mut stream = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let byte = stream.read_u8().await.unwrap();
                stream.write_all(&[byte + 1]).await.unwrap();
            });
        }
        for (i, client) in clients.into_iter().enumerate() {
            assert_eq!(client.await.unwrap() as usize, i + 1);
        }
    }

    #[tokio::test]
    async fn a_living_server_keeps_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        assert!(!may_be_served(&path));
        assert!(nobody_serves(&connect(&path).await.unwrap_err()));
        let first = Listener::bind(&path).await.unwrap();
        assert!(may_be_served(&path));
        let second = Listener::bind(&path).await.map(drop);
        assert!(matches!(second, Err(ListenError::Taken(_))), "{second:?}");
        drop(first);
        assert!(!may_be_served(&path));
        Listener::bind(&path).await.unwrap();
    }
}
