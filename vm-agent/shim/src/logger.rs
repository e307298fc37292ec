//! Any other program as the log writer: containerd's `binary://` convention.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

use crate::error::{Error, Result, Step};
use crate::stdio::Owner;

/// Of a logger that lives and says nothing; one that dies is known at once. A guest with more work than CPUs is slow, not broken.
const READY_TIME: Duration = Duration::from_secs(60);

/// The URI, if it names a program.
pub fn scheme(uri: &str) -> Option<&str> {
    uri.starts_with("binary://").then_some(uri)
}

/// Starts the logger with descriptors 3 (stdout), 4 (stderr) and 5 (closed by it when ready). It
/// lives on until the output ends.
pub async fn spawn(uri: &str, owner: Owner<'_>, stdout: OwnedFd, stderr: OwnedFd) -> Result<()> {
    let rest = uri.trim_start_matches("binary://");
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (ready, ready_end) = pipe2(OFlag::O_CLOEXEC).step("make a pipe")?;
    let given = [&stdout, &stderr, &ready_end].map(above_targets);
    let [stdout, stderr, ready_end] = given;
    let fds = [stdout?, stderr?, ready_end?];
    let raw = [fds[0].as_raw_fd(), fds[1].as_raw_fd(), fds[2].as_raw_fd()];
    let mut command = Command::new(path);
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        command.args([key, value]);
    }
    command
        .env("CONTAINER_ID", owner.id)
        .env("CONTAINER_NAMESPACE", owner.namespace);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: dup2 is async-signal-safe; the sources are open and above the targets.
    unsafe {
        command.pre_exec(move || {
            for (target, fd) in (3..).zip(raw) {
                if libc::dup2(fd, target) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    // Reaped with all other children.
    drop(command.spawn().at("start logger", path)?);
    drop(fds);
    let mut ready = Receiver::from_owned_fd(ready).step("watch the logger")?;
    // Closing it is the sign; some write a byte.
    match timeout(READY_TIME, ready.read_u8()).await {
        Ok(_) => Ok(()),
        Err(_elapsed) => Err(Error::LoggerNotReady { path: path.into() }),
    }
}

/// A copy with a number that dup2 to 3, 4 and 5 does not overwrite.
fn above_targets(fd: &OwnedFd) -> Result<OwnedFd> {
    let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(10)).step("duplicate a descriptor")?;
    // SAFETY: fcntl has just made it for us.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(raw) })
}
