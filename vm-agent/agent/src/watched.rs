//! Descriptors of any kind, watched by the runtime.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A value that owns its descriptor.
pub struct Watched<T>(T);

impl<T: AsFd> AsRawFd for Watched<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl<T> Deref for Watched<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

pub fn watch<T: AsFd>(inner: T, interest: Interest) -> io::Result<AsyncFd<Watched<T>>> {
    // SAFETY: `AsFd` vouches for an open descriptor for as long as the value lives, the value is moved in here, and `Watched`
    // gives no `&mut` or ownership of it away, so the descriptor cannot change while it is registered.
    unsafe { AsyncFd::register_with_interest(Watched(inner), interest) }.map_err(Into::into)
}
