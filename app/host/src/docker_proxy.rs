//! The Docker socket: carried to the guest's daemon; while the VM boots, clients wait; without one, they are told.

use std::sync::Arc;
use std::time::Duration;

use longshore_local_socket::{Listener, Stream, hung_up};
use longshore_protocol::ports;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::accept::accept;
use crate::channel;
use crate::phase::{Phase, PhaseReceiver};
use crate::splice;

/// How long a client waits for a VM that boots.
const BOOT_PATIENCE: Duration = Duration::from_secs(180);
/// How long a refused client may take to send its request and read the answer.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(5);

/// Serves the socket until told to end.
pub async fn serve(
    listener: Listener,
    phase: PhaseReceiver,
    channel: std::path::PathBuf,
    end: CancellationToken,
) {
    // More wait in the socket's backlog, and with them whoever comes then.
    let slots = Arc::new(Semaphore::new(ports::MAX_DOCKER_CLIENTS));
    accept(listener, slots, end, "a Docker client", |client| {
        let (phase, channel) = (phase.clone(), channel.clone());
        async move { carry(client, phase, &channel).await }
    })
    .await;
}

async fn carry(client: Stream, phase: PhaseReceiver, channel: &std::path::Path) {
    if let Err(why) = wait_ready(phase).await {
        return refuse(client, &why).await;
    }
    match channel::dial(channel, ports::DOCKER).await {
        Ok(guest) => {
            let gone = hung_up(&client);
            if let Err(error) = splice::splice(client, guest, gone).await {
                tracing::debug!(%error, "a Docker connection ended");
            }
        }
        Err(error) => {
            tracing::warn!(%error, "a Docker client could not be connected");
            refuse(
                client,
                &format!("Longshore's VM does not answer: {error}. Try: longshore doctor"),
            )
            .await;
        }
    }
}

async fn wait_ready(mut phase: PhaseReceiver) -> Result<(), String> {
    let settled = phase.wait_for(|p| !matches!(p, Phase::Starting { .. }));
    match tokio::time::timeout(BOOT_PATIENCE, settled).await {
        Ok(Ok(phase)) => match &*phase {
            Phase::Running => Ok(()),
            Phase::Paused { why } => Err(format!("Longshore's VM is paused: {why}")),
            Phase::Failed { why } => Err(format!(
                "Longshore's VM has failed: {why}. Start it again with: longshore start"
            )),
            Phase::Stopping => Err("Longshore's VM is stopping".to_owned()),
            _ => Err("Longshore's VM is stopped. Start it with: longshore start".to_owned()),
        },
        Ok(Err(_)) => Err("Longshore's host service is ending".to_owned()),
        Err(_) => Err("Longshore's VM is still starting. Look at: longshore status".to_owned()),
    }
}

/// Answers as the daemon would, so that any client shows the text: `{"message": …}` (Engine API, ErrorResponse).
async fn refuse(mut client: impl AsyncRead + AsyncWrite + Unpin, why: &str) {
    let body = serde_json::json!({ "message": why }).to_string();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let answer = async {
        let mut buffer = vec![0; 8192];
        // An answer before the question is a protocol error to Go's client.
        let mut seen = client.read(&mut buffer).await?;
        let headless = buffer.starts_with(b"HEAD ");
        client.write_all(head.as_bytes()).await?;
        if !headless {
            client.write_all(body.as_bytes()).await?;
        }
        client.shutdown().await?;
        // Closing with unread input would reset the connection under the answer.
        while seen > 0 {
            seen = client.read(&mut buffer).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    let _ = tokio::time::timeout(REFUSAL_PATIENCE, answer).await;
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stopped_vm_is_told_in_dockers_shape() {
        for (request, has_body) in [
            ("GET /info HTTP/1.1\r\n\r\n", true),
            ("HEAD /_ping HTTP/1.1\r\n\r\n", false),
        ] {
            let (mut client, server) = tokio::io::duplex(4096);
            let task = tokio::spawn(async move { refuse(server, "it is stopped").await });
            client.write_all(request.as_bytes()).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 503 "));
            assert_eq!(answer.ends_with(r#"{"message":"it is stopped"}"#), has_body);
            task.await.unwrap();
        }
    }
}
