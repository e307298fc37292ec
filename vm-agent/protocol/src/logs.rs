//! A guest service's log for the host, on [`crate::ports::LOGS`].
//!
//! The host sends [`LogsRequest`] as a line, the guest answers [`LogsReply`] as a line, then the log's bytes until its end, or,
//! with `follow`, until the host closes.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsRequest {
    pub version: u32,
    pub source: LogSource,
    #[serde(default)]
    pub follow: bool,
    /// Only so many last lines; everything when left out.
    #[serde(default)]
    pub tail: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogSource {
    Daemon,
    Supervisor,
    Agent,
    /// The kernel's ring, where init writes too.
    Kernel,
}

impl LogSource {
    /// The service's name, as in `/run/longshore/log/NAME.log`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Supervisor => "supervisor",
            Self::Agent => "agent",
            Self::Kernel => "kernel",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogsReply {
    Follows,
    Error(String),
}
