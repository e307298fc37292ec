//! Stop, kill, restart, pause, rename, update, resize: what is done to a container that exists.

use super::config::{Resources, RestartPolicy, without_nulls};
use super::record::{Container, Status};
use super::store::Entry;
use super::validate::{self, Machine};
use super::{health, name, signal, spec, task};
use crate::error::{ApiError, ApiResult};
use crate::http_message::{ApiRequest, ApiResponse, empty, ok_json};
use crate::state::Daemon;
use crate::supervisor::api;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

/// How long `stop` waits before it kills, when neither request nor container says.
const DEFAULT_STOP_TIMEOUT: i64 = 10;
/// How long a killed process may take to be gone. It does go: Docker's ten seconds are too few for fifty at once on an
/// emulated CPU, and whoever gives up early leaves a container that its user wanted removed.
pub const KILL_PATIENCE: Duration = Duration::from_secs(60);

fn done() -> ApiResult<ApiResponse> {
    Ok(empty(StatusCode::NO_CONTENT))
}

fn not_running(container: &Container) -> ApiError {
    ApiError::conflict(format!("container {} is not running", container.id))
}

pub async fn start(daemon: Arc<Daemon>, request: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    let entry = daemon.containers.entry(&id)?;
    if let Some(keys) = request.query.non_empty("detachKeys") {
        super::attach::parse_detach_keys(keys)?;
    }
    entry.cancel_restart.notify_waiters();
    let _operation = entry.operate().await?;
    entry.live().backoff = Default::default();
    let reset = |state: &mut super::record::State| state.restart_count = 0;
    if !entry.now().running {
        daemon.containers.change_state(&entry, false, reset);
    }
    task::start(&daemon, &entry).await?;
    done()
}

pub async fn stop(daemon: Arc<Daemon>, request: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    let entry = daemon.containers.entry(&id)?;
    let timeout = stop_timeout(&request)?;
    let with = stop_signal(&request, "stop", &id)?;
    if !entry.now().running && entry.now().state.status != Status::Restarting {
        return Err(ApiError::not_modified());
    }
    let _operation = entry.operate().await?;
    stop_entry(&daemon, &entry, with, timeout).await?;
    done()
}

/// Docker reads both only when it is at it, so what is wrong with them is its own failure to it.
fn stop_timeout(request: &ApiRequest) -> ApiResult<Option<i64>> {
    let text = request.query.non_empty("t");
    text.map(|text| {
        text.parse().map_err(|_| {
            ApiError::internal(format!("strconv.Atoi: parsing \"{text}\": invalid syntax"))
        })
    })
    .transpose()
}

fn stop_signal(request: &ApiRequest, what: &str, id: &str) -> ApiResult<Option<u32>> {
    let text = request.query.non_empty("signal");
    let wrong = |error: ApiError| {
        ApiError::internal(error.message).context(format!("cannot {what} container: {id}"))
    };
    text.map(|text| signal::parse(text).map_err(wrong))
        .transpose()
}

/// Sends the stop signal, and kills what has not ended when the time is up. Negative: waits for ever.
pub async fn stop_entry(
    daemon: &Arc<Daemon>,
    entry: &Arc<Entry>,
    with: Option<u32>,
    timeout: Option<i64>,
) -> ApiResult<()> {
    entry.cancel_restart.notify_waiters();
    let container = entry.now();
    daemon.containers.change_state(entry, false, |state| {
        state.stopped_by_hand = true;
        if state.status == Status::Restarting {
            state.status = Status::Exited;
        }
    });
    if !container.running {
        return Ok(());
    }
    let number = match with {
        Some(number) => number,
        None if container.config.stop_signal.is_empty() => signal::TERM,
        None => signal::parse(&container.config.stop_signal)?,
    };
    let timeout = timeout
        .or(container.config.stop_timeout)
        .unwrap_or(DEFAULT_STOP_TIMEOUT);
    send_signal(daemon, &container, number).await?;
    let ended = wait_until_ended(entry);
    let in_time = match u64::try_from(timeout) {
        Err(_) => {
            ended.await;
            Ok(())
        }
        Ok(seconds) => tokio::time::timeout(Duration::from_secs(seconds), ended).await,
    };
    if in_time.is_err() {
        return finish(daemon, entry, &container, signal::KILL).await;
    }
    daemon.containers.publish(&container, "stop", &[]);
    Ok(())
}

