//! Copies bytes between a terminal and FIFOs or pipes.

use std::fs::File;
use std::io::{self, Read, Write};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Each terminal and each open stdin costs this much memory.
const BUFFER: usize = 16 << 10;

/// Where bytes are copied to.
#[derive(Debug)]
pub enum Target {
    /// A FIFO, a pipe or a terminal.
    Watched(AsyncFd<File>),
    /// A regular file, which is always ready and cannot be watched.
    Plain(File),
}

impl Target {
    pub fn new(file: File) -> io::Result<Target> {
        if file.metadata()?.is_file() {
            return Ok(Target::Plain(file));
        }
        watch(file, Interest::WRITABLE).map(Target::Watched)
    }

    async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let file = match self {
            Target::Plain(file) => return file.write_all(bytes),
            Target::Watched(file) => file,
        };
        while !bytes.is_empty() {
            let written = file
                .async_io(Interest::WRITABLE, |mut f| f.write(bytes))
                .await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }
}

/// A descriptor to copy from.
pub fn source(file: File) -> io::Result<AsyncFd<File>> {
    watch(file, Interest::READABLE)
}

/// Copies until the end, or an error: a terminal whose other side is closed says EIO.
pub async fn copy(from: AsyncFd<File>, mut to: Target) {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from
            .async_io(Interest::READABLE, |mut f| f.read(&mut buffer))
            .await
        {
            Ok(0) | Err(_) => return,
            Ok(count) if to.write_all(&buffer[..count]).await.is_err() => return,
            Ok(_) => {}
        }
    }
}

fn watch(file: File, interest: Interest) -> io::Result<AsyncFd<File>> {
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    // SAFETY: a File owns its descriptor, which stays open and the same until the AsyncFd drops it.
    let registered = unsafe { AsyncFd::register_with_interest(file, interest) };
    registered.map_err(Into::into)
}
