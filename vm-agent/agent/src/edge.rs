//! Waiting for changes of a descriptor whose hang-up is not its end.
//!
//! A virtio-serial port reports a hang-up for as long as the host has not opened its side, and tokio takes a hang-up for final.
//! So the port is watched by an epoll of its own, edge-triggered, and tokio watches that one.
//!
//! One epoll for both directions: the driver's `poll` takes used buffers of both queues in, and an interrupt that then finds
//! none wakes nobody. Were each direction watched by itself, the look of one would swallow the wake-up of the other.

use crate::watched::{Watched, watch};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

/// One waiter's share of a descriptor's changes.
pub struct Edge {
    seen: Arc<Seen>,
    /// The watch ends with the last waiter.
    _watcher: Arc<Watcher>,
}

/// What has changed since the waiter looked last.
#[derive(Default)]
struct Seen(Mutex<State>);

#[derive(Default)]
struct State {
    changed: bool,
    /// Nothing will be told any more.
    failed: Option<io::ErrorKind>,
    waker: Option<Waker>,
}

struct Watcher(JoinHandle<()>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Inner(Epoll);

impl AsFd for Inner {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

/// Watches `fd` for two waiters, a reader and a writer; the descriptor must stay open as long as they. Needs a tokio runtime.
pub fn watch_both(fd: impl AsFd) -> io::Result<(Edge, Edge)> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    epoll.add(fd, EpollEvent::new(flags, 0))?;
    let watched = watch(Inner(epoll), Interest::READABLE)?;
    let (first, second) = (Arc::<Seen>::default(), Arc::<Seen>::default());
    let both = [first.clone(), second.clone()];
    let watcher = Arc::new(Watcher(tokio::spawn(async move {
        loop {
            let change = next_change(&watched).await;
            for seen in &both {
                seen.tell(change.as_ref().err());
            }
            if let Err(error) = change {
                tracing::error!(%error, "watching a port");
                return;
            }
        }
    })));
    let edge = |seen| Edge {
        seen,
        _watcher: watcher.clone(),
    };
    Ok((edge(first), edge(second)))
}

async fn next_change(watched: &AsyncFd<Watched<Inner>>) -> io::Result<()> {
    loop {
        let mut guard = watched.readable().await?;
        let mut events = [EpollEvent::empty()];
        let count = watched.get_ref().0.wait(&mut events, EpollTimeout::ZERO)?;
        guard.clear_ready();
        if count > 0 {
            return Ok(());
        }
    }
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, error: Option<&io::Error>) {
        let mut state = self.lock();
        state.changed = true;
        state.failed = error.map(io::Error::kind);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

impl Edge {
    /// Ready when the descriptor has changed since this waiter's last time; try the operation first, then wait.
    pub fn poll_change(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.seen.lock();
        if let Some(kind) = state.failed {
            return Poll::Ready(Err(kind.into()));
        }
        if std::mem::take(&mut state.changed) {
            return Poll::Ready(Ok(()));
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[tokio::test]
    async fn both_waiters_hear_of_every_change() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let (reader, writer) = watch_both(&near).unwrap();
        for _ in 0..50 {
            far.write_all(b"x").unwrap();
            poll_fn(|context| reader.poll_change(context))
                .await
                .unwrap();
            poll_fn(|context| writer.poll_change(context))
                .await
                .unwrap();
        }
    }
}
