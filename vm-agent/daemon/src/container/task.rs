//! Starting a container: network, specification, record and task at the supervisor, and its first moments.

use super::config::HostConfig;
use super::record::{Container, State, Status};
use super::rootfs::{self, mount_detached_read_only};
use super::spec::{self, Surroundings};
use super::stdio::{self, Stdio};
use super::store::Entry;
use super::validate::Machine;
use super::{exit, health, links, neighbours, remove, snapshot};
use crate::config::SNAPSHOTTER;
use crate::error::{ApiError, ApiResult};
use crate::state::Daemon;
use crate::supervisor::api::{self, types};
use crate::supervisor::{is_away, unless_gone};
use chrono::{DateTime, Utc};
use prost::Message;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tracing::Instrument;

/// What a container has only while this daemon runs.
#[derive(Default)]
pub struct Live {
    /// From `Prepare`, so that the first start need not ask again.
    pub rootfs: Option<Vec<types::Mount>>,
    /// Clients that attached before the start: each is told that the task is there, and tells when it listens.
    pub attaching: Vec<oneshot::Sender<oneshot::Sender<()>>>,
    /// A monitor waits for the task's end.
    pub monitored: bool,
    /// Ends the health checks that go on.
    pub health: Option<CancellationToken>,
    /// When the back-off of restarts was last reset.
    pub backoff: super::restart::Backoff,
}

/// Options of runc's shim (containerd.runc.v1.Options); ours reads the same.
#[derive(Clone, PartialEq, Message)]
struct RuncOptions {
    #[prost(string, tag = "6")]
    binary_name: String,
}

const OPTIONS_TYPE: &str = "containerd.runc.v1.Options";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

pub fn any(type_url: &str, value: Vec<u8>) -> prost_types::Any {
    prost_types::Any {
        type_url: type_url.to_owned(),
        value,
    }
}

/// Starts what is not running; the caller holds the container's operation lock.
pub async fn start(daemon: &Arc<Daemon>, entry: &Arc<Entry>) -> ApiResult<()> {
    if daemon.closing.is_cancelled() {
        return Err(ApiError::unavailable("the engine is shutting down"));
    }
    let container = entry.now();
    match container.state.status {
        Status::Running => return Err(ApiError::not_modified()),
        Status::Paused => {
            return Err(ApiError::conflict(
                "cannot start a paused container, try unpause instead",
            ));
        }
        Status::Removing | Status::Dead => {
            return Err(ApiError::conflict(
                "container is marked for removal and cannot be started",
            ));
        }
        Status::Created | Status::Exited | Status::Restarting => {}
    }
    let started = run(daemon, entry, &container).await;
    // Clients that still wait for the task learn from the closed channel that there is none.
    entry.live().attaching.clear();
    if let Err(error) = &started {
        clean_up(daemon, entry, &container).await;
        let (code, message) = (exit_code_of(error), error.message.clone());
        daemon.containers.change_state(entry, false, |state| {
            state.exit_code = code;
            state.error = message;
            state.pid = 0;
            if state.status == Status::Restarting {
                state.status = Status::Exited;
            }
        });
    }
    if started.is_err() && container.host_config.auto_remove {
        // The client waits for the removal; it can begin when the caller lets the operation lock go.
        let (daemon, entry) = (daemon.clone(), entry.clone());
        tokio::spawn(async move { remove::automatically(&daemon, &entry).await });
    }
    started.map_err(|error| match exit_code_of(&error) {
        // Docker answers 400 for a command that cannot be run; the CLI exits with 127 or 126 by its words.
        126 | 127 => ApiError::bad_request(error.message),
        _ => error,
    })
}

