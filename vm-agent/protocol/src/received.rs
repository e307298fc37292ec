//! What arrived and was not read yet, of the channel's streams.

use std::collections::VecDeque;

use tokio::io::ReadBuf;

/// A read buffer larger than this is given back when it is empty.
const KEPT_CAPACITY: usize = 16 * 1024;

/// Moves as many bytes as fit from `received` to `buffer`; how many.
pub fn take(received: &mut VecDeque<u8>, buffer: &mut ReadBuf<'_>) -> usize {
    let length = received.len().min(buffer.remaining());
    let (first, second) = received.as_slices();
    let from_first = first.len().min(length);
    buffer.put_slice(&first[..from_first]);
    buffer.put_slice(&second[..length - from_first]);
    received.drain(..length);
    if received.is_empty() && received.capacity() > KEPT_CAPACITY {
        *received = VecDeque::new();
    }
    length
}
