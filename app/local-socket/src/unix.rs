//! Unix sockets, mode 0600.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::ListenError;

pub type Stream = tokio::net::UnixStream;
pub type ReadHalf = OwnedReadHalf;
pub type WriteHalf = OwnedWriteHalf;

/// What a hang-up is noticed by. epoll tells it whatever one is interested in, and priority data does not exist on these
/// sockets; kqueue tells it with the writing direction only.
#[cfg(target_os = "linux")]
const HANG_UP: Interest = Interest::PRIORITY;
#[cfg(not(target_os = "linux"))]
const HANG_UP: Interest = Interest::WRITABLE;

pub async fn connect(path: &Path) -> io::Result<Stream> {
    Stream::connect(path).await
}

/// The number of the process that serves the stream's other end, where the system tells.
pub fn server_process(stream: &Stream) -> Option<u32> {
    stream.peer_cred().ok()?.pid()?.try_into().ok()
}

/// The halves of a stream; a dropped write half closes its direction.
pub fn split(stream: Stream) -> (ReadHalf, WriteHalf) {
    stream.into_split()
}

/// The socket's name for Docker clients: the form of `DOCKER_HOST`.
pub fn address(path: &Path) -> String {
    format!("unix://{}", path.display())
}

/// False if nobody can be serving there; a server that was killed leaves its file behind.
pub fn may_be_served(path: &Path) -> bool {
    path.exists()
}

/// A socket that is served; its file goes with it.
pub struct Listener {
    inner: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds `path` with mode 0600. A socket file that nobody serves is replaced.
    pub async fn bind(path: &Path) -> Result<Self, ListenError> {
        let failed = |e| ListenError::Bind(path.to_owned(), e);
        match std::fs::symlink_metadata(path) {
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(ListenError::NotASocket(path.to_owned()));
            }
            Ok(_) => match connect(path).await {
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(failed)?;
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                _ => return Err(ListenError::Taken(path.to_owned())),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
        // The folder is 0700, so that nobody gets in between bind and chmod.
        let inner = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self {
            inner,
            path: path.to_owned(),
        })
    }

    /// The next client. Cancel safe.
    pub async fn accept(&mut self) -> io::Result<Stream> {
        self.inner.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Ends when the other side has closed both directions, which its half-close does not tell. It watches a descriptor of its
/// own, so that the stream can be split meanwhile.
pub fn hung_up(stream: &Stream) -> impl Future<Output = ()> + Send + use<> {
    let watch = stream.as_fd().try_clone_to_owned().and_then(|fd| {
        // SAFETY: an OwnedFd stays open, and the same descriptor, for as long as the AsyncFd holds it.
        Ok(unsafe { AsyncFd::register_with_interest(fd, HANG_UP) }?)
    });
    async move {
        if let Ok(watch) = watch {
            while let Ok(mut guard) = watch.ready(HANG_UP).await {
                if is_hung_up(&watch) {
                    return;
                }
                // Readiness comes by edges: nothing more is said until it changes.
                guard.clear_ready();
            }
        }
        std::future::pending().await
    }
}

fn is_hung_up(socket: &impl AsRawFd) -> bool {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: `poll` is one valid entry, and the call returns at once.
    let count = unsafe { libc::poll(&mut poll, 1, 0) };
    count == 1 && poll.revents & (libc::POLLHUP | libc::POLLERR) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_private_and_what_a_dead_server_left_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = Listener::bind(&path).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(first);
        assert!(!path.exists());
        // What a killed server leaves behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        Listener::bind(&path).await.unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(
            Listener::bind(&path).await,
            Err(ListenError::NotASocket(_))
        ));
    }
}
