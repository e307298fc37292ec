//! The application's end of a vsock connection, and the offer of one from the guest.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use longshore_protocol::received;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connections::{Connection, Connections, OpenError, Phase, State};

/// A byte stream to the guest. `shutdown` closes the writing direction only.
pub struct VsockStream {
    connections: Arc<Connections>,
    key: u64,
}

/// A connection that the guest wants. Dropping it refuses.
pub struct Incoming {
    stream: Option<VsockStream>,
    port: u32,
}

impl Incoming {
    pub(super) fn new(stream: VsockStream, port: u32) -> Self {
        Self {
            stream: Some(stream),
            port,
        }
    }

    /// The host port that the guest asked for.
    pub fn port(&self) -> u32 {
        self.port
    }

    pub fn accept(mut self) -> VsockStream {
        self.answer(Phase::Accepted)
            .expect("an offer is answered once")
    }

    pub fn refuse(mut self) {
        self.answer(Phase::Declined);
    }

    fn answer(&mut self, phase: Phase) -> Option<VsockStream> {
        let stream = self.stream.take()?;
        let mut state = stream.connections.lock();
        if let Some(connection) = state.entries.get_mut(&stream.key)
            && !connection.reset
        {
            connection.phase = phase;
            state.enqueue(stream.key);
        }
        drop(state);
        Some(stream)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.answer(Phase::Declined);
    }
}

impl VsockStream {
    pub(super) fn new(connections: Arc<Connections>, key: u64) -> Self {
        Self { connections, key }
    }

    /// Ready once the guest has answered our REQUEST.
    pub(super) fn poll_opened(&self, context: &mut Context<'_>) -> Poll<Result<(), OpenError>> {
        let mut state = self.connections.lock();
        let closed = state.is_closed();
        match state.entries.get_mut(&self.key) {
            None => Poll::Ready(Err(OpenError::Lost)),
            Some(_) if closed => Poll::Ready(Err(OpenError::Lost)),
            Some(connection) if connection.reset => Poll::Ready(Err(OpenError::Refused)),
            Some(connection) if connection.phase == Phase::Open => Poll::Ready(Ok(())),
            Some(connection) => {
                connection.read_waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn entry<'a>(&self, state: &'a mut State) -> io::Result<&'a mut Connection> {
        state
            .entries
            .get_mut(&self.key)
            .ok_or_else(|| io::ErrorKind::ConnectionReset.into())
    }
}

impl AsyncRead for VsockStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.connections.lock();
        let window = self.connections.limits.window;
        let connection = self.entry(&mut state)?;
        if connection.received.is_empty() {
            if connection.peer_finished || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if connection.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            connection.read_waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let length = received::take(&mut connection.received, buffer);
        connection.forwarded = connection.forwarded.wrapping_add(length as u32);
        if connection.must_tell(window) && !connection.reset {
            state.enqueue(self.key);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for VsockStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.connections.lock();
        let limit = self.connections.limits.send_buffer;
        let connection = self.entry(&mut state)?;
        if connection.finishing || connection.reset || connection.peer_deaf {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let length = bytes
            .len()
            .min(limit.saturating_sub(connection.unsent.len()));
        if length == 0 && !bytes.is_empty() {
            connection.write_waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        connection.unsent.extend(&bytes[..length]);
        state.enqueue(self.key);
        Poll::Ready(Ok(length))
    }

    /// Written bytes are always on their way; there is nothing to push.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.connections.lock();
        // A guest that has closed both ways already is no error: its last bytes may still wait to be read.
        if let Some(connection) = state.entries.get_mut(&self.key)
            && !connection.reset
        {
            connection.finishing = true;
            state.enqueue(self.key);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for VsockStream {
    fn drop(&mut self) {
        let mut state = self.connections.lock();
        let Some(connection) = state.entries.get_mut(&self.key) else {
            return;
        };
        connection.released = true;
        connection.received = VecDeque::new();
        connection.read_waker = None;
        connection.write_waker = None;
        if connection.reset || connection.phase == Phase::Wanted {
            state.remove(self.key);
        } else {
            state.enqueue(self.key);
        }
    }
}
