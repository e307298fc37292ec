//! What the agent offers to the guest's other services on `/run/longshore/agent.sock`: JSON lines, answered in order.

use crate::control::ShareStatus;
use crate::port_news::{Publication, Published};
use serde::{Deserialize, Serialize};

/// Where the agent listens (init holds the listener).
pub const SOCKET_PATH: &str = "/run/longshore/agent.sock";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalRequestLine {
    pub version: u32,
    #[serde(flatten)]
    pub request: LocalRequest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
pub enum LocalRequest {
    /// Binds a port on the host; answered by [`LocalReply::Published`] when the host has answered.
    Publish(Publication),
    /// Answered by [`LocalReply::Done`]; unknown keys are no error.
    Withdraw { key: String },
    /// Withdraws every publication whose key is not in the list (a restarted daemon's clean-up). Answered by [`LocalReply::Done`].
    Retain { keys: Vec<String> },
    /// Answered by [`LocalReply::Publications`].
    Publications,
    /// Answered by [`LocalReply::Shares`].
    Shares,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum LocalReply {
    Published(Published),
    Publications(Vec<Publication>),
    Shares(Vec<ShareStatus>),
    Done,
    /// The request itself was wrong.
    Error(String),
}
