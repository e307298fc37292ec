//! Named pipes, which have no files: the path is only where their names come from.
//!
//! Messages, not bytes, so that an empty message can say that a direction has ended: pipes know no half-close of their own.
//! Docker's clients and engine on Windows do the same, so that `docker run -i` sees the end of its input.

use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, OwnedHandle};
use std::path::Path;
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::windows::named_pipe::{
    ClientOptions, NamedPipeClient, NamedPipeServer, PipeMode, ServerOptions,
};
use tokio::time::{Instant, sleep};
use windows_sys::Win32::Foundation::{ERROR_FILE_NOT_FOUND, ERROR_PIPE_BUSY};
use windows_sys::Win32::System::Pipes::{
    GetNamedPipeServerProcessId, PeekNamedPipe, WaitNamedPipeW,
};

use crate::ListenError;

mod security;

pub type ReadHalf = tokio::io::ReadHalf<Stream>;
pub type WriteHalf = tokio::io::WriteHalf<Stream>;

/// A server that is so slow to take its next client is stuck.
const BUSY_LIMIT: Duration = Duration::from_secs(20);
/// Pipes have no backlog: a client that comes too early tries again.
const BUSY_INTERVAL: Duration = Duration::from_millis(5);
/// How soon a client that is gone is noticed: nothing tells of it.
const HANG_UP_INTERVAL: Duration = Duration::from_secs(1);

/// Pipes of all programs and users share one flat name space, so that a digest of the path keeps instances apart.
fn name(path: &Path) -> String {
    // Paths that differ only in case are one file here.
    let folded = path.to_string_lossy().to_lowercase();
    let digest = Sha256::digest(folded.as_bytes());
    let digest: String = digest[..6].iter().map(|b| format!("{b:02x}")).collect();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    format!("longshore-{digest}-{stem}")
}

fn full_name(path: &Path) -> String {
    format!(r"\\.\pipe\{}", name(path))
}

/// The socket's name for Docker clients: the form of `DOCKER_HOST`.
pub fn address(path: &Path) -> String {
    format!("npipe:////./pipe/{}", name(path))
}

/// False if nobody can be serving there.
pub fn may_be_served(path: &Path) -> bool {
    let name: Vec<u16> = full_name(path).encode_utf16().chain([0]).collect();
    // SAFETY: the name ends with a zero; 1 ms is the shortest wait, as 0 means the server's default.
    let free = unsafe { WaitNamedPipeW(name.as_ptr(), 1) } != 0;
    free || io::Error::last_os_error().raw_os_error() != Some(ERROR_FILE_NOT_FOUND as i32)
}

