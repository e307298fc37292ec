//! Local sockets that this service serves: private to the user, never taken over from a living server.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "somebody already serves {0}: stop that program, or set LONGSHORE_HOME to another folder"
    )]
    Taken(PathBuf),
    #[error("{0} exists and is not a socket: move it away")]
    NotASocket(PathBuf),
    #[error("cannot listen on {0}: {1}")]
    Bind(PathBuf, io::Error),
}

#[cfg(unix)]
pub use unix::{Accepted, Listener};

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};

    use super::*;

    pub type Accepted = tokio::net::UnixStream;

    /// A unix socket; its file goes with it.
    pub struct Listener {
        inner: tokio::net::UnixListener,
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
                Ok(_) => match Accepted::connect(path).await {
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
            let inner = tokio::net::UnixListener::bind(path).map_err(failed)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
                .map_err(failed)?;
            Ok(Self {
                inner,
                path: path.to_owned(),
            })
        }

        pub async fn accept(&mut self) -> io::Result<Accepted> {
            self.inner.accept().await.map(|(stream, _)| stream)
        }
    }

    impl Drop for Listener {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(windows)]
pub use windows::{Accepted, Listener};

#[cfg(windows)]
mod windows {
    use longshore_host_api::transport::pipe_name;
    use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};

    use super::*;

    pub type Accepted = NamedPipeServer;

    /// A named pipe; the instance that waits for the next client is made before the present one is handed out.
    pub struct Listener {
        next: NamedPipeServer,
        name: String,
    }

    impl Listener {
        pub async fn bind(path: &Path) -> Result<Self, ListenError> {
            let name = pipe_name(path);
            let next = ServerOptions::new()
                .first_pipe_instance(true)
                .create(&name)
                .map_err(|e| ListenError::Bind(path.to_owned(), e))?;
            Ok(Self { next, name })
        }

        pub async fn accept(&mut self) -> io::Result<Accepted> {
            self.next.connect().await?;
            let fresh = ServerOptions::new().create(&self.name)?;
            Ok(std::mem::replace(&mut self.next, fresh))
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_living_server_keeps_its_socket_and_a_dead_one_loses_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = Listener::bind(&path).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(
            Listener::bind(&path).await,
            Err(ListenError::Taken(_))
        ));
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
