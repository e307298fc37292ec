//! The channel over one virtio-serial port: `longshore_protocol::mux` on the socket of QEMU's chardev.

use async_trait::async_trait;
use longshore_protocol::mux::{Limits, Mux, OpenError, Refusal, Role};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
};

use crate::{BoxStream, Channel, ChannelError, Listener, listeners::Listeners};

/// The host's end.
pub struct SerialChannel {
    mux: Mux,
    listeners: Listeners,
    accepting: JoinHandle<()>,
}

impl SerialChannel {
    /// Starts to speak over the chardev's socket; needs a tokio runtime.
    pub fn new<T: AsyncRead + AsyncWrite + Send + 'static>(io: T) -> Self {
        let mux = Mux::new(io, Role::Host, Limits::default());
        let listeners = Listeners::default();
        let accepting = tokio::spawn(accept(mux.clone(), listeners.clone()));
        Self {
            mux,
            listeners,
            accepting,
        }
    }
}

async fn accept(mux: Mux, listeners: Listeners) {
    while let Some(incoming) = mux.accept().await {
        match listeners.reserve(incoming.port()) {
            Some(place) => {
                place.send(Box::new(incoming.accept()));
            }
            None => incoming.refuse(Refusal::NoListener),
        }
    }
}

impl Drop for SerialChannel {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[async_trait]
impl Channel for SerialChannel {
    async fn connect(&self, port: u32) -> Result<BoxStream, ChannelError> {
        match self.mux.open(port).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(OpenError::Refused(reason)) => Err(ChannelError::Refused {
                port,
                reason: reason.to_string(),
            }),
            Err(OpenError::Lost) => Err(ChannelError::Lost { port }),
        }
    }

    fn listen(&self, port: u32) -> Result<Listener, ChannelError> {
        self.listeners.listen(port)
    }

    fn name(&self) -> &'static str {
        "serial"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn the_guest_reaches_only_ports_that_are_listened_on() {
        let (host, guest) = duplex(4096);
        let channel = SerialChannel::new(host);
        let guest = Mux::new(guest, Role::Guest, Limits::default());
        let mut listener = channel.listen(5).unwrap();
        assert!(matches!(
            channel.listen(5),
            Err(ChannelError::InUse { port: 5 })
        ));
        let refused = guest.open(6).await.err();
        assert_eq!(refused, Some(OpenError::Refused(Refusal::NoListener)));
        let mut near = guest.open(5).await.unwrap();
        near.write_all(b"hi").await.unwrap();
        let mut far = listener.accept().await.unwrap();
        let mut text = [0; 2];
        far.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hi");
        drop(listener);
        let refused = guest.open(5).await.err();
        assert_eq!(refused, Some(OpenError::Refused(Refusal::NoListener)));
    }
}
