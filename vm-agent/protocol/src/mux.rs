//! Many byte streams over one: credit per stream, half-close, fair turns, and a session that survives
//! either side's death.
//!
//! ```text
//!   connecting ──HELLO that acknowledges our nonce──▶ up
//!       ▲                                             │
//!       └──peer's new HELLO, bytes that are no frame──┘   every stream is reset, a new nonce is sent
//! ```
//! It does not know what carries it (a virtio-serial port, a socket, a pipe in a test) nor what the
//! ports mean. What the peer sends is bounded: streams by [`Limits::max_streams`], bytes of a stream
//! by [`Limits::window`], answers by the streams that may exist.

mod frame;
mod state;
mod stream;

use std::{future::poll_fn, io, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    task::JoinHandle,
};

pub use self::stream::{Incoming, MuxStream};
use self::{
    frame::{Decoder, MAX_PAYLOAD, OVERHEAD},
    state::Shared,
};

/// Which end this is: the host's streams have even numbers, the guest's odd ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Host,
    Guest,
}

/// What one peer can make this side hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Streams that exist at once, opened from either side.
    pub max_streams: usize,
    /// Bytes received and not yet read, for each stream.
    pub window: u32,
    /// Bytes written and not yet sent, for each stream.
    pub send_buffer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_streams: crate::ports::MAX_STREAMS,
            window: 256 * 1024,
            send_buffer: 128 * 1024,
        }
    }
}

/// Why the peer refused a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("nobody listens on this port")]
    NoListener,
    #[error("this port is not allowed")]
    NotAllowed,
    #[error("too many streams are open")]
    TooManyStreams,
    #[error("the other side is going away")]
    GoingAway,
    #[error("refused (reason {0})")]
    Other(u8),
}

impl Refusal {
    fn code(self) -> u8 {
        match self {
            Self::NoListener => 1,
            Self::NotAllowed => 2,
            Self::TooManyStreams => 3,
            Self::GoingAway => 4,
            Self::Other(code) => code,
        }
    }

    fn from_code(code: u8) -> Self {
        match code {
            1 => Self::NoListener,
            2 => Self::NotAllowed,
            3 => Self::TooManyStreams,
            4 => Self::GoingAway,
            other => Self::Other(other),
        }
    }
}

/// Why a stream could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the connection to the other side was lost while opening a stream")]
    Lost,
}

/// Where the session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// The peer has not answered our HELLO yet.
    Connecting,
    /// Both sides know each other; the number grows with every new session.
    Up(u64),
    /// The carrier ended; nothing will come any more.
    Closed,
}

/// A multiplexer over one carrier. Clones share it; when the last is dropped, all streams end.
#[derive(Clone)]
pub struct Mux {
    shared: Arc<Shared>,
    _tasks: Arc<Tasks>,
}

struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Mux {
    /// Starts to speak over `io`; must be called inside a tokio runtime.
    pub fn new<T>(io: T, role: Role, limits: Limits) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reader, writer) = tokio::io::split(io);
        Self::from_halves(reader, writer, role, limits)
    }

    /// As [`Mux::new`], for a carrier that comes in two halves.
    pub fn from_halves<R, W>(reader: R, writer: W, role: Role, limits: Limits) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let shared = Arc::new(Shared::new(role, limits));
        let (from_reader, from_writer) = (shared.clone(), shared.clone());
        let tasks = vec![
            tokio::spawn(async move {
                let closing = Closing(&from_reader);
                let end = read_frames(reader, &from_reader).await;
                tracing::debug!(?end, "the carrier's reading side ended");
                drop(closing);
            }),
            tokio::spawn(async move {
                let closing = Closing(&from_writer);
                let end = write_frames(writer, &from_writer).await;
                tracing::debug!(?end, "the carrier's writing side ended");
                drop(closing);
            }),
        ];
        Self {
            shared,
            _tasks: Arc::new(Tasks(tasks)),
        }
    }

    /// Opens a stream to `port`; waits for a session and for the peer's answer. Cancel safe.
    pub async fn open(&self, port: u32) -> Result<MuxStream, OpenError> {
        let mut session = self.session();
        session
            .wait_for(|session| *session != Session::Connecting)
            .await
            .map_err(|_| OpenError::Lost)?;
        let stream = self.shared.open(port)?;
        poll_fn(|context| stream.poll_opened(context)).await?;
        Ok(stream)
    }

    /// The peer's next stream, to be accepted or refused; nothing once the carrier ended. Cancel safe.
    pub async fn accept(&self) -> Option<Incoming> {
        poll_fn(|context| self.shared.poll_incoming(context)).await
    }

    /// Follows the session: when it comes up, is replaced by a restarted peer's, or ends.
    pub fn session(&self) -> watch::Receiver<Session> {
        self.shared.session()
    }

    /// Waits until the carrier has ended.
    pub async fn closed(&self) {
        // An error means that the sender is gone, which is the same news.
        let _ = self
            .session()
            .wait_for(|session| *session == Session::Closed)
            .await;
    }
}

/// Ends the session when the task that holds it ends, is aborted or panics.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn read_frames(mut reader: impl AsyncRead + Unpin, shared: &Shared) -> io::Result<()> {
    let mut decoder = Decoder::default();
    loop {
        decoder.buffer.reserve(2 * (MAX_PAYLOAD + OVERHEAD));
        tokio::select! {
            read = reader.read_buf(&mut decoder.buffer) => if read? == 0 {
                return Ok(());
            },
            () = shared.closed() => return Ok(()),
        }
        shared.receive(&mut decoder);
    }
}

async fn write_frames(mut writer: impl AsyncWrite + Unpin, shared: &Shared) -> io::Result<()> {
    let mut batch = Vec::new();
    frame::encode_padding(&mut batch);
    loop {
        shared.fill(&mut batch);
        if batch.is_empty() {
            // Not an error: the carrier may buffer.
            writer.flush().await?;
            shared.work().await;
            if shared.is_closed() {
                return Ok(());
            }
            continue;
        }
        tokio::select! {
            written = writer.write_all(&batch) => written?,
            () = shared.closed() => return Ok(()),
        }
        batch.clear();
    }
}

#[cfg(test)]
mod tests;