async fn run(daemon: &Arc<Daemon>, entry: &Arc<Entry>, container: &Container) -> ApiResult<()> {
    let containers = &daemon.containers;
    refuse_devices(&container.host_config)?;
    let mounts = entry.live().rootfs.take();
    let mounts = async {
        let mounts = match mounts {
            Some(mounts) => mounts,
            None => snapshot::mounts(containers, &container.id).await?,
        };
        Ok::<_, ApiError>(containers.with_init_layer(mounts, &container.shim))
    };
    let network = neighbours::attach_network(daemon, container);
    let network = network.instrument(tracing::info_span!("network"));
    // The other half of the preparation knows where the network will be, and need not wait for it.
    let namespace = neighbours::network_namespace(daemon, container)?;
    let record = async {
        let mounts = mounts.await?;
        let surroundings = surroundings(daemon, container, namespace, &mounts)
            .instrument(tracing::info_span!("volumes and accounts"))
            .await?;
        let spec = spec::generate(container, &surroundings)?;
        create_record(daemon, container, &spec)
            .instrument(tracing::info_span!("record"))
            .await?;
        Ok::<_, ApiError>(mounts)
    };
    let (mounts, network) = tokio::join!(record, network);
    network?;
    let mounts = mounts?;
    let stdio = stdio::of_task(containers, container).await?;
    let pid = create_task(daemon, container, mounts, stdio).await?;
    meet_clients(entry).await;
    // Before its first line of output: clients ask for the logs since the container's start.
    let started_at = Utc::now();
    let start = api::StartRequest {
        container_id: container.id.clone(),
        exec_id: String::new(),
    };
    containers
        .supervisor
        .tasks()
        .start(start)
        .await
        .map_err(|status| ApiError::from(status).context("failed to start task for container"))?;
    // Told before it is written down: if we die in between, the next life finds a task that no record knows, and tells of it
    // unless the journal has it.
    containers.change_in_memory(entry, |state| {
        started(daemon, container, state, pid, started_at);
    });
    containers.publish(&entry.now(), "start", &[]);
    containers.change_state(entry, false, |_| {});
    links::announce(daemon, container);
    exit::monitor(daemon, entry);
    health::watch(daemon, entry);
    Ok(())
}

/// What a container is that has just been started.
pub fn started(
    daemon: &Daemon,
    container: &Container,
    state: &mut State,
    pid: u32,
    at: DateTime<Utc>,
) {
    state.status = Status::Running;
    state.pid = pid;
    state.exit_code = 0;
    state.error.clear();
    state.oom_killed = false;
    state.stopped_by_hand = false;
    state.started_at = Some(at);
    state.boot = daemon.containers.boot.to_string();
    health::reset(&container.config, state);
}

/// `--gpus` and other requests for devices by what they can do: nothing here has any.
fn refuse_devices(host: &HostConfig) -> ApiResult<()> {
    let Some(request) = host.resources.device_requests.iter().flatten().next() else {
        return Ok(());
    };
    let words = |list: &Value| {
        let words = list.as_array().into_iter().flatten();
        let words: Vec<&str> = words.filter_map(Value::as_str).collect();
        format!("[{}]", words.join(" "))
    };
    let capabilities = request["Capabilities"].as_array().into_iter().flatten();
    let capabilities: Vec<String> = capabilities.map(words).collect();
    Err(ApiError::internal(format!(
        "could not select device driver {:?} with capabilities: [{}]",
        request["Driver"].as_str().unwrap_or_default(),
        capabilities.join(" ")
    )))
}