async fn finish(
    daemon: &Arc<Daemon>,
    entry: &Arc<Entry>,
    container: &Container,
    number: u32,
) -> ApiResult<()> {
    send_signal(daemon, container, number).await?;
    let ended = tokio::time::timeout(KILL_PATIENCE, wait_until_ended(entry)).await;
    ended.map_err(|_| {
        ApiError::internal(format!(
            "cannot stop container: {}: tried to kill container, but did not receive an exit event",
            container.id
        ))
    })?;
    daemon.containers.publish(container, "stop", &[]);
    Ok(())
}

pub async fn wait_until_ended(entry: &Entry) {
    // The sender lives in the entry.
    let _ = entry.watch().wait_for(|container| !container.running).await;
}

/// Sends a signal to process 1 and says so; one that has just ended is no error.
pub async fn send_signal(daemon: &Daemon, container: &Container, number: u32) -> ApiResult<()> {
    let request = api::KillRequest {
        container_id: container.id.clone(),
        signal: number,
        ..Default::default()
    };
    let sent = daemon.supervisor.retry(|supervisor| {
        let request = request.clone();
        async move { supervisor.tasks().kill(request).await }
    });
    match sent.await {
        Err(status) if !matches!(status.code(), Code::NotFound | Code::FailedPrecondition) => {
            return Err(status.into());
        }
        _ => {}
    }
    daemon
        .containers
        .publish(container, "kill", &[("signal", number.to_string())]);
    Ok(())
}

pub async fn kill(daemon: Arc<Daemon>, request: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    let cannot = |error: ApiError| error.context(format!("cannot kill container: {id}"));
    let number = match request.query.non_empty("signal") {
        None => signal::KILL,
        Some(text) => signal::parse(text).map_err(cannot)?,
    };
    let entry = daemon.containers.entry(&id).map_err(cannot)?;
    let container = entry.now();
    if !container.running {
        return Err(cannot(not_running(&container)));
    }
    let stop_signal = match container.config.stop_signal.as_str() {
        "" => signal::TERM,
        text => signal::parse(text)?,
    };
    if number == signal::KILL || number == stop_signal {
        // Killed on purpose: no restart policy brings it back.
        daemon
            .containers
            .change_state(&entry, false, |state| state.stopped_by_hand = true);
    }
    if container.state.status == Status::Paused && number == signal::KILL {
        set_paused(&daemon, &entry, false).await?;
    }
    send_signal(&daemon, &container, number)
        .await
        .map_err(cannot)?;
    if number == signal::KILL {
        let _ = tokio::time::timeout(KILL_PATIENCE, wait_until_ended(&entry)).await;
    }
    done()
}

pub async fn restart(
    daemon: Arc<Daemon>,
    request: ApiRequest,
    id: String,
) -> ApiResult<ApiResponse> {
    let entry = daemon.containers.entry(&id)?;
    let timeout = stop_timeout(&request)?;
    let with = stop_signal(&request, "restart", &id)?;
    let _operation = entry.operate().await?;
    let _restarted = entry.restarted_by_hand();
    // A container that removes itself lives through a restart.
    stop_entry(&daemon, &entry, with, timeout)
        .await
        .map_err(|error| error.context(format!("Cannot restart container {id}")))?;
    task::start(&daemon, &entry).await?;
    daemon.containers.publish(&entry.now(), "restart", &[]);
    done()
}

pub async fn pause(
    daemon: Arc<Daemon>,
    _: ApiRequest,
    id: String,
    wanted: bool,
) -> ApiResult<ApiResponse> {
    let entry = daemon.containers.entry(&id)?;
    let _operation = entry.operate().await?;
    let container = entry.now();
    match (wanted, container.state.status) {
        (true, Status::Running) | (false, Status::Paused) => {}
        (true, Status::Paused) => {
            return Err(ApiError::conflict(format!(
                "Container {} is already paused",
                container.id
            )));
        }
        (false, _) => {
            return Err(ApiError::internal(format!(
                "Container {} is not paused",
                container.id
            )));
        }
        _ => return Err(not_running(&container)),
    }
    set_paused(&daemon, &entry, wanted).await?;
    done()
}

async fn set_paused(daemon: &Arc<Daemon>, entry: &Arc<Entry>, wanted: bool) -> ApiResult<()> {
    let container = entry.now();
    let id = container.id.clone();
    let mut tasks = daemon.supervisor.tasks();
    if wanted {
        health::stop(entry);
    }
    let (done, status, event) = match wanted {
        true => {
            let request = api::PauseTaskRequest { container_id: id };
            (tasks.pause(request).await, Status::Paused, "pause")
        }
        false => {
            let request = api::ResumeTaskRequest { container_id: id };
            (tasks.resume(request).await, Status::Running, "unpause")
        }
    };
    done.map_err(|status| {
        ApiError::from(status).context(format!("Cannot {event} container {}", container.id))
    })?;
    daemon.containers.change_state(entry, false, |state| {
        if state.is_running() {
            state.status = status;
        }
        if wanted {
            health::ended(state);
        }
    });
    daemon.containers.publish(&container, event, &[]);
    if !wanted {
        health::watch(daemon, entry);
    }
    Ok(())
}

