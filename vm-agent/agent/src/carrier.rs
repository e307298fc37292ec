//! The virtio-serial port that carries the multiplexed channel.

use crate::edge::{Edge, watch_both};
use crate::uevents::Uevents;
use longshore_protocol::config::SERIAL_PORT_NAME;
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Opens the port, once the host has told its name.
pub async fn open() -> io::Result<Arc<File>> {
    let uevents = Uevents::new()?;
    let device = uevents.until(find).await?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(&device)
        .map_err(|error| io::Error::new(error.kind(), format!("open {device}: {error}")))?;
    Ok(Arc::new(file))
}

fn find() -> Option<String> {
    let ports = std::fs::read_dir("/sys/class/virtio-ports").ok()?.flatten();
    ports
        .filter(|port| {
            std::fs::read_to_string(port.path().join("name"))
                .is_ok_and(|name| name.trim() == SERIAL_PORT_NAME)
        })
        .map(|port| format!("/dev/{}", port.file_name().to_string_lossy()))
        .find(|device| std::path::Path::new(device).exists())
}

/// Both halves, for one connection of the host: reading waits until it has come, and ends when it has gone.
pub fn halves(port: &Arc<File>) -> io::Result<(Reader, Writer)> {
    let (readable, writable) = watch_both(port)?;
    let reader = Reader {
        edge: readable,
        port: port.clone(),
        connected: false,
    };
    let writer = Writer {
        edge: writable,
        port: port.clone(),
    };
    Ok((reader, writer))
}

pub struct Reader {
    edge: Edge,
    port: Arc<File>,
    /// Something was read: the host is, or was, there.
    connected: bool,
}

pub struct Writer {
    edge: Edge,
    port: Arc<File>,
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match (&*self.port).read(buffer.initialize_unfilled()) {
                // Without the host, the port reads as ended; before it has come that is only a reason to wait.
                Ok(0) if self.connected => return Poll::Ready(Ok(())),
                Ok(0) => {}
                Ok(read) => {
                    self.connected = true;
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(self.edge.poll_change(context))?;
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match (&*self.port).write(data) {
                Ok(written) if written > 0 || data.is_empty() => return Poll::Ready(Ok(written)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The driver's word for "no host there"; the reader notices that too.
                Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(self.edge.poll_change(context))?;
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
