//! Taking clients in, so many at a time, until told to end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What clients come through.
pub trait Entrance: Send {
    type Client: Send + 'static;
    fn next(&mut self) -> impl Future<Output = io::Result<Self::Client>> + Send;
}

impl Entrance for TcpListener {
    type Client = TcpStream;
    async fn next(&mut self) -> io::Result<TcpStream> {
        self.accept().await.map(|(client, _)| client)
    }
}

impl Entrance for longshore_local_socket::Listener {
    type Client = longshore_local_socket::Stream;
    async fn next(&mut self) -> io::Result<Self::Client> {
        self.accept().await
    }
}

/// Serves each client in a task of its own, which holds one of `slots`; more wait in the listener's backlog.
/// `what` clients these are, for the log.
pub async fn accept<E: Entrance, F>(
    mut entrance: E,
    slots: Arc<Semaphore>,
    end: CancellationToken,
    what: &str,
    serve: impl Fn(E::Client) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = entrance.next() => accepted,
            () = end.cancelled() => return,
        };
        match accepted {
            Ok(client) => {
                let served = serve(client);
                tokio::spawn(async move {
                    served.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept {what}");
                // Out of descriptors: only time helps, and a loop at full speed would not.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
