//! A container's end: noticed, written down, cleaned up after, told; then restarted or removed as it asked.

use super::record::{Container, State, Status};
use super::store::Entry;
use super::{health, neighbours, oom, remove, restart, task};
use crate::state::Daemon;
use crate::supervisor::{api, is_restart};
use chrono::{DateTime, Utc};
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

/// Code of a container whose end nobody saw: power cut, lost shim.
pub const UNKNOWN_EXIT: i32 = 255;

/// How a process ended.
#[derive(Debug, Clone, Copy)]
pub struct Exit {
    pub code: i32,
    pub at: DateTime<Utc>,
}

impl Exit {
    pub fn unknown() -> Self {
        Exit {
            code: UNKNOWN_EXIT,
            at: Utc::now(),
        }
    }

    pub fn new(code: u32, at: Option<prost_types::Timestamp>) -> Self {
        let time =
            at.and_then(|at| DateTime::from_timestamp(at.seconds, u32::try_from(at.nanos).ok()?));
        Exit {
            code: code as i32,
            at: time.unwrap_or_else(Utc::now),
        }
    }
}

/// Waits in the background for the container's end.
pub fn monitor(daemon: &Arc<Daemon>, entry: &Arc<Entry>) {
    if std::mem::replace(&mut entry.live().monitored, true) {
        return;
    }
    let (daemon, entry) = (daemon.clone(), entry.clone());
    tokio::spawn(async move {
        let id = entry.now().id.clone();
        let exit = wait(&daemon, &id, "").await;
        oom::settle(&daemon, &entry, exit).await;
        entry.live().monitored = false;
        handle(&daemon, &entry, exit).await;
    });
}

/// The end of a task's process, or of its exec `exec_id`; goes on over restarts of the supervisor.
pub async fn wait(daemon: &Daemon, id: &str, exec_id: &str) -> Exit {
    loop {
        let request = api::WaitRequest {
            container_id: id.to_owned(),
            exec_id: exec_id.to_owned(),
        };
        match daemon.supervisor.tasks().wait(request).await {
            Ok(response) => {
                let response = response.into_inner();
                return Exit::new(response.exit_status, response.exited_at);
            }
            Err(status) if status.code() == Code::NotFound => return Exit::unknown(),
            Err(status) => {
                if !is_restart(&status) {
                    tracing::warn!(%status, id, exec_id, "waiting for a process; trying again");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Takes note of an exit. Order matters, so that a kill -9 at any point loses neither code nor event: the exit goes to
/// disk, everything is cleaned up, its event goes to the journal, and only then readers and waiters are told.
pub async fn handle(daemon: &Arc<Daemon>, entry: &Arc<Entry>, exit: Exit) {
    let containers = &daemon.containers;
    health::stop(entry);
    let container = entry.now();
    let before = container.state.clone();
    let mut state = State {
        status: Status::Exited,
        pid: 0,
        exit_code: exit.code,
        finished_at: Some(exit.at),
        exit_unannounced: true,
        ..before.clone()
    };
    health::ended(&mut state);
    containers.write_state(entry, true, &state);
    tokio::join!(
        task::take_away(daemon, entry),
        neighbours::release_network(daemon, &container),
        neighbours::unmount_volumes(daemon, &container)
    );
    daemon
        .containers
        .publish(&container, "die", &die_attributes(&state));
    state.exit_unannounced = false;
    let ran = before
        .started_at
        .map(|started| (exit.at - started).to_std().unwrap_or_default());
    let delay = entry.live().backoff.next(ran.unwrap_or_default());
    // A stop that came while this was cleaning up counts.
    state.stopped_by_hand = entry.now().state.stopped_by_hand;
    state.oom_killed |= entry.now().state.oom_killed;
    // What ends with the machine is looked at again when the daemon comes up.
    let again = !daemon.closing.is_cancelled()
        && restart::wanted(
            &container.host_config.restart_policy,
            &state,
            state.stopped_by_hand,
        );
    if again {
        state.status = Status::Restarting;
        state.restart_count += 1;
    }
    containers.change_state(entry, false, |current| *current = state);
    entry.exits.send_modify(|(count, code)| {
        *count += 1;
        *code = exit.code;
    });
    if again {
        restart::after(daemon, entry, delay);
    } else if container.host_config.auto_remove {
        let entry = entry.clone();
        let daemon = daemon.clone();
        tokio::spawn(async move { remove::automatically(&daemon, &entry).await });
    }
}

/// What the `die` event says.
fn die_attributes(state: &State) -> [(&'static str, String); 2] {
    let ran = match (state.started_at, state.finished_at) {
        (Some(started), Some(finished)) => (finished - started).num_seconds().max(0),
        _ => 0,
    };
    [
        ("execDuration", ran.to_string()),
        ("exitCode", state.exit_code.to_string()),
    ]
}

/// The `die` event of an exit that an earlier life of the daemon handled.
pub fn announce(daemon: &Daemon, container: &Container) {
    let state = &container.state;
    let more = die_attributes(state);
    let containers = &daemon.containers;
    containers.announce(container, "die", state.started_at, &more);
}
