//! The agent's socket for the guest's other services.

use crate::setup::Agent;
use crate::shares;
use longshore_protocol::check_version;
use longshore_protocol::line::{LineError, read_json, write_json};
use longshore_protocol::local::{LocalReply, LocalRequest, LocalRequestLine, SOCKET_PATH};
use std::io;
use std::os::fd::FromRawFd;
use std::sync::Arc;
use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};

#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("listen on {SOCKET_PATH}: {0}")]
    Listen(#[source] io::Error),
    #[error("accept on {SOCKET_PATH}: {0}")]
    Accept(#[source] io::Error),
}

/// Serves for ever.
pub async fn serve(agent: Arc<Agent>) -> Result<(), LocalError> {
    let listener = listener().map_err(LocalError::Listen)?;
    loop {
        let (stream, _) = listener.accept().await.map_err(LocalError::Accept)?;
        let agent = agent.clone();
        tokio::spawn(async move {
            if let Err(error) = serve_one(&agent, stream).await {
                tracing::warn!("local socket: {error}");
            }
        });
    }
}

/// Init's listener (sd_listen_fds(3)), or one of our own where there is no init.
fn listener() -> io::Result<UnixListener> {
    let variable = |name| std::env::var(name).ok();
    let ours = variable("LISTEN_PID").is_some_and(|pid| pid == std::process::id().to_string());
    let listener = if ours && variable("LISTEN_FDS").as_deref() == Some("1") {
        // SAFETY: init passes exactly this descriptor, to this process, and nothing else here uses it.
        unsafe { std::os::unix::net::UnixListener::from_raw_fd(3) }
    } else {
        let _ = std::fs::remove_file(SOCKET_PATH);
        std::os::unix::net::UnixListener::bind(SOCKET_PATH)?
    };
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

async fn serve_one(agent: &Agent, stream: UnixStream) -> Result<(), LineError> {
    let mut stream = BufReader::new(stream);
    while let Some(line) = read_json::<LocalRequestLine, _>(&mut stream).await? {
        let reply = match check_version(line.version) {
            Ok(()) => answer(agent, line.request).await,
            Err(mismatch) => LocalReply::Error(mismatch.to_string()),
        };
        write_json(&mut stream, &reply).await?;
    }
    Ok(())
}

async fn answer(agent: &Agent, request: LocalRequest) -> LocalReply {
    match request {
        LocalRequest::Publish(publication) => {
            LocalReply::Published(agent.news.publish(publication).await)
        }
        LocalRequest::Withdraw { key } => {
            agent.news.withdraw(key).await;
            LocalReply::Done
        }
        LocalRequest::Retain { keys } => {
            agent.news.retain(keys).await;
            LocalReply::Done
        }
        LocalRequest::Publications => LocalReply::Publications(agent.news.publications().await),
        LocalRequest::Shares => LocalReply::Shares(shares::list()),
    }
}
