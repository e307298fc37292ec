//! The application's end of a stream, and the offer of one from the peer.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    OpenError, Refusal,
    state::{Answer, Opening, Shared, State, Stream},
};
use crate::received;

/// A byte stream to the peer. `shutdown` closes the writing direction only; a stream that is dropped
/// before its `shutdown` sends what fits into the peer's credit and is then reset.
pub struct MuxStream {
    shared: Arc<Shared>,
    key: u64,
}

/// A stream that the peer wants to open. Dropping it refuses.
pub struct Incoming {
    stream: Option<MuxStream>,
    port: u32,
}

impl Incoming {
    pub(super) fn new(stream: MuxStream, port: u32) -> Self {
        Self {
            stream: Some(stream),
            port,
        }
    }

    /// The port that the peer asked for.
    pub fn port(&self) -> u32 {
        self.port
    }

    pub fn accept(mut self) -> MuxStream {
        // `answer` leaves the stream empty only when it is called twice, and both callers consume.
        self.answer(Answer::Accept)
            .expect("an offer is answered once")
    }

    pub fn refuse(mut self, reason: Refusal) {
        self.answer(Answer::Refuse(reason));
    }

    fn answer(&mut self, answer: Answer) -> Option<MuxStream> {
        let stream = self.stream.take()?;
        {
            let mut state = stream.shared.lock();
            if let Some(entry) = state.streams.get_mut(&stream.key)
                && !entry.reset
            {
                entry.answer = Some(answer);
                state.enqueue(stream.key);
            }
        }
        stream.shared.notify();
        Some(stream)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.answer(Answer::Refuse(Refusal::NoListener));
    }
}

impl MuxStream {
    pub(super) fn new(shared: Arc<Shared>, key: u64) -> Self {
        Self { shared, key }
    }

    /// Ready once the peer has answered our OPEN.
    pub(super) fn poll_opened(&self, context: &mut Context<'_>) -> Poll<Result<(), OpenError>> {
        let mut state = self.shared.lock();
        let Some(stream) = state.streams.get_mut(&self.key) else {
            return Poll::Ready(Err(OpenError::Lost));
        };
        match stream.opening {
            Opening::Refused(refusal) => Poll::Ready(Err(refusal.into())),
            _ if stream.reset => Poll::Ready(Err(OpenError::Lost)),
            Opening::Open => Poll::Ready(Ok(())),
            Opening::Wanted | Opening::Pending => {
                stream.read_waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The stream's entry, or what the application sees when the session took it away.
    fn entry<'a>(&self, state: &'a mut State) -> io::Result<&'a mut Stream> {
        state
            .streams
            .get_mut(&self.key)
            .ok_or_else(|| io::ErrorKind::ConnectionReset.into())
    }
}

impl AsyncRead for MuxStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        let half_window = state.limits.window / 2;
        let stream = self.entry(&mut state)?;
        if stream.received.is_empty() {
            if stream.peer_finished || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if stream.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            stream.read_waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let length = received::take(&mut stream.received, buffer);
        stream.consumed += length as u32;
        if stream.consumed >= half_window && !stream.peer_finished && !stream.reset {
            state.enqueue(self.key);
            drop(state);
            self.shared.notify();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MuxStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.shared.lock();
        let limit = state.limits.send_buffer;
        let stream = self.entry(&mut state)?;
        if stream.finishing || stream.reset {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let length = bytes.len().min(limit.saturating_sub(stream.unsent.len()));
        if length == 0 && !bytes.is_empty() {
            stream.write_waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        stream.unsent.extend(&bytes[..length]);
        state.enqueue(self.key);
        drop(state);
        self.shared.notify();
        Poll::Ready(Ok(length))
    }

    /// Written bytes are always on their way; there is nothing to push.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        let stream = match self.entry(&mut state) {
            Ok(stream) if !stream.reset => stream,
            // A peer that has closed both ways already; its last bytes may still wait to be read.
            _ => return Poll::Ready(Ok(())),
        };
        stream.finishing = true;
        state.enqueue(self.key);
        drop(state);
        self.shared.notify();
        Poll::Ready(Ok(()))
    }
}

impl Drop for MuxStream {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let Some(stream) = state.streams.get_mut(&self.key) else {
            return;
        };
        stream.released = true;
        stream.received = VecDeque::new();
        stream.read_waker = None;
        stream.write_waker = None;
        // A stream that was refused or reset, or whose OPEN never left, is only forgotten here.
        let unspoken = stream.opening == Opening::Wanted;
        let refusing = matches!(stream.answer, Some(Answer::Refuse(_)));
        if (stream.reset || unspoken) && !refusing {
            let key = self.key;
            state.remove(key);
            return;
        }
        state.enqueue(self.key);
        drop(state);
        self.shared.notify();
    }
}
