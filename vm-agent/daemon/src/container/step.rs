//! Containers that the engine makes for itself: a step of a build, run to its end with its output read.

use super::config::CreateRequest;
use super::{create, remove, task};
use crate::error::{ApiError, ApiResult};
use crate::state::Daemon;
use bytes::Bytes;
use longshore_container_log::{
    AttachClient, AttachEvent, AttachOptions, Start, StreamKind, Streams,
};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Creates a container; its id.
pub async fn step_container(daemon: &Arc<Daemon>, request: CreateRequest) -> ApiResult<String> {
    daemon.containers.settled().await;
    let (id, _warnings) = create::create(daemon, None, request).await?;
    Ok(id)
}

/// Starts a container and waits for its end; its exit code. `output` gets what it says, true for standard error.
pub async fn run_attached(
    daemon: &Arc<Daemon>,
    id: &str,
    output: mpsc::Sender<(bool, Bytes)>,
) -> ApiResult<i32> {
    let entry = daemon.containers.entry(id)?;
    let (sender, started) = oneshot::channel();
    entry.live().attaching.push(sender);
    let mut exits = entry.exits.subscribe();
    let (before, _) = *exits.borrow_and_update();
    let starting = async {
        let _operation = entry.operate().await?;
        task::start(daemon, &entry).await
    };
    let folder = daemon.containers.folder(&entry.now().id);
    let reading = async move {
        // Closed without a word when the start fails.
        let Ok(acknowledge) = started.await else {
            return Ok::<(), ApiError>(());
        };
        let acknowledge: oneshot::Sender<()> = acknowledge;
        let options = AttachOptions {
            streams: Streams {
                stdout: true,
                stderr: true,
                wake: false,
            },
            start: Start::Oldest,
            ..AttachOptions::default()
        };
        let client = AttachClient::connect(&folder, options).await;
        let _ = acknowledge.send(());
        let mut client = client.map_err(|error| {
            ApiError::internal(format!("connecting to the container's output: {error}"))
        })?;
        while let Ok(Some(event)) = client.next().await {
            if let AttachEvent::Output(stream, bytes) = event {
                let _ = output.send((stream == StreamKind::Stderr, bytes)).await;
            }
        }
        Ok(())
    };
    let (started, read) = tokio::join!(starting, reading);
    started?;
    read?;
    match exits.wait_for(|(count, _)| *count > before).await {
        Ok(seen) => Ok(seen.1),
        Err(_) => Err(ApiError::internal("the container vanished while it ran")),
    }
}

/// Removes a container, whatever it does.
pub async fn take_down(daemon: &Arc<Daemon>, id: &str) {
    let Ok(entry) = daemon.containers.entry(id) else {
        return;
    };
    if let Err(error) = remove::remove(daemon, &entry, id, true, true).await {
        tracing::warn!(%error, id, "removing a build's container");
    }
}
