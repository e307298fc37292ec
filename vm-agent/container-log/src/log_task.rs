//! The log writer of one task: from the container's descriptors to file, ring and readers.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::attach_protocol::StreamKind;
use crate::attach_server;
use crate::config::LogConfig;
use crate::error::{Error, Result};
use crate::ring::Ring;
use crate::sink::Sink;

/// One read from the container: a pipe's full capacity.
const READ_SIZE: usize = 64 << 10;

/// What pumps and readers share. All of it is used from one thread in our programs; the locks are
/// never held over an await.
#[derive(Debug)]
pub(crate) struct Shared {
    ring: Mutex<Ring>,
    sink: Mutex<Sink>,
    /// Changed after every append and at the end.
    news: watch::Sender<()>,
    /// Writes that a queue has delayed, counted.
    late_writes: Arc<AtomicU64>,
    /// Changed whenever a reader has read or gone.
    progress: watch::Sender<()>,
    /// True when pumps must take what is there and return.
    stopping: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Grows with all that a reader of the file may find there.
    pub(crate) fn written(&self) -> u64 {
        self.ring().end() + self.late_writes.load(Ordering::Relaxed)
    }

    pub(crate) fn note_progress(&self) {
        self.progress.send_replace(());
    }

    /// File first, so that whoever is woken by the ring finds the lines on disk.
    fn write(&self, stream: StreamKind, bytes: &[u8]) {
        self.sink().write(stream, bytes);
        self.ring().append(stream, bytes);
        self.news.send_replace(());
    }

    fn end_stream(&self, stream: StreamKind) {
        self.sink().end_stream(stream);
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no blocking reader lags too far.
    async fn room(&self) {
        let mut progress = self.progress.subscribe();
        while !self.ring().has_room() {
            // The sender lives in `self`, so this cannot fail.
            drop(progress.changed().await);
        }
    }
}

/// A running log writer. Dropping it without [`finish`](Self::finish) ends it at once.
#[derive(Debug)]
pub struct LogTask {
    shared: Arc<Shared>,
    attach_path: Option<PathBuf>,
    accept: JoinHandle<()>,
    pumps: Vec<JoinHandle<()>>,
}

impl LogTask {
    /// Opens the log file and listens for readers. Needs a tokio runtime.
    pub fn start(config: &LogConfig) -> Result<LogTask> {
        let news = watch::Sender::new(());
        let late_writes = Arc::new(AtomicU64::new(0));
        let (told, counted) = (news.clone(), late_writes.clone());
        let sink = Sink::open(config, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            told.send_replace(());
        })?;
        let attach_path = config.attach_path();
        let listener = attach_server::listen(&attach_path)?;
        let shared = Arc::new(Shared {
            ring: Mutex::default(),
            sink: Mutex::new(sink),
            news,
            late_writes,
            progress: watch::Sender::new(()),
            stopping: watch::Sender::new(false),
        });
        let accept = tokio::spawn(attach_server::accept(listener, shared.clone()));
        Ok(LogTask {
            shared,
            attach_path: Some(attach_path),
            accept,
            pumps: Vec::new(),
        })
    }

    /// Logs what comes out of `fd` (a pipe's reading end or a terminal's master) until its end.
    pub fn pump(&mut self, stream: StreamKind, fd: OwnedFd) -> Result<()> {
        let fd = nonblocking(fd).map_err(|source| Error::Register { source })?;
        self.pumps
            .push(tokio::spawn(pump(self.shared.clone(), stream, fd)));
        Ok(())
    }

    /// Waits until every output has ended by itself. Cancel safe.
    pub async fn ended(&mut self) {
        for pump in &mut self.pumps {
            if !pump.is_finished() {
                drop(pump.await);
            }
        }
        self.pumps.clear();
    }

    /// Takes what is left in the descriptors and writes it to the file. A reader that holds the
    /// pumps up for longer than `patience` loses output; the file never does.
    pub async fn flush(&mut self, patience: Duration) {
        self.shared.stopping.send_replace(true);
        if timeout(patience, self.ended()).await.is_err() {
            self.shared.ring().release_readers();
            self.shared.note_progress();
            self.ended().await;
        }
        let queued = self.shared.sink().close();
        if let Some(thread) = queued {
            drop(tokio::task::spawn_blocking(|| thread.join()).await);
        }
        self.shared.ring().finish();
        self.shared.news.send_replace(());
        self.close_socket();
    }

    /// [Flushes](Self::flush), then gives attached readers `linger` to read the rest.
    pub async fn finish(mut self, linger: Duration) {
        self.flush(linger).await;
        let mut progress = self.shared.progress.subscribe();
        let drained = async {
            while self.shared.ring().readers() > 0 {
                drop(progress.changed().await);
            }
        };
        drop(timeout(linger, drained).await);
    }

    /// Once only: by the next time the path may belong to the writer of the restarted container.
    fn close_socket(&mut self) {
        if let Some(path) = self.attach_path.take() {
            self.accept.abort();
            drop(std::fs::remove_file(path));
        }
    }
}

impl Drop for LogTask {
    fn drop(&mut self) {
        self.close_socket();
        for pump in &self.pumps {
            pump.abort();
        }
    }
}

fn nonblocking(fd: OwnedFd) -> io::Result<AsyncFd<std::fs::File>> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    // SAFETY: a File owns its descriptor, which stays open and the same until the AsyncFd drops it.
    let registered = unsafe { AsyncFd::register_with_interest(fd.into(), Interest::READABLE) };
    registered.map_err(Into::into)
}

async fn pump(shared: Arc<Shared>, stream: StreamKind, fd: AsyncFd<std::fs::File>) {
    let mut stopping = shared.stopping.subscribe();
    loop {
        shared.room().await;
        let stop = *stopping.borrow_and_update();
        let more = if stop {
            read_once(&shared, stream, fd.get_ref())
        } else {
            tokio::select! {
                ready = fd.readable() => match ready {
                    Ok(mut guard) => match guard.try_io(|fd| read_once(&shared, stream, fd.get_ref())) {
                        Ok(result) => result,
                        Err(_would_block) => continue,
                    },
                    Err(error) => Err(error),
                },
                _ = stopping.changed() => continue,
            }
        };
        match more {
            Ok(true) => tokio::task::yield_now().await,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The end, nothing left when stopping, or a terminal whose other side is closed (EIO).
            Ok(false) | Err(_) => break,
        }
    }
    shared.end_stream(stream);
}

/// One read and write; false at the end of the output.
fn read_once(shared: &Shared, stream: StreamKind, mut fd: &std::fs::File) -> io::Result<bool> {
    // Allocated for each read: 64 KiB that an idle container does not hold.
    let mut buffer = vec![0; READ_SIZE];
    let count = fd.read(&mut buffer)?;
    if count > 0 {
        shared.write(stream, &buffer[..count]);
    }
    Ok(count > 0)
}
