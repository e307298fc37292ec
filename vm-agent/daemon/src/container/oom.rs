//! Kills for want of memory: `OOMKilled` and the `oom` event, as the supervisor's events tell them.

use super::exit::Exit;
use super::metrics;
use super::store::Entry;
use crate::config::NAMESPACE;
use crate::state::Daemon;
use crate::supervisor::api::{self, events::TaskOom};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;

/// 128 + SIGKILL: what the kernel kills with.
const KILLED: i32 = 137;
/// How long an exit waits for the event of the kill that caused it.
const EVENT_PATIENCE: Duration = Duration::from_secs(2);
/// Before the events are subscribed to again.
const PAUSE: Duration = Duration::from_millis(100);

/// Follows the supervisor's events for ever; it keeps those that happen while nobody listens.
pub async fn watch(daemon: Arc<Daemon>) {
    loop {
        if let Err(status) = follow(&daemon).await {
            tracing::debug!(%status, "the supervisor's events end; subscribing again");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow(daemon: &Daemon) -> Result<(), Status> {
    let request = api::SubscribeRequest {
        filters: vec![format!("topic==/tasks/oom,namespace=={NAMESPACE}")],
    };
    let mut events = daemon
        .supervisor
        .events()
        .subscribe(request)
        .await?
        .into_inner();
    while let Some(envelope) = events.message().await? {
        let value = envelope.event.unwrap_or_default().value;
        let event = TaskOom::decode(&value[..]).unwrap_or_default();
        // One of a container that has been removed meanwhile is nobody's.
        if let Ok(entry) = daemon.containers.entry(&event.container_id) {
            note(daemon, &entry);
        }
    }
    Ok(())
}

fn note(daemon: &Daemon, entry: &Entry) {
    daemon
        .containers
        .change_state(entry, false, |state| state.oom_killed = true);
    daemon.containers.publish(&entry.now(), "oom", &[]);
}

/// Before an exit is taken note of: whether the kernel was its cause. The event of the kill comes on another road than
/// the exit, so it is waited for where the cgroup's counter says that there is one.
pub async fn settle(daemon: &Daemon, entry: &Entry, exit: Exit) {
    let container = entry.now();
    let state = &container.state;
    if exit.code != KILLED || state.stopped_by_hand || state.oom_killed {
        return;
    }
    let kills = match metrics::of_task(&daemon.supervisor, &container.id).await {
        Ok((_, metrics)) => metrics.memory_events.map_or(0, |events| events.oom_kill),
        Err(_) => return,
    };
    if kills == 0 {
        return;
    }
    let mut states = entry.watch();
    let told = states.wait_for(|container| container.state.oom_killed);
    if tokio::time::timeout(EVENT_PATIENCE, told).await.is_err() {
        note(daemon, entry);
    }
}