pub async fn rename(
    daemon: Arc<Daemon>,
    request: ApiRequest,
    id: String,
) -> ApiResult<ApiResponse> {
    let new = request
        .query
        .get("name")
        .unwrap_or_default()
        .trim_start_matches('/')
        .to_owned();
    if new.is_empty() {
        return Err(ApiError::bad_request(
            "Neither old nor new names may be empty",
        ));
    }
    let entry = daemon.containers.entry(&id)?;
    let old = entry.now().name.clone();
    if old == new {
        return Err(ApiError::bad_request(
            "Renaming a container with the same name as its current name",
        ));
    }
    let allocating = |error: ApiError| error.context("Error when allocating new name");
    name::check(&format!("/{new}")).map_err(allocating)?;
    daemon
        .containers
        .reserve_name(&new, &entry.now().id)
        .map_err(allocating)?;
    if let Err(error) = daemon
        .containers
        .change_fixed(&entry, |fixed| fixed.name.clone_from(&new))
    {
        daemon.containers.release_name(&new);
        return Err(error);
    }
    daemon.containers.release_name(&old);
    let container = entry.now();
    daemon.networks.rename(&container.id, &new);
    daemon
        .containers
        .publish(&container, "rename", &[("oldName", format!("/{old}"))]);
    done()
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct UpdateRequest {
    #[serde(flatten)]
    resources: Resources,
    restart_policy: RestartPolicy,
}

pub async fn update(
    daemon: Arc<Daemon>,
    mut request: ApiRequest,
    id: String,
) -> ApiResult<ApiResponse> {
    let mut body: Value = request.json().await?;
    without_nulls(&mut body);
    let wanted: UpdateRequest = serde_json::from_value(body)
        .map_err(|error| ApiError::bad_request(format!("invalid JSON: {error}")))?;
    let entry = daemon.containers.entry(&id)?;
    let _operation = entry.operate().await?;
    let container = entry.now();
    let machine = Machine::detect();
    let mut resources = container.host_config.resources.clone();
    let mut warnings: Vec<&str> = Vec::new();
    validate::restart_policy(&wanted.restart_policy)?;
    let cannot =
        |error: ApiError| error.context(format!("Cannot update container {}", container.id));
    check_conflicts(&resources, &wanted.resources, machine.swap_limit).map_err(cannot)?;
    merge_resources(&mut resources, &wanted.resources);
    validate::resources(&resources, &machine)?;
    if wanted.resources.memory > 0 && !machine.swap_limit {
        resources.memory_swap = -1;
        warnings.push(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited \
             without swap.",
        );
    }
    if container.host_config.auto_remove
        && !matches!(wanted.restart_policy.name.as_str(), "" | "no")
    {
        return Err(cannot(ApiError::conflict(
            "Restart policy cannot be updated because AutoRemove is enabled for the container",
        )));
    }
    if container.running {
        let limits = spec::resources::limits(&resources, machine.swap_limit);
        let update = api::UpdateTaskRequest {
            container_id: container.id.clone(),
            resources: Some(task::any(
                "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources",
                serde_json::to_vec(&limits)?,
            )),
            ..Default::default()
        };
        daemon
            .supervisor
            .tasks()
            .update(update)
            .await
            .map_err(|status| {
                ApiError::from(status).context(format!("Cannot update container {}", container.id))
            })?;
    }
    daemon.containers.change_fixed(&entry, |fixed| {
        fixed.host_config.resources = resources;
        if !wanted.restart_policy.name.is_empty() {
            fixed.host_config.restart_policy = wanted.restart_policy;
        }
    })?;
    daemon.containers.publish(&entry.now(), "update", &[]);
    ok_json(&json!({ "Warnings": if warnings.is_empty() { Value::Null } else { json!(warnings) } }))
}

/// Limits that exclude others which the container has; in Docker's words.
fn check_conflicts(current: &Resources, wanted: &Resources, swap_limit: bool) -> ApiResult<()> {
    let conflicts = [
        (
            wanted.nano_cpus > 0 && current.cpu_period > 0,
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
        ),
        (
            wanted.nano_cpus > 0 && current.cpu_quota > 0,
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
        ),
        (
            wanted.cpu_period > 0 && current.nano_cpus > 0,
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        ),
        (
            wanted.cpu_quota > 0 && current.nano_cpus > 0,
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
        ),
        (
            swap_limit
                && wanted.memory > current.memory_swap
                && wanted.memory != 0
                && wanted.memory_swap == 0,
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ),
    ];
    match conflicts.iter().find(|(found, _)| *found) {
        Some((_, message)) => Err(ApiError::conflict(*message)),
        None => Ok(()),
    }
}

/// What the update says over what there is; zero and empty mean "as before".
fn merge_resources(current: &mut Resources, wanted: &Resources) {
    let number = |current: &mut i64, wanted: i64| {
        if wanted != 0 {
            *current = wanted;
        }
    };
    number(&mut current.cpu_shares, wanted.cpu_shares);
    number(&mut current.memory, wanted.memory);
    number(&mut current.memory_reservation, wanted.memory_reservation);
    number(&mut current.memory_swap, wanted.memory_swap);
    if wanted.nano_cpus != 0 {
        current.nano_cpus = wanted.nano_cpus;
        current.cpu_period = 0;
        current.cpu_quota = 0;
    }
    if wanted.cpu_period != 0 || wanted.cpu_quota != 0 {
        current.nano_cpus = 0;
    }
    number(&mut current.cpu_period, wanted.cpu_period);
    number(&mut current.cpu_quota, wanted.cpu_quota);
    for (current, wanted) in [
        (&mut current.cpuset_cpus, &wanted.cpuset_cpus),
        (&mut current.cpuset_mems, &wanted.cpuset_mems),
    ] {
        if !wanted.is_empty() {
            current.clone_from(wanted);
        }
    }
    if wanted.blkio_weight != 0 {
        current.blkio_weight = wanted.blkio_weight;
    }
    if wanted.pids_limit.is_some() {
        current.pids_limit = wanted.pids_limit;
    }
}

/// Window size from the query, in Docker's words when it is wrong.
pub fn window_size(request: &ApiRequest) -> ApiResult<(u32, u32)> {
    let number = |key: &str, what: &str| {
        let text = request.query.get(key).unwrap_or_default();
        text.parse::<u32>().map_err(|_| {
            ApiError::bad_request(format!("invalid resize {what} \"{text}\": invalid syntax"))
        })
    };
    Ok((number("h", "height")?, number("w", "width")?))
}

pub async fn resize(
    daemon: Arc<Daemon>,
    request: ApiRequest,
    id: String,
) -> ApiResult<ApiResponse> {
    let (height, width) = window_size(&request)?;
    let container = daemon.containers.get(&id)?;
    if !container.running {
        return Err(not_running(&container));
    }
    let resize = api::ResizePtyRequest {
        container_id: container.id.clone(),
        width,
        height,
        ..Default::default()
    };
    daemon.supervisor.tasks().resize_pty(resize).await?;
    let more = [("height", height.to_string()), ("width", width.to_string())];
    daemon.containers.publish(&container, "resize", &more);
    Ok(empty(StatusCode::OK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_exclude_each_other_are_refused() {
        let limits = |nano_cpus, cpu_quota, memory, memory_swap| Resources {
            nano_cpus,
            cpu_quota,
            memory,
            memory_swap,
            ..Default::default()
        };
        let check = |current, wanted| {
            let checked = check_conflicts(&current, &wanted, true);
            checked.map_err(|error| error.message)
        };
        let (none, less) = (limits(0, 0, 0, 0), limits(0, 0, 5, 0));
        assert_eq!(check(none.clone(), none.clone()), Ok(()));
        assert_eq!(check(limits(0, 0, 10, 20), less.clone()), Ok(()));
        assert!(
            check(none.clone(), less)
                .unwrap_err()
                .contains("memoryswap")
        );
        assert_eq!(check(none.clone(), limits(0, 0, 5, -1)), Ok(()));
        let quota = check(limits(0, 7, 0, 0), limits(1, 0, 0, 0)).unwrap_err();
        assert!(quota.contains("CPU Quota has already been set"), "{quota}");
    }

    #[test]
    fn updates_change_only_what_they_name() {
        let mut current = Resources {
            memory: 7,
            cpu_period: 1000,
            cpu_quota: 500,
            ..Default::default()
        };
        merge_resources(
            &mut current,
            &Resources {
                nano_cpus: 1,
                ..Default::default()
            },
        );
        assert_eq!(
            (current.memory, current.nano_cpus, current.cpu_period),
            (7, 1, 0)
        );
        merge_resources(
            &mut current,
            &Resources {
                pids_limit: Some(5),
                memory: 9,
                ..Default::default()
            },
        );
        assert_eq!(
            (current.memory, current.nano_cpus, current.pids_limit),
            (9, 1, Some(5))
        );
    }
}
