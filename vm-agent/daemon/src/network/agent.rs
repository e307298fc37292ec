//! The guest's agent, through its local socket: published ports on the host, and the host's shares.
//!
//! On a machine without an agent there is no such socket: ports are published inside only, and any path may be bound.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use longshore_protocol::control::ShareStatus;
use longshore_protocol::line::{LineError, read_json, write_json};
use longshore_protocol::local::{LocalReply, LocalRequest, LocalRequestLine, SOCKET_PATH};
use longshore_protocol::port_news::{Publication, Published};
use tokio::io::BufReader;
use tokio::net::UnixStream;

/// The host answers in milliseconds; while its service restarts, the agent keeps the question.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("connect to the agent: {0}")]
    Connect(#[source] std::io::Error),
    #[error("talk to the agent: {0}")]
    Line(#[from] LineError),
    #[error("the agent closed the connection")]
    Closed,
    #[error("the agent did not answer in time")]
    TimedOut,
    /// In the host's words, for the user.
    #[error("{0}")]
    Refused(String),
    #[error("the agent answered something else")]
    Unexpected,
}

/// A conversation with the agent.
pub struct Agent {
    stream: BufReader<UnixStream>,
}

/// Whether this machine has an agent at all.
pub fn is_present() -> bool {
    PathBuf::from(SOCKET_PATH).exists()
}

impl Agent {
    pub async fn connect() -> Result<Self, AgentError> {
        let stream = UnixStream::connect(SOCKET_PATH)
            .await
            .map_err(AgentError::Connect)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    async fn ask(&mut self, request: LocalRequest) -> Result<LocalReply, AgentError> {
        let line = LocalRequestLine {
            version: longshore_protocol::VERSION,
            request,
        };
        write_json(&mut self.stream, &line).await?;
        let reply = tokio::time::timeout(PATIENCE, read_json(&mut self.stream))
            .await
            .map_err(|_| AgentError::TimedOut)??;
        match reply {
            Some(LocalReply::Error(words)) => Err(AgentError::Refused(words)),
            Some(reply) => Ok(reply),
            None => Err(AgentError::Closed),
        }
    }

    /// The address that the port is bound to on the host.
    pub async fn publish(&mut self, publication: Publication) -> Result<SocketAddr, AgentError> {
        match self.ask(LocalRequest::Publish(publication)).await? {
            LocalReply::Published(Published::Bound(address)) => Ok(address),
            LocalReply::Published(Published::Error(words)) => Err(AgentError::Refused(words)),
            _ => Err(AgentError::Unexpected),
        }
    }

    pub async fn withdraw(&mut self, key: String) -> Result<(), AgentError> {
        self.ask(LocalRequest::Withdraw { key }).await.map(drop)
    }

    /// Withdraws all that is not in `keys`.
    pub async fn retain(&mut self, keys: Vec<String>) -> Result<(), AgentError> {
        self.ask(LocalRequest::Retain { keys }).await.map(drop)
    }

    /// The host's folders as they are mounted now.
    pub async fn shares(&mut self) -> Result<Vec<ShareStatus>, AgentError> {
        match self.ask(LocalRequest::Shares).await? {
            LocalReply::Shares(shares) => Ok(shares),
            _ => Err(AgentError::Unexpected),
        }
    }

    /// Returns when the agent has gone.
    pub async fn gone(mut self) {
        let _ = read_json::<serde_json::Value, _>(&mut self.stream).await;
    }
}
