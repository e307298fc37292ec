//! Local sockets to guest streams: bytes both ways, each direction closed on its own, and no stream left behind by a client
//! that is gone.

use std::{io, sync::Arc, time::Duration};

use longshore_local_socket::{Listener, Stream as Client, hung_up, split};
use longshore_protocol::ports::MAX_CHANNEL_CLIENTS;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Semaphore,
    time::timeout,
};

use crate::{Channel, ChannelError, Stream, hybrid};

/// A client that does not say which port it wants does not keep its place.
const GREETING_LIMIT: Duration = Duration::from_secs(10);
/// Bytes in flight for each direction of a stream.
const BUFFER: usize = 32 * 1024;

/// Serves hybrid vsock for `channel` until the task is dropped.
pub async fn serve(mut listener: Listener, channel: Arc<dyn Channel>) {
    // More wait in the listener's backlog.
    let places = Arc::new(Semaphore::new(MAX_CHANNEL_CLIENTS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let client = match listener.accept().await {
            Ok(client) => client,
            Err(error) => {
                // Out of descriptors: the ones in use must end first.
                tracing::warn!(%error, "accept on the channel's socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let channel = channel.clone();
        tokio::spawn(async move {
            if let Err(error) = serve_client(client, &*channel).await {
                tracing::debug!(%error, "a client of the channel");
            }
            drop(place);
        });
    }
}

async fn serve_client(mut client: Client, channel: &dyn Channel) -> io::Result<()> {
    let port = timeout(GREETING_LIMIT, hybrid::read_port(&mut client)).await??;
    let connected = tokio::select! {
        connected = channel.connect(port) => connected,
        // A client that gives up while the guest boots.
        () = hung_up(&client) => return Ok(()),
    };
    match connected {
        Ok(stream) => {
            hybrid::answer(&mut client, Ok(port)).await?;
            relay(client, stream).await;
            Ok(())
        }
        Err(error) => {
            let reason = match &error {
                ChannelError::Refused { reason, .. } => reason.clone(),
                other => other.to_string(),
            };
            hybrid::answer(&mut client, Err(&reason)).await
        }
    }
}

/// Carries bytes both ways until both directions have ended, or either side is gone altogether.
pub async fn relay(client: Client, stream: impl Stream) {
    let gone = hung_up(&client);
    let (client_reader, client_writer) = split(client);
    let (stream_reader, stream_writer) = tokio::io::split(stream);
    let both = async {
        tokio::try_join!(
            copy(client_reader, stream_writer),
            copy(stream_reader, client_writer)
        )
    };
    tokio::select! {
        _ = both => {}
        () = gone => {}
    }
}

/// Copies to the end of `from`, then closes `to` for writing. A receiver that takes no more ends this direction only; a sender
/// that breaks off is an error, which ends both.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            let _ = to.shutdown().await;
            return Ok(());
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serial::SerialChannel;
    use longshore_protocol::mux::{Limits, Mux, Role};
    use tokio::io::duplex;

    struct Both {
        _dir: tempfile::TempDir,
        path: std::path::PathBuf,
        guest: Mux,
    }

    async fn start() -> Both {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("channel.sock");
        let (host, guest) = duplex(4096);
        let channel = Arc::new(SerialChannel::new(host));
        tokio::spawn(serve(Listener::bind(&path).await.unwrap(), channel));
        Both {
            _dir: dir,
            path,
            guest: Mux::new(guest, Role::Guest, Limits::default()),
        }
    }

    #[tokio::test]
    async fn half_close_passes_through_and_the_answer_still_comes() {
        let both = start().await;
        let echo = async {
            let mut stream = both.guest.accept().await.unwrap().accept();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            stream
                .write_all(text.to_uppercase().as_bytes())
                .await
                .unwrap();
            stream.shutdown().await.unwrap();
        };
        let ask = async {
            let mut client = hybrid::connect(&both.path, 9).await.unwrap();
            client.write_all(b"hello").await.unwrap();
            client.shutdown().await.unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).await.unwrap();
            text
        };
        let (text, ()) = timeout(GREETING_LIMIT, async { tokio::join!(ask, echo) })
            .await
            .unwrap();
        assert_eq!(text, "HELLO");
    }

    #[tokio::test]
    async fn a_client_that_vanishes_after_its_half_close_resets_the_stream() {
        let both = start().await;
        let mut clients = Vec::new();
        for _ in 0..2 {
            let (client, mut stream) = tokio::join!(hybrid::connect(&both.path, 9), async {
                both.guest.accept().await.unwrap().accept()
            });
            let mut client = client.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            clients.push((client, stream));
        }
        let (client, mut stream) = clients.pop().unwrap();
        drop(client);
        let failed = async {
            while stream.write_all(b"x").await.is_ok() {
                tokio::task::yield_now().await
            }
        };
        timeout(GREETING_LIMIT, failed)
            .await
            .expect("the write fails soon");
        // The other one, only half closed, still receives.
        let (mut client, mut stream) = clients.pop().unwrap();
        stream.write_all(b"still").await.unwrap();
        let mut text = [0; 5];
        timeout(GREETING_LIMIT, client.read_exact(&mut text))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&text, b"still");
    }

    #[tokio::test]
    async fn a_refusal_is_told() {
        let both = start().await;
        let refuse = async { drop(both.guest.accept().await.unwrap()) };
        let (answer, ()) = tokio::join!(hybrid::connect(&both.path, 9), refuse);
        assert_eq!(
            answer.unwrap_err().to_string(),
            "nobody listens on this port"
        );
    }
}
