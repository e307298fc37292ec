//! Bytes both ways between two streams, each direction ending for itself.

use crate::channel::Stream;
use std::io;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::UnixStream;

/// Larger pieces mean fewer packets on the channel.
const BUFFER: usize = 64 * 1024;

pub async fn to_socket(stream: impl Stream, path: &str) -> io::Result<()> {
    both_ways(stream, UnixStream::connect(path).await?).await
}

pub async fn both_ways(mut near: impl Stream, mut far: impl Stream) -> io::Result<()> {
    copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER, BUFFER)
        .await
        .map(drop)
}
