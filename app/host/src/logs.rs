//! Logs as streams: the host's files, and the guest's through the agent.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use longshore_host_api::ApiError;
use longshore_protocol::logs::{LogSource as GuestSource, LogsReply, LogsRequest};
use longshore_protocol::{VERSION, line, ports};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, BufReader};
use tokio_util::io::ReaderStream;

use crate::channel;

/// Without `follow`, and at the beginning with it, at most so much of the end of a file is shown.
const MOST: u64 = 4 << 20;
const GUEST_PATIENCE: Duration = Duration::from_secs(20);

/// The bytes of a log in the guest.
pub async fn guest(
    channel: &Path,
    source: GuestSource,
    follow: bool,
) -> Result<impl Stream<Item = io::Result<Bytes>> + use<>, ApiError> {
    let failed = |e: &dyn std::fmt::Display| {
        ApiError::conflict(format!("cannot read the {} log: {e}", source.name()))
            .with_hint("is the VM running? Look at: longshore status, longshore logs console")
    };
    let open = async {
        let stream = channel::dial(channel, ports::LOGS)
            .await
            .map_err(|e| failed(&e))?;
        let mut stream = BufReader::new(stream);
        let request = LogsRequest {
            version: VERSION,
            source,
            follow,
            tail: None,
        };
        line::write_json(&mut stream, &request)
            .await
            .map_err(|e| failed(&e))?;
        match line::read_json(&mut stream).await.map_err(|e| failed(&e))? {
            Some(LogsReply::Follows) => Ok(ReaderStream::new(stream)),
            Some(LogsReply::Error(why)) => Err(failed(&why)),
            None => Err(failed(&"the agent closed the connection")),
        }
    };
    tokio::time::timeout(GUEST_PATIENCE, open)
        .await
        .map_err(|_| failed(&"the agent does not answer"))?
}

/// The bytes of a file on the host; with `follow`, what is appended as it comes, over rotations.
pub async fn file(
    path: PathBuf,
    follow: bool,
) -> Result<impl Stream<Item = io::Result<Bytes>>, ApiError> {
    let opened = open(&path).await.map_err(|e| {
        ApiError::new(
            longshore_host_api::ErrorCode::NotFound,
            format!("cannot read {}: {e}", path.display()),
        )
    })?;
    let changes = if follow {
        Some(
            Changes::of(&path)
                .map_err(|e| ApiError::internal(format!("cannot watch {}: {e}", path.display())))?,
        )
    } else {
        None
    };
    let state = Tail {
        path,
        file: opened,
        changes,
    };
    Ok(futures::stream::try_unfold(state, |mut tail| async move {
        Ok(tail.next().await?.map(|bytes| (bytes, tail)))
    }))
}

async fn open(path: &Path) -> io::Result<File> {
    let mut file = File::open(path).await?;
    let length = file.metadata().await?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MOST)))
        .await?;
    Ok(file)
}

struct Tail {
    path: PathBuf,
    file: File,
    changes: Option<Changes>,
}

impl Tail {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let mut buffer = vec![0; 64 * 1024];
            let length = self.file.read(&mut buffer).await?;
            if length > 0 {
                buffer.truncate(length);
                return Ok(Some(buffer.into()));
            }
            let Some(changes) = &mut self.changes else {
                return Ok(None);
            };
            // The rest of a rotated file was read above; the new one begins now.
            if replaced(&self.file, &self.path).await {
                self.file = File::open(&self.path).await?;
                continue;
            }
            changes.wait().await?;
        }
    }
}

#[cfg(unix)]
async fn replaced(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(open), Ok(now)) = (file.metadata().await, tokio::fs::metadata(path).await) else {
        return false;
    };
    (open.dev(), open.ino()) != (now.dev(), now.ino())
}

#[cfg(not(unix))]
async fn replaced(_: &File, _: &Path) -> bool {
    false
}

/// Changes in a file's folder.
#[cfg(target_os = "linux")]
struct Changes {
    inotify: nix::sys::inotify::Inotify,
    readiness: tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>,
}

#[cfg(target_os = "linux")]
impl Changes {
    fn of(path: &Path) -> io::Result<Self> {
        use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let folder = path.parent().unwrap_or(path);
        let events =
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(folder, events)?;
        let readiness = std::os::fd::AsFd::as_fd(&inotify).try_clone_to_owned()?;
        // SAFETY: an OwnedFd stays open, and the same descriptor, for as long as the AsyncFd holds it.
        let readiness = unsafe { tokio::io::unix::AsyncFd::register(readiness) }?;
        Ok(Self { inotify, readiness })
    }

    async fn wait(&mut self) -> io::Result<()> {
        let mut guard = self.readiness.readable().await?;
        // What changed does not matter: the reader looks at the file itself.
        while self.inotify.read_events().is_ok() {}
        guard.clear_ready();
        Ok(())
    }
}

/// No news of files without a dependency of its own: looks twice a second, only while somebody follows.
#[cfg(not(target_os = "linux"))]
struct Changes;

#[cfg(not(target_os = "linux"))]
impl Changes {
    fn of(_: &Path) -> io::Result<Self> {
        Ok(Self)
    }

    async fn wait(&mut self) -> io::Result<()> {
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(())
    }
}

/// The last lines of a file, for the report of a failure.
pub fn last_lines(path: &Path, count: usize) -> Vec<String> {
    let Ok(bytes) = std::fs::read(path) else {
        return Vec::new();
    };
    let text =
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(64 * 1024)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..]
        .iter()
        .map(|l| (*l).to_owned())
        .collect()
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Write;

    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn following_goes_over_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "one\n").unwrap();
        let mut stream = Box::pin(file(path.clone(), true).await.unwrap());
        assert_eq!(stream.next().await.unwrap().unwrap(), "one\n");
        let mut appended = std::fs::File::options().append(true).open(&path).unwrap();
        appended.write_all(b"two\n").unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "two\n");
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        std::fs::write(&path, "three\n").unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "three\n");
        let whole = file(path, false).await.unwrap();
        assert_eq!(whole.count().await, 1);
    }
}
