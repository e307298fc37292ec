//! What a shim logs, through the FIFO `log` in its bundle.

use std::os::unix::fs::OpenOptionsExt;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;

use super::bundle::Bundle;

/// A line longer than this is cut.
const MAX_LINE: u64 = 8 * 1024;

/// Makes the FIFO. Before the shim is started, which opens it for writing.
pub fn create(bundle: &Bundle) -> std::io::Result<()> {
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    match nix::unistd::mkfifo(&bundle.path.join("log"), mode) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Passes the shim's lines on to our own log.
pub fn follow(bundle: &Bundle) -> Option<tokio::task::AbortHandle> {
    let path = bundle.path.join("log");
    // Read-write: the end of file never comes, and the shim's open never blocks.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    let receiver = pipe::Receiver::from_file_unchecked(file).ok()?;
    let id = bundle.id.clone();
    let task = tokio::spawn(async move {
        let mut lines = BufReader::with_capacity(1024, receiver);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut lines)
                .take(MAX_LINE)
                .read_until(b'\n', &mut line)
                .await
            {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line);
                    tracing::info!(target: "shim", id, "{}", text.trim_end());
                }
            }
        }
    });
    Some(task.abort_handle())
}
