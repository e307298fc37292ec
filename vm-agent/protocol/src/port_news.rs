//! Published ports, on [`crate::ports::PORT_NEWS`]: the one conversation in which the guest asks and the host answers.
//!
//! The host dials and keeps the connection; a new connection replaces the old one. The agent opens it with [`News::Sync`], so a
//! restarted host knows the whole set, with the host ports that were promised before.

use crate::dial::Proto;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// One line from the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewsLine {
    pub version: u32,
    /// Counts up from 1 on a connection; the host's answer carries it back.
    pub id: u64,
    #[serde(flatten)]
    pub news: News,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
pub enum News {
    /// Answered by one [`Published`].
    Publish(Publication),
    /// Closes one publication; unknown ones are no error. Answered by no results.
    Withdraw { key: String },
    /// The whole set: what is not in it is closed. Answered by one [`Published`] for each, in order.
    Sync(Vec<Publication>),
}

/// A container's port, wanted on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// Unique among the publications, chosen by the daemon.
    pub key: String,
    pub container_id: String,
    pub proto: Proto,
    /// As the user wrote it; empty when not told: the host's policy decides (127.0.0.1 by default).
    #[serde(default)]
    pub host_ip: String,
    /// 0 asks for any free port.
    pub host_port: u16,
    /// Where the host dials in the guest.
    pub target: SocketAddr,
}

/// One line from the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewsReply {
    pub version: u32,
    pub id: u64,
    pub results: Vec<Published>,
}

/// What became of a publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Published {
    /// Bound on the host, at this address.
    Bound(SocketAddr),
    /// Refused: taken, not allowed, …; for people, in Docker's words where Docker has some.
    Error(String),
}
