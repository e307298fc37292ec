//! Waiting for changes of a descriptor whose hang-up is not its end.
//!
//! A virtio-serial port reports a hang-up for as long as the host has not opened its side, and tokio takes a hang-up for final.
//! So the port is watched by an epoll of its own, edge-triggered, and tokio watches that one.

use crate::watched::{Watched, watch};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub struct Edge(AsyncFd<Watched<Inner>>);

struct Inner(Epoll);

impl AsFd for Inner {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

impl Edge {
    /// Watches `fd` for `flags`; the descriptor must stay open as long as this.
    pub fn new(fd: impl AsFd, flags: EpollFlags) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(fd, EpollEvent::new(flags | EpollFlags::EPOLLET, 0))?;
        Ok(Self(watch(Inner(epoll), Interest::READABLE)?))
    }

    /// Ready when the descriptor has changed since the last time; try the operation first, then wait.
    pub fn poll_change(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let mut events = [EpollEvent::empty()];
            let count = self.0.get_ref().0.wait(&mut events, EpollTimeout::ZERO)?;
            guard.clear_ready();
            if count > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
