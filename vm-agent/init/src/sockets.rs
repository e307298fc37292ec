//! The listening sockets: init holds them, so that a client waits, instead of failing, while a service restarts.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// A socket to make: (path, name in `LISTEN_FDNAMES`).
pub type Socket = (&'static str, &'static str);

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("make the folder of {path}: {source}")]
    Folder {
        path: &'static str,
        source: io::Error,
    },
    #[error("listen on {path}: {source}")]
    Listen {
        path: &'static str,
        source: io::Error,
    },
}

/// Listens on `path`, for root alone. (Rust's own backlog is the system's largest.)
pub fn listen(path: &'static str) -> Result<UnixListener, SocketError> {
    if let Some(folder) = Path::new(path).parent() {
        std::fs::create_dir_all(folder).map_err(|source| SocketError::Folder { path, source })?;
    }
    let listen = |source| SocketError::Listen { path, source };
    let listener = UnixListener::bind(path).map_err(listen)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(listen)?;
    Ok(listener)
}
