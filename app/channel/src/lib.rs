//! Byte streams between the host and numbered guest ports: a vsock device, and a multiplexed virtio-serial port.
//!
//! It does not know what flows in them, who runs QEMU, or what the ports mean. Both implementations of [`Channel`] keep the
//! same contract: half-close in each direction, back-pressure per stream, refusal at once where nobody listens, and bounds on
//! everything that the guest can make the host hold.

use std::io;

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

pub mod hybrid;
mod listeners;
pub mod relay;
pub mod serial;
#[cfg(target_os = "linux")]
pub mod vsock;

/// A byte stream to the guest; `shutdown` closes the writing direction only.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub type BoxStream = Box<dyn Stream>;

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("the guest refused port {port}: {reason}")]
    Refused { port: u32, reason: String },
    #[error("the channel to the guest was lost while connecting to port {port}")]
    Lost { port: u32 },
    #[error("someone listens on host port {port} already")]
    InUse { port: u32 },
    #[error("set up the channel: {0}")]
    SetUp(#[source] io::Error),
}

/// Streams to and from numbered ports of one guest.
#[async_trait]
pub trait Channel: Send + Sync {
    /// Connects to a guest port; waits while the guest's side is not up. Cancel safe.
    async fn connect(&self, port: u32) -> Result<BoxStream, ChannelError>;

    /// Takes the guest's connections to a host port, until the listener is dropped. Every other port is refused.
    fn listen(&self, port: u32) -> Result<Listener, ChannelError>;

    /// `serial` or `vsock`.
    fn name(&self) -> &'static str;
}

/// Connections of the guest to one host port.
pub struct Listener {
    streams: mpsc::Receiver<BoxStream>,
}

impl Listener {
    /// The next connection; nothing once the channel has ended.
    pub async fn accept(&mut self) -> Option<BoxStream> {
        self.streams.recv().await
    }
}
