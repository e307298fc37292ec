//! The targets; each says what its input means.

pub mod fuse;
pub mod messages;
pub mod mux;
pub mod ports;
pub mod record;
pub mod vsock;

use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Turns that the tasks of a target get between two steps; more than any of them needs.
const TURNS: usize = 12;

/// Plays what an input says, on this thread alone, so that the same input always does the same.
fn on_one_thread<T>(play: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(play)
}

async fn settle() {
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
}

/// A future's result, if it has one without waiting; what waits is dropped.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// What the host's programs do with a stream to the guest; the number says how much. Returns the bytes that went through.
fn use_stream<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, what: u8, number: u8) -> usize {
    let size = usize::from(number) * 16;
    let moved = match what {
        0 => now(stream.read(&mut vec![0; size])),
        1 => now(stream.write(&vec![number; size])),
        _ => now(stream.shutdown()).map(|ended| ended.map(|()| 0)),
    };
    moved.and_then(Result::ok).unwrap_or(0)
}

/// Everything that has come for a stream, in bytes.
fn drain<S: AsyncRead + Unpin>(stream: &mut S) -> (usize, bool) {
    let (mut total, mut buffer) = (0, [0; 4096]);
    loop {
        match now(stream.read(&mut buffer)) {
            Some(Ok(0) | Err(_)) => return (total, true),
            Some(Ok(length)) => total += length,
            None => return (total, false),
        }
    }
}
