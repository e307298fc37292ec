//! The channel over vsock: a vhost-user device of our own, so that no kernel on the host needs AF_VSOCK.
//!
//! ```text
//!   streams ──▶ connections (state, no I/O) ──▶ device (virtqueues, one thread) ══▶ guest
//! ```
//! It follows the socket device of the virtio specification (1.2, section 5.10). The guest's memory is read once, every
//! length is checked, and what a guest can make us hold is bounded by `connections::Limits`.

mod connections;
mod device;
mod packet;
mod stream;

use std::{future::poll_fn, path::Path, sync::Arc};

use async_trait::async_trait;
use tokio::task::JoinHandle;
use vhost_user_backend::{VhostUserBackend, VringMutex};

pub use self::connections::Limits;
use self::{
    connections::{Connections, OpenError},
    device::{Backend, Device},
};
use crate::{BoxStream, Channel, ChannelError, Listener, listeners::Listeners};

/// A context id is private to each device; the host is always 2.
pub const GUEST_CID: u64 = 3;

/// The host's end, with its device.
pub struct VsockChannel {
    connections: Arc<Connections>,
    listeners: Listeners,
    accepting: JoinHandle<()>,
    _device: Option<Device>,
}

impl VsockChannel {
    /// Listens for QEMU on `socket`; needs a tokio runtime.
    pub fn new(socket: &Path) -> Result<Self, ChannelError> {
        let connections = Arc::new(Connections::new(GUEST_CID, Limits::default()));
        let device = Device::start(socket, connections.clone()).map_err(ChannelError::SetUp)?;
        Ok(Self::over(connections, Some(device)))
    }

    /// The channel and its device, whose queues and events are the caller's: for whoever plays the guest. Nothing tells the
    /// caller of work; needs a tokio runtime.
    pub fn unattached(
        limits: Limits,
    ) -> (Self, impl VhostUserBackend<Bitmap = (), Vring = VringMutex>) {
        let connections = Arc::new(Connections::new(GUEST_CID, limits));
        let device = Backend::new(connections.clone());
        (Self::over(connections, None), device)
    }

    fn over(connections: Arc<Connections>, device: Option<Device>) -> Self {
        let listeners = Listeners::default();
        let accepting = tokio::spawn(accept(connections.clone(), listeners.clone()));
        Self {
            connections,
            listeners,
            accepting,
            _device: device,
        }
    }

    /// Ends every stream, as when the guest is gone.
    pub fn close(&self) {
        self.connections.close();
    }
}

async fn accept(connections: Arc<Connections>, listeners: Listeners) {
    while let Some(incoming) = poll_fn(|context| connections.poll_incoming(context)).await {
        match listeners.reserve(incoming.port()) {
            Some(place) => {
                place.send(Box::new(incoming.accept()));
            }
            None => incoming.refuse(),
        }
    }
}

impl Drop for VsockChannel {
    fn drop(&mut self) {
        self.accepting.abort();
        self.close();
    }
}

#[async_trait]
impl Channel for VsockChannel {
    async fn connect(&self, port: u32) -> Result<BoxStream, ChannelError> {
        let refused = |reason: &str| ChannelError::Refused {
            port,
            reason: reason.to_owned(),
        };
        let to_error = |error| match error {
            OpenError::Refused => refused("nobody listens on this port"),
            OpenError::TooMany => refused("too many streams are open"),
            OpenError::Lost => ChannelError::Lost { port },
        };
        let stream = self.connections.open(port).map_err(to_error)?;
        poll_fn(|context| stream.poll_opened(context))
            .await
            .map_err(to_error)?;
        Ok(Box::new(stream))
    }

    fn listen(&self, port: u32) -> Result<Listener, ChannelError> {
        self.listeners.listen(port)
    }

    fn name(&self) -> &'static str {
        "vsock"
    }
}
