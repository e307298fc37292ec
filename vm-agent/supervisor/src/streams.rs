//! Streams that clients open beside a request (progress, archives, credentials), found by their id.

use std::collections::HashMap;
use std::sync::Mutex;

use prost::Message;
use prost_types::Any;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::error::{Error, Result};

/// The supervisor's end of a stream. Dropping it ends the client's call.
pub struct ClientStream {
    pub incoming: Streaming<Any>,
    pub outgoing: mpsc::Sender<std::result::Result<Any, Status>>,
}

#[derive(Default)]
pub struct Streams(Mutex<HashMap<(String, String), ClientStream>>);

/// More unclaimed streams than any client opens.
const LIMIT: usize = 1024;

impl Streams {
    pub fn register(&self, namespace: &str, id: &str, stream: ClientStream) -> Result<()> {
        let mut streams = self.0.lock().expect("no panic under this lock");
        streams.retain(|_, stream| !stream.outgoing.is_closed());
        if streams.len() >= LIMIT {
            return Err(Error::Unavailable("too many streams".into()));
        }
        let key = (namespace.to_owned(), id.to_owned());
        if streams.contains_key(&key) {
            return Err(Error::AlreadyExists(format!("stream {id:?}")));
        }
        streams.insert(key, stream);
        Ok(())
    }

    pub fn take(&self, namespace: &str, id: &str) -> Result<ClientStream> {
        self.0
            .lock()
            .expect("no panic under this lock")
            .remove(&(namespace.to_owned(), id.to_owned()))
            .ok_or_else(|| Error::NotFound(format!("stream {id:?}")))
    }
}

/// A message as containerd's `typeurl` writes it: the bare name, no `type.googleapis.com/`.
pub fn any<M: Message + prost::Name>(message: &M) -> Any {
    Any {
        type_url: M::full_name(),
        value: message.encode_to_vec(),
    }
}

/// Reads a message out of an `Any`, whatever prefix its type URL has.
pub fn from_any<M: Message + prost::Name + Default>(any: &Any) -> Result<M> {
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    if name != M::full_name() {
        return Err(Error::InvalidArgument(format!(
            "want {}, got {:?}",
            M::full_name(),
            name
        )));
    }
    M::decode(&any.value[..])
        .map_err(|e| Error::InvalidArgument(format!("decoding {}: {e}", M::full_name())))
}
