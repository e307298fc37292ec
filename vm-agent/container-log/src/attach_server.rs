//! The writer's end of live attach: one task for each attached reader.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::attach_protocol::{Frame, Hello, Overflow, encode_welcome};
use crate::error::{Error, Result};
use crate::log_task::Shared;
use crate::ring::Read;

const MAX_READERS: usize = 256;
/// For a reader to say what it wants: only [`MAX_READERS`] of them can wait at a time.
const HELLO_TIME: Duration = Duration::from_secs(30);

/// Listens on `path`, replacing a socket that a dead writer has left.
pub(crate) fn listen(path: &Path) -> Result<UnixListener> {
    let bind = || -> io::Result<UnixListener> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (_dir, short) = short_path(path)?;
        UnixListener::bind(short)
    };
    bind().map_err(|source| Error::Listen {
        path: path.to_owned(),
        source,
    })
}

/// The same file by way of `/proc/self/fd`, because a socket address holds only 107 bytes of
/// path. Valid while the returned folder is open.
pub(crate) fn short_path(path: &Path) -> io::Result<(File, PathBuf)> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = File::open(dir)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
    Ok((dir, short))
}

/// Serves readers until aborted.
pub(crate) async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if shared.ring().readers() < MAX_READERS => {
                tokio::spawn(serve(stream, shared.clone()));
            }
            // Dropping the connection is the refusal.
            Ok(_) => {}
            // Out of descriptors: let those that are open go on.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// One reader. Every error means that it has gone.
async fn serve(mut stream: UnixStream, shared: Arc<Shared>) -> io::Result<()> {
    let mut bytes = [0; 16];
    timeout(HELLO_TIME, stream.read_exact(&mut bytes)).await??;
    let hello = Hello::decode(&bytes).ok_or(io::ErrorKind::InvalidData)?;
    let mut news = shared.news();
    let reader = Subscription::new(&shared, hello);
    stream.write_all(&encode_welcome(reader.cursor)).await?;
    let mut woken_at = reader.cursor;
    loop {
        // Marked as seen before the ring is read, so that no append falls in between.
        news.borrow_and_update();
        let frame = match reader.read() {
            Read::Output(kind, bytes) if hello.streams.wants(kind) => Frame::Output(kind, bytes),
            Read::Output(..) => continue,
            Read::Lost(_) if !hello.streams.stdout && !hello.streams.stderr => continue,
            Read::Lost(count) => Frame::Lost(count),
            Read::Nothing => {
                let end = shared.written();
                if hello.streams.wake && woken_at < end {
                    woken_at = end;
                    Frame::Wake.write(&mut stream).await?;
                }
                tokio::select! {
                    _ = news.changed() => continue,
                    // A reader says nothing after its hello, so this is its end.
                    _ = stream.read_u8() => return Ok(()),
                }
            }
            Read::End => return Frame::End.write(&mut stream).await,
        };
        frame.write(&mut stream).await?;
    }
}

/// A reader's place in the ring, given up on drop.
struct Subscription<'a> {
    shared: &'a Shared,
    key: u64,
    cursor: u64,
}

impl Subscription<'_> {
    fn new(shared: &Shared, hello: Hello) -> Subscription<'_> {
        // Who reads only wake-ups cannot hold anybody up.
        let output = hello.streams.stdout || hello.streams.stderr;
        let overflow = if output {
            hello.overflow
        } else {
            Overflow::Skip
        };
        let (key, cursor) = shared.ring().subscribe(hello.start, overflow);
        Subscription {
            shared,
            key,
            cursor,
        }
    }

    fn read(&self) -> Read {
        let read = self.shared.ring().read(self.key);
        self.shared.note_progress();
        read
    }
}

impl Drop for Subscription<'_> {
    fn drop(&mut self) {
        self.shared.ring().unsubscribe(self.key);
        self.shared.note_progress();
    }
}
