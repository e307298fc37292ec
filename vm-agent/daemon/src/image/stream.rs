//! Streams of containerd's transfer service: progress, archives with flow control, and credentials.
//!
//! A stream is opened by its name before the transfer that uses it is asked for
//! (containerd, `docs/transfer.md`, "Streaming").

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use longshore_supervisor_api::to_any;
use prost::{Message, Name};
use prost_types::Any;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::error::{ApiError, ApiResult};
use crate::supervisor::Supervisor;
use crate::supervisor::api::StreamInit;
use crate::supervisor::api::types::transfer::{Data, WindowUpdate};

/// One chunk at most: containerd's own number.
const CHUNK: usize = 32 * 1024;
/// What may be under way to us. containerd's client allows 64 KiB; more saves waiting for each round.
const WINDOW: i32 = 1 << 20;
/// Zero bytes that end a tar archive.
const END_MARK: usize = 1024;
/// What a finished transfer sent is on its way at most this long.
const LATE: Duration = Duration::from_secs(10);

/// Both halves of an open stream.
pub struct TransferStream {
    pub id: String,
    outgoing: mpsc::Sender<Any>,
    incoming: Streaming<Any>,
}

/// Opens a stream under a fresh name.
pub async fn open(supervisor: &Supervisor, purpose: &str) -> ApiResult<TransferStream> {
    let id = format!(
        "{purpose}-{}",
        crate::identity::short(&crate::identity::new_id())
    );
    let (outgoing, queue) = mpsc::channel(4);
    let init = to_any(&StreamInit { id: id.clone() });
    outgoing
        .send(init)
        .await
        .map_err(|_| ApiError::internal("transfer stream closed"))?;
    let mut incoming = supervisor
        .streaming()
        .stream(ReceiverStream::new(queue))
        .await?
        .into_inner();
    // The server acknowledges the name; only then may it be used.
    incoming.message().await?;
    Ok(TransferStream {
        id,
        outgoing,
        incoming,
    })
}

/// Decodes a message of the expected type; `None` for any other.
pub fn decode<T: Message + Default + Name>(any: &Any) -> Option<T> {
    let name = any.type_url.rsplit('/').next()?;
    (name == T::full_name()).then(|| T::decode(any.value.as_slice()).ok())?
}

impl TransferStream {
    /// The next message from the server.
    pub async fn receive<T: Message + Default + Name>(&mut self) -> Option<T> {
        loop {
            match self.incoming.message().await {
                Ok(Some(any)) => {
                    if let Some(message) = decode(&any) {
                        return Some(message);
                    }
                }
                _ => return None,
            }
        }
    }

    pub async fn send<T: Message + Name>(&self, message: &T) -> bool {
        self.outgoing.send(to_any(message)).await.is_ok()
    }

    /// Sends an archive as the server's window allows; ends our half at its end.
    pub async fn send_archive<S>(mut self, mut archive: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<Bytes>> + Unpin,
    {
        let mut window: i64 = 0;
        while let Some(part) = archive.next().await {
            let mut part = part?;
            while !part.is_empty() {
                while window <= 0 {
                    let Some(update) = self.receive::<WindowUpdate>().await else {
                        return Ok(()); // The transfer has ended early and says why itself.
                    };
                    window += i64::from(update.update);
                }
                let chunk = part.split_to(part.len().min(CHUNK).min(window as usize));
                window -= chunk.len() as i64;
                if !self
                    .send(&Data {
                        data: chunk.to_vec(),
                    })
                    .await
                {
                    return Ok(());
                }
            }
        }
        let Self {
            outgoing,
            mut incoming,
            ..
        } = self;
        drop(outgoing);
        // The server reads to the end before it closes; dropping our half earlier would reset the stream.
        while let Ok(Some(_)) = incoming.message().await {}
        Ok(())
    }

    /// A tar archive from the server, paced by what the reader takes, as far as `transfer` succeeds.
    ///
    /// containerd leaves the stream open after the last byte, so the archive's own end mark (POSIX `pax`:
    /// 1024 zero bytes) tells when everything has come that a finished transfer sent.
    pub fn receive_archive(
        mut self,
        mut transfer: JoinHandle<Result<(), Status>>,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        async_stream::try_stream! {
            let (mut owed, mut zeroes, mut finished) = (WINDOW, 0, false);
            let mut failure = None;
            loop {
                if owed >= WINDOW / 4 {
                    self.send(&WindowUpdate { update: owed }).await;
                    owed = 0;
                }
                if finished && zeroes >= END_MARK {
                    break;
                }
                let data = tokio::select! {
                    data = self.receive::<Data>() => data,
                    done = &mut transfer, if !finished => {
                        failure = outcome(done).err();
                        if failure.is_some() {
                            break;
                        }
                        finished = true;
                        continue;
                    }
                    () = tokio::time::sleep(LATE), if finished => None,
                };
                let Some(Data { data }) = data else { break };
                owed += data.len() as i32;
                zeroes = match data.iter().rev().take_while(|byte| **byte == 0).count() {
                    all if all == data.len() => zeroes + all,
                    some => some,
                };
                yield Bytes::from(data);
            }
            if let Some(error) = failure {
                Err(error)?;
            }
            if !finished {
                outcome(transfer.await)?;
            }
            if zeroes < END_MARK {
                Err(io::Error::other("the archive ended early"))?;
            }
        }
    }
}

fn outcome(done: Result<Result<(), Status>, JoinError>) -> io::Result<()> {
    done.map_err(io::Error::other)?
        .map_err(|status| io::Error::other(status.message().to_owned()))
}
