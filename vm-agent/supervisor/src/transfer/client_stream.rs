//! Bytes over a client's stream, with containerd's flow control: data follows window updates.

use std::io;

use bytes::Bytes;
use longshore_supervisor_api::types::transfer::{Data, WindowUpdate};
use tokio::sync::mpsc;

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
