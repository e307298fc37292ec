//! Who takes the guest's connections, by host port.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::sync::mpsc;

use crate::{BoxStream, ChannelError, Listener};

/// Connections that wait to be accepted, for each port; more are refused.
const BACKLOG: usize = 64;

#[derive(Clone, Default)]
pub(crate) struct Listeners(Arc<Mutex<HashMap<u32, mpsc::Sender<BoxStream>>>>);

impl Listeners {
    pub fn listen(&self, port: u32) -> Result<Listener, ChannelError> {
        let mut ports = self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if ports.get(&port).is_some_and(|sender| !sender.is_closed()) {
            return Err(ChannelError::InUse { port });
        }
        let (sender, streams) = mpsc::channel(BACKLOG);
        ports.insert(port, sender);
        Ok(Listener { streams })
    }

    /// A place in the backlog of a port, if somebody listens and there is one.
    pub fn reserve(&self, port: u32) -> Option<mpsc::OwnedPermit<BoxStream>> {
        let ports = self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        ports.get(&port)?.clone().try_reserve_owned().ok()
    }
}