/// Connects; the server learns who we are, and can do nothing in our name (that is tokio's default).
pub async fn connect(path: &Path) -> io::Result<Stream> {
    let deadline = Instant::now() + BUSY_LIMIT;
    let name = full_name(path);
    loop {
        match ClientOptions::new()
            .pipe_mode(PipeMode::Message)
            .open(&name)
        {
            Ok(pipe) => return Ok(Stream::new(Pipe::Client(pipe))),
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                sleep(BUSY_INTERVAL).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(ERROR_PIPE_BUSY as i32)
}

/// The number of the process that serves the stream's other end.
pub fn server_process(stream: &Stream) -> Option<u32> {
    let Pipe::Client(pipe) = &stream.pipe else {
        return None;
    };
    let mut process = 0;
    // SAFETY: the handle is open for as long as the stream is borrowed, and the number is written to a variable of ours.
    let told = unsafe { GetNamedPipeServerProcessId(pipe.as_raw_handle(), &mut process) } != 0;
    told.then_some(process)
}

pub fn split(stream: Stream) -> (ReadHalf, WriteHalf) {
    tokio::io::split(stream)
}

/// A pipe that is served. What mode 0600 is to a socket's file are three things here: the access list names this user alone,
/// clients on other machines are rejected, and the name is made by us first or not at all, so that no stranger's pipe of that
/// name is joined. Once it is made, only who the access list names can add to it.
pub struct Listener {
    /// Waits for the next client; it is made before the present one is handed out, so that the name never goes away.
    next: NamedPipeServer,
    name: String,
}

impl Listener {
    pub async fn bind(path: &Path) -> Result<Self, ListenError> {
        let name = full_name(path);
        match instance(&name, true) {
            Ok(next) => Ok(Self { next, name }),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                Err(ListenError::Taken(path.to_owned()))
            }
            Err(e) => Err(ListenError::Bind(path.to_owned(), e)),
        }
    }

    /// The next client. Cancel safe.
    pub async fn accept(&mut self) -> io::Result<Stream> {
        if let Err(error) = self.next.connect().await {
            // A client that came and went: this instance serves no other before it lets go of that one.
            let _ = self.next.disconnect();
            return Err(error);
        }
        // If this fails, the client stays connected, and the next call hands it out.
        let fresh = instance(&self.name, false)?;
        let pipe = std::mem::replace(&mut self.next, fresh);
        Ok(Stream::new(Pipe::Server(pipe)))
    }
}

fn instance(name: &str, first: bool) -> io::Result<NamedPipeServer> {
    let mut options = ServerOptions::new();
    options
        .pipe_mode(PipeMode::Message)
        .reject_remote_clients(true)
        .first_pipe_instance(first);
    security::create_private(&options, name)
}

#[derive(Debug)]
enum Pipe {
    Server(NamedPipeServer),
    Client(NamedPipeClient),
}

/// One end of a connection.
#[derive(Debug)]
pub struct Stream {
    pipe: Pipe,
    /// The other end has said that nothing more comes.
    ended: bool,
    /// We have said it.
    shut: bool,
}

impl Stream {
    fn new(pipe: Pipe) -> Self {
        Self {
            pipe,
            ended: false,
            shut: false,
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.pipe {
            Pipe::Server(pipe) => Pin::new(pipe).poll_write(cx, bytes),
            Pipe::Client(pipe) => Pin::new(pipe).poll_write(cx, bytes),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ended || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(match &mut self.pipe {
            Pipe::Server(pipe) => Pin::new(pipe).poll_read(cx, buffer),
            Pipe::Client(pipe) => Pin::new(pipe).poll_read(cx, buffer),
        })?;
        // An empty message, or a pipe that is closed.
        self.ended = buffer.filled().len() == before;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            // An empty message would end the direction.
            return Poll::Ready(Ok(0));
        }
        self.poll_send(cx, bytes)
    }

    /// What was written is on its way: the pipe sends it even when the stream is dropped.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(self.poll_send(cx, &[]))?;
            self.shut = true;
        }
        Poll::Ready(Ok(()))
    }
}

/// Ends when the other side has closed the pipe, which its half-close does not tell. It watches a handle of its own, so that the
/// stream can be split meanwhile.
pub fn hung_up(stream: &Stream) -> impl Future<Output = ()> + Send + use<> {
    let handle = match &stream.pipe {
        Pipe::Server(pipe) => pipe.as_handle().try_clone_to_owned(),
        Pipe::Client(pipe) => pipe.as_handle().try_clone_to_owned(),
    };
    async move {
        let Ok(handle) = handle else {
            return std::future::pending().await;
        };
        while is_open(&handle) {
            sleep(HANG_UP_INTERVAL).await;
        }
    }
}

/// Looks at what may be read and takes nothing; it fails once the other end is gone and what it sent is read.
fn is_open(pipe: &OwnedHandle) -> bool {
    let pipe = pipe.as_raw_handle();
    let none = ptr::null_mut();
    // SAFETY: the handle is open; no buffer of ours is written to.
    unsafe { PeekNamedPipe(pipe, ptr::null_mut(), 0, none, none, none) != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_homes_apart_and_do_not_look_at_case() {
        let (a, b) = (
            Path::new(r"C:\a\docker.sock"),
            Path::new(r"C:\b\docker.sock"),
        );
        assert_ne!(name(a), name(b));
        assert_eq!(name(a), name(Path::new(r"c:\A\docker.sock")));
        let address = address(a);
        assert!(
            address.starts_with("npipe:////./pipe/longshore-"),
            "{address}"
        );
        assert!(address.ends_with("-docker"), "{address}");
    }
}
