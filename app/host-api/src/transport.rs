//! The byte stream under the API: a unix socket, on Windows a named pipe.

use std::io;
use std::path::Path;

#[cfg(unix)]
pub type Stream = tokio::net::UnixStream;
#[cfg(windows)]
pub type Stream = tokio::net::windows::named_pipe::NamedPipeClient;

#[cfg(unix)]
pub async fn connect(path: &Path) -> io::Result<Stream> {
    Stream::connect(path).await
}

#[cfg(windows)]
pub async fn connect(path: &Path) -> io::Result<Stream> {
    tokio::net::windows::named_pipe::ClientOptions::new().open(pipe_name(path))
}

/// Pipes live in a name space of their own: the path becomes one name in it.
#[cfg(windows)]
pub fn pipe_name(path: &Path) -> String {
    let flat: String = path
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    format!(r"\\.\pipe\longshore-{flat}")
}

/// True for the errors that mean that nobody serves there.
pub fn nobody_serves(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}
