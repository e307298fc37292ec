//! `longshore-log`: the log writer as a containerd binary logger, under anyone's shim.
//!
//! containerd's convention: settings as arguments `key value …`; descriptor 3 is the container's
//! stdout, 4 its stderr, and 5 is closed when the logger is ready. `stdout PATH` and `stderr PATH`
//! name FIFOs instead, for containers whose stdio must be plain FIFOs.

use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use longshore_container_log::{LogConfig, LogTask, StreamKind};
use tokio::signal::unix::{SignalKind, signal};

/// containerd's runc shim waits 12 s for its logger before it kills it.
const LINGER: Duration = Duration::from_secs(8);

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let pairs: Vec<(String, String)> = args
        .chunks_exact(2)
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect();
    let config = LogConfig::from_pairs(pairs.clone())?;
    let fifo = |name: &str| {
        pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, path)| path)
    };
    // Before anything else is opened that could get their numbers.
    let given = match (fifo("stdout"), fifo("stderr")) {
        (None, None) => Some([inherited(3)?, inherited(4)?, inherited(5)?]),
        _ => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut task = LogTask::start(&config)?;
        if let Some([stdout, stderr, ready]) = given {
            task.pump(StreamKind::Stdout, stdout)?;
            task.pump(StreamKind::Stderr, stderr)?;
            drop(ready);
        }
        for (kind, name) in [
            (StreamKind::Stdout, "stdout"),
            (StreamKind::Stderr, "stderr"),
        ] {
            if let Some(path) = fifo(name) {
                task.pump(kind, open_fifo(Path::new(path)).await?)?;
            }
        }
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            () = task.ended() => {}
            _ = terminate.recv() => {}
        }
        task.finish(LINGER).await;
        Ok(())
    })
}

/// Opens a FIFO for reading once there is a writer.
async fn open_fifo(path: &Path) -> anyhow::Result<OwnedFd> {
    let path = path.to_owned();
    let file = tokio::task::spawn_blocking({
        let path = path.clone();
        move || std::fs::File::open(path)
    });
    Ok(file
        .await?
        .with_context(|| format!("open FIFO {}", path.display()))?
        .into())
}

fn inherited(fd: i32) -> anyhow::Result<OwnedFd> {
    // SAFETY: fcntl only asks about the number; nothing else in this process uses 3 to 5, which
    // are the parent's gift, so owning them once is sound.
    unsafe {
        if libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) < 0 {
            bail!("descriptor {fd} is not open: this program is started by a containerd shim");
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}
