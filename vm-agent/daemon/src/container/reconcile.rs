//! After a start of the daemon: what the records say, held against what the supervisor really has.

use super::exit::{self, Exit};
use super::record::{Container, State, Status};
use super::store::{Containers, Entry};
use super::{health, neighbours, oom, remove, restart, snapshot, task};
use crate::config::SNAPSHOTTER;
use crate::error::ApiResult;
use crate::exec;
use crate::state::Daemon;
use crate::supervisor::api::{self, snapshots, types::v1 as tasks};
use crate::supervisor::{is_away, is_restart};
use chrono::{DateTime, Utc};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a request waits for the supervisor before it is answered from the records alone.
const PATIENCE: Duration = Duration::from_secs(20);

impl Containers {
    /// Every container's volumes are in use from the start.
    pub fn reference_volumes(&self, daemon: &Daemon) {
        for container in self.list() {
            neighbours::reference_volumes(daemon, &container);
        }
    }

    /// Returns when it is known which containers run.
    pub async fn settled(&self) {
        let mut settled = self.settled.subscribe();
        if *settled.borrow() {
            return;
        }
        let _ = tokio::time::timeout(PATIENCE, settled.wait_for(|settled| *settled)).await;
    }
}

/// Runs once, in the background; requests on containers wait for it.
pub async fn run(daemon: Arc<Daemon>) {
    loop {
        match reconcile(&daemon).await {
            Ok(()) => break,
            Err(error) => {
                tracing::warn!(%error, "the supervisor does not answer; trying again");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    while let Err(status) = remove_orphans(&daemon).await {
        tracing::warn!(%status, "looking for what has no owner");
        if !is_restart(&status) {
            break;
        }
    }
}

async fn reconcile(daemon: &Arc<Daemon>) -> ApiResult<()> {
    daemon.supervisor.ensure_namespace().await?;
    let listed = daemon.supervisor.retry(|supervisor| async move {
        supervisor
            .tasks()
            .list(api::ListTasksRequest::default())
            .await
    });
    let tasks: HashMap<String, tasks::Process> = listed
        .await?
        .tasks
        .into_iter()
        .map(|process| (process.id.clone(), process))
        .collect();
    let mut to_start = Vec::new();
    for entry in daemon.containers.entries() {
        let container = entry.now();
        announce(daemon, &entry, &container);
        let container = entry.now();
        if settle(daemon, &entry, &container, tasks.get(&container.id)).await {
            to_start.push(entry);
        }
    }
    exec::adopt(daemon).await;
    daemon.containers.settled.send_replace(true);
    for entry in to_start {
        restart::after(daemon, &entry, Duration::ZERO);
    }
    Ok(())
}

/// Tells what the last life of the daemon wrote down and did not come to tell.
fn announce(daemon: &Daemon, entry: &Entry, container: &Container) {
    let state = &container.state;
    if !state.creation_unannounced && !state.exit_unannounced {
        return;
    }
    if state.creation_unannounced {
        daemon.containers.announce(container, "create", None, &[]);
    }
    if state.exit_unannounced {
        exit::announce(daemon, container);
    }
    daemon.containers.change_state(entry, false, |state| {
        state.creation_unannounced = false;
        state.exit_unannounced = false;
    });
}

/// Whether a stopped task ended after everything that its container's record knows of: started, and ended, just as the
/// daemon died.
fn ended_unseen(state: &State, process: &tasks::Process) -> bool {
    let ended = process.exited_at.filter(|at| at.seconds > 0);
    ended.is_some() && state.finished_at < Some(Exit::new(process.exit_status, ended).at)
}

/// Brings one record in line; true when the container is to be started.
async fn settle(
    daemon: &Arc<Daemon>,
    entry: &Arc<Entry>,
    container: &Container,
    process: Option<&tasks::Process>,
) -> bool {
    let containers = &daemon.containers;
    if let Some(process) = process {
        if container.state.is_running() {
            neighbours::hold_volumes(daemon, container).await;
        }
        match process.status() {
            tasks::Status::Running | tasks::Status::Paused => {
                adopt(daemon, entry, container, process);
                return false;
            }
            tasks::Status::Stopped
                if container.state.is_running() || ended_unseen(&container.state, process) =>
            {
                let at = process.exited_at.filter(|at| at.seconds > 0);
                let exit = Exit::new(process.exit_status, at);
                if !container.state.is_running() {
                    started_unseen(daemon, entry, container, process.pid, exit.at);
                }
                oom::settle(daemon, entry, exit).await;
                exit::handle(daemon, entry, exit).await;
                return false;
            }
            // Created and never started, or known to have ended: of no use.
            _ => task::take_away(daemon, entry).await,
        }
    }
    if container.state.is_running() {
        // Another boot, or a shim that is gone: nobody knows how it ended.
        let same_boot = *container.state.boot == *containers.boot;
        if same_boot {
            exit::handle(daemon, entry, Exit::unknown()).await;
            return false;
        }
        let mut ended = State {
            status: Status::Exited,
            pid: 0,
            exit_code: exit::UNKNOWN_EXIT,
            finished_at: Some(Utc::now()),
            ..container.state.clone()
        };
        health::ended(&mut ended);
        containers.change_state(entry, true, |state| *state = ended);
    }
    // What the last life prepared for a start, or had not come to give back after an end.
    neighbours::release_network(daemon, container).await;
    let state = entry.now().state.clone();
    if container.host_config.auto_remove && state.status != Status::Created {
        remove::automatically(daemon, entry).await;
        return false;
    }
    let new_boot = *state.boot != *containers.boot;
    let again = match state.status {
        Status::Restarting => true,
        _ => new_boot && restart::wanted_at_boot(&container.host_config.restart_policy, &state),
    };
    if again {
        containers.change_state(entry, false, |state| state.status = Status::Restarting);
    }
    again
}

/// A container that runs goes on as it is.
fn adopt(
    daemon: &Arc<Daemon>,
    entry: &Arc<Entry>,
    container: &Container,
    process: &tasks::Process,
) {
    let status = match process.status() {
        tasks::Status::Paused => Status::Paused,
        _ => Status::Running,
    };
    if !container.state.is_running() {
        started_unseen(daemon, entry, container, process.pid, Utc::now());
    }
    daemon.containers.change_state(entry, false, |state| {
        state.status = status;
        state.pid = process.pid;
    });
    exit::monitor(daemon, entry);
    if status == Status::Running {
        health::watch(daemon, entry);
    }
}

/// Writes down a start that the daemon died after.
fn started_unseen(
    daemon: &Daemon,
    entry: &Entry,
    container: &Container,
    pid: u32,
    at: DateTime<Utc>,
) {
    daemon.containers.change_state(entry, false, |state| {
        task::started(daemon, container, state, pid, at);
    });
    let since = container.state.finished_at;
    daemon.containers.announce(container, "start", since, &[]);
}

/// Deletes layers and records of containers that do not exist any more (or not yet, when the power went). After a failure another
/// call finds what is left.
async fn remove_orphans(daemon: &Daemon) -> Result<(), tonic::Status> {
    // Requests are answered meanwhile, and a new container has a layer before it has a record.
    let known = |id: &str| daemon.containers.is_taken(id);
    let is_ours = |id: &str| id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let listed = daemon.supervisor.retry(|supervisor| async move {
        let request = api::ListContainersRequest::default();
        supervisor.containers().list(request).await
    });
    for record in listed
        .await?
        .containers
        .iter()
        .filter(|record| is_ours(&record.id) && !known(&record.id))
    {
        tracing::info!(id = %record.id, "removing a container that nobody owns");
        let removed = task::clean_up_task(daemon, &record.id).await;
        if is_away(&removed) {
            return removed;
        }
    }
    let request = snapshots::ListSnapshotsRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        ..Default::default()
    };
    let listed = daemon.supervisor.retry(|supervisor| {
        let request = request.clone();
        async move { supervisor.snapshots().list(request).await }
    });
    let mut stream = listed.await?;
    while let Some(page) = stream.message().await? {
        for info in page
            .info
            .iter()
            .filter(|info| is_ours(&info.name) && !known(&info.name))
        {
            tracing::info!(id = %info.name, "removing a layer that nobody owns");
            let _ = snapshot::remove(&daemon.containers, &info.name).await;
        }
    }
    Ok(())
}