async fn surroundings(
    daemon: &Daemon,
    container: &Container,
    network_namespace: Option<PathBuf>,
    mounts: &[types::Mount],
) -> ApiResult<Surroundings> {
    let host = &container.host_config;
    let settings = daemon.config.settings();
    let peer = |mode: &str| match mode.strip_prefix("container:") {
        None => Ok(None),
        Some(name) => {
            let peer = daemon.containers.get(name)?;
            match peer.running {
                true => Ok(Some(peer.pid)),
                false => Err(ApiError::conflict(format!(
                    "cannot join IPC of a non running container: {}",
                    peer.id
                ))),
            }
        }
    };
    let rootfs = mount_detached_read_only(mounts.to_vec()).await?;
    neighbours::mount_volumes(daemon, container).await?;
    neighbours::copy_up(daemon, container, &rootfs).await?;
    let accounts = rootfs::accounts(&rootfs);
    let user = accounts.look_up(
        &container.config.user,
        host.group_add.as_deref().unwrap_or_default(),
    )?;
    let init = host.init.unwrap_or_else(|| settings.flag("init", false));
    let ulimits: std::collections::BTreeMap<String, super::config::Ulimit> =
        settings.typed("default-ulimits").unwrap_or_default();
    let default_ulimits = ulimits.into_iter().map(|(key, mut limit)| {
        limit.name = key;
        limit
    });
    Ok(Surroundings {
        folder: daemon.containers.folder(&container.id),
        network_namespace,
        user,
        init: init.then(|| daemon.config.init_binary()),
        pid_peer: peer(&host.pid_mode)?,
        ipc_peer: peer(&host.ipc_mode)?,
        swap_limit: Machine::detect().swap_limit,
        default_ulimits: default_ulimits.collect(),
        no_new_privileges: settings.flag("no-new-privileges", false),
        linked: links::environment(daemon, container)?,
    })
}

/// The supervisor's record of the container; one that an earlier life left is replaced.
async fn create_record(
    daemon: &Daemon,
    container: &Container,
    spec: &serde_json::Value,
) -> ApiResult<()> {
    let options = (!container.runtime_binary.is_empty()).then(|| {
        let options = RuncOptions {
            binary_name: container.runtime_binary.clone(),
        };
        any(OPTIONS_TYPE, options.encode_to_vec())
    });
    let record = api::Container {
        id: container.id.clone(),
        image: container.image.clone(),
        runtime: Some(api::container::Runtime {
            name: container.shim.clone(),
            options,
        }),
        spec: Some(any(SPEC_TYPE, serde_json::to_vec(spec)?)),
        snapshotter: SNAPSHOTTER.to_owned(),
        snapshot_key: container.id.clone(),
        ..Default::default()
    };
    let create = || {
        let record = record.clone();
        daemon.supervisor.retry(move |supervisor| {
            let request = api::CreateContainerRequest {
                container: Some(record.clone()),
            };
            async move { supervisor.containers().create(request).await }
        })
    };
    let created = match create().await {
        Err(status) if status.code() == Code::AlreadyExists => {
            let _ = clean_up_task(daemon, &container.id).await;
            create().await
        }
        other => other,
    };
    created
        .map(drop)
        .map_err(|status| ApiError::from(status).context("failed to create container"))
}

async fn create_task(
    daemon: &Daemon,
    container: &Container,
    rootfs: Vec<types::Mount>,
    stdio: Stdio,
) -> ApiResult<u32> {
    let request = api::CreateTaskRequest {
        container_id: container.id.clone(),
        rootfs,
        stdin: stdio.stdin,
        stdout: stdio.stdout,
        stderr: stdio.stderr,
        terminal: container.config.tty,
        ..Default::default()
    };
    let created = daemon.supervisor.tasks().create(request).await;
    created
        .map(|response| response.into_inner().pid)
        .map_err(|status| ApiError::from(status).context("failed to create task for container"))
}

/// Lets the clients that attached before the start connect to the log writer first, so that they miss nothing.
async fn meet_clients(entry: &Entry) {
    let waiting = std::mem::take(&mut entry.live().attaching);
    let listening = waiting.into_iter().filter_map(|client| {
        let (sender, receiver) = oneshot::channel();
        client.send(sender).ok().map(|()| receiver)
    });
    futures::future::join_all(listening).await;
}

/// 127: no such command; 126: one that cannot be executed; 128: anything else that kept the container from starting.
pub fn exit_code_of(error: &ApiError) -> i32 {
    let text = error.message.to_ascii_lowercase();
    let program = text.contains("exec") || text.contains("executable") || text.contains("command");
    match () {
        () if program && text.contains("executable file not found") => 127,
        () if program && text.contains("no such file or directory") => 127,
        () if program && text.contains("command not found") => 127,
        () if program && text.contains("permission denied") => 126,
        () if program && text.contains("is a directory") => 126,
        () if program && text.contains("exec format error") => 126,
        () => 128,
    }
}

