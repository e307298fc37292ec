//! A connection from the host to an address inside the guest, on [`crate::ports::DIAL`].
//!
//! The host sends [`DialHeader`] as a line, the guest answers [`DialReply`] as a line; then TCP's bytes flow raw with half-close,
//! UDP's datagrams each behind their length (16 bits, big-endian).

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialHeader {
    pub version: u32,
    pub proto: Proto,
    /// A container's address and port, as published.
    pub target: SocketAddr,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DialReply {
    /// Connected; the stream follows.
    Connected,
    /// Why not; the stream ends.
    Error(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    Tcp,
    Udp,
}

impl std::fmt::Display for Proto {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}
