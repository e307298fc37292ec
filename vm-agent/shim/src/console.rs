//! The console socket: how the runtime hands over a terminal's master (runc's convention).

use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use tokio::net::{UnixListener, UnixStream};

use crate::error::{Error, Result, Step};

/// Short, because a socket's path holds 107 bytes; only root may look in.
const DIR: &str = "/run/longshore/pty";

/// A listening console socket; removed on drop.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    pub fn listen() -> Result<ConsoleSocket> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(DIR)
            .at("create", DIR)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(DIR).join(format!("{}-{number}", std::process::id()));
        // A shim with our pid may have been killed before.
        drop(fs::remove_file(&path));
        let listener = UnixListener::bind(&path).at("listen on", &path)?;
        Ok(ConsoleSocket { listener, path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The terminal's master, once the runtime has sent it.
    pub async fn receive(&self) -> Result<OwnedFd> {
        let (stream, _) = self.listener.accept().await.at("accept on", &self.path)?;
        loop {
            stream.readable().await.at("read from", &self.path)?;
            match stream.try_io(tokio::io::Interest::READABLE, || receive_fd(&stream)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(Some(fd)) => return Ok(fd),
                Ok(None) => {
                    let why = "no descriptor in the message".to_owned();
                    return Err(Error::Invalid {
                        what: "the runtime's console message",
                        why,
                    });
                }
                Err(error) => return Err(error).at("read from", &self.path),
            }
        }
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

fn receive_fd(stream: &UnixStream) -> io::Result<Option<OwnedFd>> {
    // The message's text is the terminal's name in the container, of no use here.
    let mut name = [0; 4096];
    let mut slices = [IoSliceMut::new(&mut name)];
    let mut control = nix::cmsg_space!([i32; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(fd) = fds.first()
        {
            // SAFETY: the kernel has just made this descriptor for us; there is room for one only.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(*fd) }));
        }
    }
    Ok(None)
}
