//! `DELETE /containers/{id}`, `--rm` and prune: marked as removed on disk, then out of the supervisor, then out of every list.

use super::record::{Container, Status};
use super::store::Entry;
use super::{lifecycle, links, neighbours, signal, snapshot};
use crate::error::{ApiError, ApiResult};
use crate::http_message::{ApiRequest, ApiResponse, empty, ok_json};
use crate::state::Daemon;
use http::StatusCode;
use serde_json::json;
use std::sync::Arc;

/// How long a client may take to look at a container that it was told the end of.
const JUST_NOW: chrono::TimeDelta = chrono::TimeDelta::seconds(1);

pub async fn serve(daemon: Arc<Daemon>, request: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    let (force, volumes) = (request.query.flag("force"), request.query.flag("v"));
    let entry = daemon.containers.entry(&id)?;
    if request.query.flag("link") {
        links::remove(&daemon, &id).await?;
        return Ok(empty(StatusCode::NO_CONTENT));
    }
    remove(&daemon, &entry, &id, force, volumes).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `asked` is the name that the client used, for messages.
pub async fn remove(
    daemon: &Arc<Daemon>,
    entry: &Arc<Entry>,
    asked: &str,
    force: bool,
    volumes: bool,
) -> ApiResult<()> {
    entry.cancel_restart.notify_waiters();
    let Ok(_operation) = entry.operate().await else {
        // Removed by itself meanwhile.
        return Ok(());
    };
    let container = entry.now();
    if container.running {
        if !force {
            let what = match container.state.status {
                Status::Paused => "paused and must be unpaused first",
                _ => "running: stop the container before removing or force remove",
            };
            return Err(ApiError::conflict(format!(
                "cannot remove container \"{asked}\": container is {what}"
            )));
        }
        daemon
            .containers
            .change_state(entry, false, |state| state.stopped_by_hand = true);
        lifecycle::send_signal(daemon, &container, signal::KILL).await?;
        let ended = lifecycle::wait_until_ended(entry);
        if tokio::time::timeout(lifecycle::KILL_PATIENCE, ended)
            .await
            .is_err()
        {
            return Err(ApiError::internal(format!(
                "cannot remove container \"{asked}\": could not kill: did not receive an exit event"
            )));
        }
    }
    take_away(daemon, entry, volumes).await;
    Ok(())
}

/// After the end of a container with `--rm`.
pub async fn automatically(daemon: &Arc<Daemon>, entry: &Arc<Entry>) {
    let Ok(_operation) = entry.operate().await else {
        return;
    };
    if !entry.now().running {
        take_away(daemon, entry, true).await;
    }
}

/// Takes a stopped container away. One that ended just now can be inspected, as one that is being removed, until its layer is gone: a
/// client that is told of its end and looks (`docker compose logs --follow` crashes when it finds nothing) gets the time that Docker's
/// engine would give it. The layer of any other goes in the background.
async fn take_away(daemon: &Arc<Daemon>, entry: &Arc<Entry>, volumes: bool) {
    let container: Arc<Container> = entry.now();
    neighbours::release_volumes(daemon, &container, volumes).await;
    // Execs first: one that ended later would be written into the folder that goes next.
    daemon.execs.forget_container(&container.id);
    let containers = daemon.containers.clone();
    containers.mark_removed(entry);
    let ended_now =
        (container.state.finished_at).is_some_and(|end| chrono::Utc::now() - end < JUST_NOW);
    if !ended_now {
        containers.forget(entry);
    }
    let entry = entry.clone();
    // A client that hangs up must not leave half of it.
    let removal = tokio::spawn(async move {
        // The supervisor's removal lasts at once. A record that came back after a power cut would have no layer.
        if let Err(error) = containers.flush_removals().await {
            tracing::warn!(%error, id = %container.id, "flushing a container's removal");
        }
        // What a kill -9 leaves of it, the next start of the daemon finds without an owner and deletes.
        if let Err(error) = snapshot::remove(&containers, &container.id).await {
            tracing::warn!(%error, id = %container.id, "removing a container's layer");
        }
        if ended_now {
            containers.forget(&entry);
        }
    });
    if ended_now && let Err(error) = removal.await {
        tracing::error!(%error, "removing a container");
    }
}

pub async fn prune(daemon: Arc<Daemon>, request: ApiRequest) -> ApiResult<ApiResponse> {
    let filters = request.filters()?;
    filters.allow(&["label", "label!", "until"])?;
    let until = filters.until()?;
    let (mut deleted, mut reclaimed) = (Vec::new(), 0);
    for entry in daemon.containers.entries() {
        let container = entry.now();
        let old = until.is_none_or(|until| {
            container
                .created
                .timestamp_nanos_opt()
                .is_some_and(|made| made < until)
        });
        let idle = !container.running && container.state.status != Status::Restarting;
        if !(old && idle && filters.labels(&container.config.labels)) {
            continue;
        }
        let size = snapshot::usage(&daemon.containers, &container.id)
            .await
            .unwrap_or_default();
        if remove(&daemon, &entry, &container.id, false, false)
            .await
            .is_ok()
        {
            deleted.push(container.id.clone());
            reclaimed += size;
        }
    }
    daemon.events.publish(
        "container",
        "prune",
        "",
        [("reclaimed".to_owned(), reclaimed.to_string())].into(),
    );
    let deleted = if deleted.is_empty() {
        json!(null)
    } else {
        json!(deleted)
    };
    ok_json(&json!({ "ContainersDeleted": deleted, "SpaceReclaimed": reclaimed }))
}
