//! Bytes over a client's stream, with containerd's flow control: data follows window updates.

use std::io::{self, Write};

use bytes::Bytes;
use longshore_supervisor_api::types::transfer::{Data, WindowUpdate};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::unpack::ChannelReader;
use crate::streams::{ClientStream, any, from_any};

/// What the client may send ahead of our reading.
const WINDOW: i32 = 4 * 1024 * 1024;

/// A blocking reader of what the client sends.
pub fn receive(mut stream: ClientStream) -> ChannelReader {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let update = |update| Ok(any(&WindowUpdate { update }));
        if stream.outgoing.send(update(WINDOW)).await.is_err() {
            return;
        }
        let mut used = 0;
        loop {
            let data = match stream.incoming.message().await {
                Ok(Some(message)) => from_any::<Data>(&message).map_err(io::Error::other),
                Ok(None) => return,
                Err(status) => Err(io::Error::other(status)),
            };
            let failed = data.is_err();
            used += data.as_ref().map_or(0, |data| data.data.len() as i32);
            let chunk = data.map(|data| Bytes::from(data.data));
            if sender.send(chunk).await.is_err() || failed {
                return;
            }
            if used >= WINDOW / 2 {
                if stream.outgoing.send(update(used)).await.is_err() {
                    return;
                }
                used = 0;
            }
        }
    });
    ChannelReader::new(receiver)
}

/// One message's bytes at most, as containerd has it.
const CHUNK: usize = 32 * 1024;

/// The blocking end of what goes to the client.
pub struct StreamWriter(mpsc::Sender<Bytes>);

impl Write for StreamWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Bytes::copy_from_slice(bytes))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A blocking writer to the client, as its window allows. The task ends, with the stream, when all that the dropped
/// writer was given has been sent.
pub fn send(mut stream: ClientStream) -> (StreamWriter, JoinHandle<io::Result<()>>) {
    let (sender, mut queue) = mpsc::channel::<Bytes>(4);
    let task = tokio::spawn(async move {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let mut window: i64 = 0;
        while let Some(mut bytes) = queue.recv().await {
            while !bytes.is_empty() {
                while window <= 0 {
                    let message = stream.incoming.message().await.map_err(io::Error::other)?;
                    let message = message.ok_or_else(gone)?;
                    let update: WindowUpdate = from_any(&message).map_err(io::Error::other)?;
                    window += i64::from(update.update);
                }
                let part = bytes.split_to(bytes.len().min(CHUNK).min(window as usize));
                window -= part.len() as i64;
                let data = Data {
                    data: part.to_vec(),
                };
                stream
                    .outgoing
                    .send(Ok(any(&data)))
                    .await
                    .map_err(|_| gone())?;
            }
        }
        Ok(())
    });
    (StreamWriter(sender), task)
}