/// Undoes a start that failed.
async fn clean_up(daemon: &Arc<Daemon>, entry: &Arc<Entry>, container: &Container) {
    tokio::join!(
        take_away(daemon, entry),
        neighbours::release_network(daemon, container),
        neighbours::unmount_volumes(daemon, container)
    );
}

/// Takes away the task of a container that does not run, and the supervisor's record of it, if there are any. When the supervisor stays
/// away for longer than a call waits, this goes on in the background, as operations on the container of their own: one that runs again
/// by then was started without what was left.
pub async fn take_away(daemon: &Arc<Daemon>, entry: &Arc<Entry>) {
    let id = entry.now().id.clone();
    if !is_away(&clean_up_task(daemon, &id).await) {
        return;
    }
    tracing::warn!(
        id,
        "the supervisor stays away; a container's task is removed when it is back"
    );
    let (daemon, entry) = (daemon.clone(), entry.clone());
    tokio::spawn(async move {
        loop {
            // A container that was removed meanwhile has no operations any more, and never runs again.
            let _operation = entry.operate().await;
            if entry.now().running || !is_away(&clean_up_task(&daemon, &id).await) {
                return;
            }
        }
    });
}

/// Removes task and record at the supervisor, if there are any. Fails when the supervisor stays away; of what it refuses only the log
/// tells.
pub async fn clean_up_task(daemon: &Daemon, id: &str) -> Result<(), tonic::Status> {
    let mut deleted = delete_task(daemon, id).await;
    if let Err(status) = &deleted
        && status.code() == Code::FailedPrecondition
    {
        let kill = api::KillRequest {
            container_id: id.to_owned(),
            signal: 9,
            all: true,
            ..Default::default()
        };
        let wait = api::WaitRequest {
            container_id: id.to_owned(),
            exec_id: String::new(),
        };
        let mut tasks = daemon.supervisor.tasks();
        let _ = tasks.kill(kill).await;
        let _ = tasks.wait(wait).await;
        deleted = delete_task(daemon, id).await;
    }
    if is_away(&deleted) {
        return deleted;
    }
    let forgotten = delete_record(daemon, id).await;
    for refused in [deleted, forgotten.clone()] {
        if let Err(status) = refused {
            tracing::warn!(%status, id, "removing a container's task and record at the supervisor");
        }
    }
    forgotten
}

async fn delete_task(daemon: &Daemon, id: &str) -> Result<(), tonic::Status> {
    let deleted = daemon.supervisor.retry(|supervisor| {
        let request = api::DeleteTaskRequest {
            container_id: id.to_owned(),
        };
        async move { supervisor.tasks().delete(request).await }
    });
    unless_gone(deleted.await)
}

async fn delete_record(daemon: &Daemon, id: &str) -> Result<(), tonic::Status> {
    let deleted = daemon.supervisor.retry(|supervisor| {
        let request = api::DeleteContainerRequest { id: id.to_owned() };
        async move { supervisor.containers().delete(request).await }
    });
    unless_gone(deleted.await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_runtimes_words() {
        let table = [
            (
                "exec: \"/nope\": stat /nope: no such file or directory",
                127,
            ),
            ("exec: \"nope\": executable file not found in $PATH", 127),
            ("exec: \"/etc/passwd\": permission denied", 126),
            (
                "executable file `nope` not found in $PATH: No such file or directory",
                127,
            ),
            ("mounting \"/x\": no such file or directory", 128),
            ("unable to find user zz", 128),
        ];
        for (message, code) in table {
            assert_eq!(
                exit_code_of(&ApiError::internal(message)),
                code,
                "{message}"
            );
        }
    }
}
