//! `POST /containers/create`: checks the request, merges it with the image, and makes the container's place.

use super::config::{ContainerConfig, CreateRequest, HostConfig, without_nulls};
use super::mount_spec::{self, Wanted};
use super::neighbours::{self, Image};
use super::record::{Container, Fixed, MountPoint, State};
use super::validate::{self, Machine};
use super::{links, name, snapshot, spec};
use crate::config::{Config, Settings};
use crate::error::{ApiError, ApiResult};
use crate::http_message::{ApiRequest, ApiResponse, json};
use crate::network::agent;
use crate::state::Daemon;
use http::StatusCode;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DEFAULT_SHM: i64 = 64 << 20;

pub async fn serve(daemon: Arc<Daemon>, mut request: ApiRequest) -> ApiResult<ApiResponse> {
    let mut body: Value = request.json().await?;
    without_nulls(&mut body);
    if body.as_object().is_none_or(serde_json::Map::is_empty) {
        return Err(ApiError::bad_request(
            "config cannot be empty in order to create a container",
        ));
    }
    let wanted: CreateRequest = serde_json::from_value(body)
        .map_err(|error| ApiError::bad_request(format!("invalid JSON: {error}")))?;
    let name = request.query.non_empty("name").map(str::to_owned);
    if let Some(platform) = request.query.non_empty("platform") {
        neighbours::check_platform(&daemon, &wanted.config.image, platform).await?;
    }
    let (id, warnings) = create(&daemon, name, wanted).await?;
    json(
        StatusCode::CREATED,
        &json!({ "Id": id, "Warnings": warnings }),
    )
}

pub async fn create(
    daemon: &Arc<Daemon>,
    name: Option<String>,
    request: CreateRequest,
) -> ApiResult<(String, Vec<String>)> {
    let CreateRequest {
        mut config,
        host_config: mut host,
        networking_config: networking,
    } = request;
    let machine = Machine::detect();
    let mut warnings = Vec::new();
    if let Some(name) = &name {
        name::check(name)?;
    }
    validate::config(&config)?;
    validate::host(&host, &machine)?;
    spec::check_security_options(&host)?;
    validate::shared_network(&config, &host)?;
    links::resolve(daemon, &mut host)?;
    let (shim, runtime_binary) = runtime(&daemon.config, &mut host)?;
    check_log_driver(&daemon.config, &mut host)?;
    daemon
        .networks
        .check_endpoints(&neighbours::endpoint_settings(&networking))?;
    fill_defaults(
        &mut host,
        &machine,
        &daemon.config.settings(),
        &mut warnings,
    );
    let bindings = host.port_bindings.as_ref();
    if host.network_mode == "host" && bindings.is_some_and(|ports| !ports.is_empty()) {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    if config.image.is_empty() {
        return Err(ApiError::bad_request("no command specified"));
    }
    let image = neighbours::resolve_image(daemon, &config.image).await?;
    merge_image(&mut config, &image.config);
    let (path, args) = command(&config)?;
    let id = crate::identity::new_id();
    if config.hostname.is_empty() {
        let peer = shares_with(daemon, &host.network_mode);
        config.hostname = match (host.network_mode.as_str(), peer) {
            ("host", _) => crate::state::hostname(),
            (_, Some(peer)) => peer.config.hostname.clone(),
            (_, None) => crate::identity::short(&id).to_owned(),
        };
    }
    let name = reserve_name(daemon, name, &id)?;
    let fixed = Fixed {
        left_first_network: false,
        id: id.clone(),
        name: name.clone(),
        created: chrono::Utc::now(),
        image_id: image.id.clone(),
        image_manifest: image.manifest.clone(),
        image_manifest_size: image.manifest_size,
        image_manifest_annotations: image.manifest_annotations.clone(),
        path,
        args,
        config,
        host_config: host,
        networking,
        mounts: Vec::new(),
        snapshot_parent: image.chain_id.clone(),
        shim,
        runtime_binary,
    };
    match make(daemon, fixed, &image).await {
        Ok(()) => Ok((id, warnings)),
        Err(error) => {
            daemon.containers.release_name(&name);
            let _ = snapshot::remove(&daemon.containers, &id).await;
            Err(error)
        }
    }
}

/// The parts that have to be undone when one of them fails.
async fn make(daemon: &Arc<Daemon>, mut fixed: Fixed, image: &Image) -> ApiResult<()> {
    let inherited = volumes_from(daemon, &fixed.host_config)?;
    let image_volumes = fixed.config.volumes.clone().unwrap_or_default().into_keys();
    let wanted = mount_spec::collect(&fixed.host_config, image_volumes, inherited)?;
    let prepare = snapshot::prepare(&daemon.containers, &fixed.id, &image.chain_id);
    let (mounts, rootfs) = tokio::join!(mount_points(daemon, wanted), prepare);
    let rootfs = rootfs?;
    fixed.mounts = mounts?;
    let state = State {
        creation_unannounced: true,
        ..State::default()
    };
    let container = Container::new(fixed, state);
    neighbours::reference_volumes(daemon, &container);
    let entry = daemon.containers.insert(container)?;
    let container = entry.now();
    entry.live().rootfs = Some(rootfs);
    daemon.containers.publish(&container, "create", &[]);
    let told = |state: &mut State| state.creation_unannounced = false;
    daemon.containers.change_state(&entry, false, told);
    Ok(())
}

fn reserve_name(daemon: &Daemon, name: Option<String>, id: &str) -> ApiResult<String> {
    if let Some(name) = name {
        let name = name.trim_start_matches('/').to_owned();
        daemon.containers.reserve_name(&name, id)?;
        return Ok(name);
    }
    for attempt in 0.. {
        let name = name::generate(attempt);
        if daemon.containers.reserve_name(&name, id).is_ok() {
            return Ok(name);
        }
    }
    Err(ApiError::internal("no name is free"))
}

/// The shim for `--runtime`, and the binary that it is told to run.
fn runtime(config: &Config, host: &mut HostConfig) -> ApiResult<(String, String)> {
    let settings = config.settings();
    if host.runtime.is_empty() {
        host.runtime = settings
            .string("default-runtime")
            .unwrap_or("longshore")
            .to_owned();
    }
    let registered = |name: &str| {
        let runtimes = settings.daemon_json.get("runtimes")?;
        let runtime = runtimes.get(name)?;
        let text = |key: &str| runtime.get(key).and_then(Value::as_str).map(str::to_owned);
        Some((text("runtimeType"), text("path")))
    };
    let shim = config.default_shim();
    match host.runtime.as_str() {
        "longshore" => Ok((shim, String::new())),
        "runc" | "crun" => Ok((shim, host.runtime.clone())),
        name => match registered(name) {
            Some((kind, path)) => Ok((kind.unwrap_or(shim), path.unwrap_or_default())),
            None if name.starts_with("io.containerd.") => Ok((name.to_owned(), String::new())),
            None => Err(ApiError::bad_request(format!(
                "unknown or invalid runtime name: {name}"
            ))),
        },
    }
}

fn check_log_driver(config: &Config, host: &mut HostConfig) -> ApiResult<()> {
    let settings = config.settings();
    if host.log_config.driver.is_empty() {
        host.log_config.driver = settings
            .string("log-driver")
            .unwrap_or("json-file")
            .to_owned();
        if host.log_config.config.is_empty() {
            host.log_config.config = settings.log_options();
        }
    }
    super::log_options::check_log_options(&host.log_config)
}

/// Bytes, told as a number or as a size such as `64M`.
fn shm_size(configured: &Value) -> Option<i64> {
    let bytes = match configured {
        Value::String(text) => longshore_protocol::engine_options::size(text),
        number => number.as_u64(),
    };
    bytes.and_then(|bytes| i64::try_from(bytes).ok())
}

fn fill_defaults(
    host: &mut HostConfig,
    machine: &Machine,
    settings: &Settings,
    warnings: &mut Vec<String>,
) {
    let or = |value: &mut String, default: &str| {
        if value.is_empty() {
            default.clone_into(value);
        }
    };
    or(&mut host.restart_policy.name, "no");
    or(&mut host.ipc_mode, "private");
    or(
        &mut host.cgroupns_mode,
        if host.privileged { "host" } else { "private" },
    );
    if matches!(host.network_mode.as_str(), "" | "default") {
        host.network_mode = "bridge".to_owned();
    }
    if host.shm_size == 0 {
        let configured = settings.daemon_json.get("default-shm-size");
        host.shm_size = configured.and_then(shm_size).unwrap_or(DEFAULT_SHM);
    }
    let open = host.privileged
        || host
            .security_opt
            .iter()
            .flatten()
            .any(|option| option == "systempaths=unconfined");
    let paths = |list: &[&str]| {
        list.iter()
            .map(|path| (*path).to_owned())
            .collect::<Vec<_>>()
    };
    let default = |list: &[&str]| if open { Vec::new() } else { paths(list) };
    host.masked_paths
        .get_or_insert_with(|| default(&spec::MASKED));
    host.readonly_paths
        .get_or_insert_with(|| default(&spec::READONLY));
    let limits = &mut host.resources;
    if limits.memory > 0 && !machine.swap_limit {
        if limits.memory_swap != 0 && limits.memory_swap != -1 {
            warnings.push(
                "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited \
                 without swap."
                    .to_owned(),
            );
        }
        limits.memory_swap = -1;
    } else if limits.memory > 0 && limits.memory_swap == 0 {
        limits.memory_swap = limits.memory * 2;
    }
    // Meaningless with cgroup v2; the CLI sends -1 for "not set".
    if limits
        .memory_swappiness
        .take()
        .is_some_and(|value| value != -1)
    {
        warnings.push(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness \
             discarded."
                .to_owned(),
        );
    }
    if limits.oom_kill_disable == Some(false) {
        limits.oom_kill_disable = None;
    }
    limits.pids_limit = limits.pids_limit.filter(|limit| *limit > 0);
}

/// The image's configuration under the request's (`docker create`'s rules).
fn merge_image(own: &mut ContainerConfig, image: &ContainerConfig) {
    let or = |value: &mut String, default: &str| {
        if value.is_empty() {
            default.clone_into(value);
        }
    };
    or(&mut own.user, &image.user);
    or(&mut own.working_dir, &image.working_dir);
    or(&mut own.stop_signal, &image.stop_signal);
    if own.entrypoint.is_none() {
        if own.cmd.as_ref().is_none_or(Vec::is_empty) {
            own.cmd.clone_from(&image.cmd);
        }
        own.entrypoint.clone_from(&image.entrypoint);
    }
    let name_of = |variable: &String| variable.split('=').next().unwrap_or_default().to_owned();
    let have: Vec<String> = own.env.iter().flatten().map(name_of).collect();
    let inherited = image
        .env
        .iter()
        .flatten()
        .filter(|variable| !have.contains(&name_of(variable)));
    let all: Vec<String> = own.env.iter().flatten().chain(inherited).cloned().collect();
    own.env = (!all.is_empty()).then_some(all);
    for (port, nothing) in &image.exposed_ports {
        own.exposed_ports
            .entry(port.clone())
            .or_insert_with(|| nothing.clone());
    }
    for (key, value) in &image.labels {
        own.labels
            .entry(key.clone())
            .or_insert_with(|| value.clone());
    }
    if let Some(volumes) = &image.volumes {
        own.volumes.get_or_insert_default().extend(volumes.clone());
    }
    own.stop_timeout = own.stop_timeout.or(image.stop_timeout);
    merge_health(own, image);
}

fn merge_health(own: &mut ContainerConfig, image: &ContainerConfig) {
    let Some(image) = &image.healthcheck else {
        return;
    };
    let health = own.healthcheck.get_or_insert_default();
    if health.test.is_empty() {
        health.test.clone_from(&image.test);
    }
    let or = |value: &mut i64, default: i64| {
        if *value == 0 {
            *value = default;
        }
    };
    or(&mut health.interval, image.interval);
    or(&mut health.timeout, image.timeout);
    or(&mut health.start_period, image.start_period);
    or(&mut health.start_interval, image.start_interval);
    or(&mut health.retries, image.retries);
}

/// Process 1: entrypoint and command. An entrypoint of one empty word means none.
fn command(config: &ContainerConfig) -> ApiResult<(String, Vec<String>)> {
    let entrypoint = config
        .entrypoint
        .as_deref()
        .filter(|words| *words != [""])
        .unwrap_or_default();
    let mut words = entrypoint
        .iter()
        .chain(config.cmd.iter().flatten())
        .cloned();
    match words.next() {
        Some(program) if !program.is_empty() => Ok((program, words.collect())),
        _ => Err(ApiError::bad_request("no command specified")),
    }
}

/// The container whose network another one shares.
fn shares_with(daemon: &Daemon, mode: &str) -> Option<Arc<Container>> {
    daemon.containers.get(mode.strip_prefix("container:")?).ok()
}

fn volumes_from(daemon: &Daemon, host: &HostConfig) -> ApiResult<Vec<MountPoint>> {
    let mut points = Vec::new();
    for spec in host.volumes_from.iter().flatten() {
        let (name, mode) = spec.split_once(':').unwrap_or((spec, "rw"));
        if !matches!(mode, "rw" | "ro" | "z" | "Z") {
            return Err(ApiError::bad_request(format!("invalid mode: {mode}")));
        }
        let from = daemon.containers.get(name);
        let from = from.map_err(|error| ApiError::bad_request(error.message))?;
        for point in &from.mounts {
            let mut point = point.clone();
            point.rw &= mode != "ro";
            point.copy_up = false;
            if point.mode == "z" {
                point.mode = String::new();
            }
            points.push(point);
        }
    }
    Ok(points)
}

/// The host's folders that are mounted now: they come and go while the guest runs. `None`: not in a Longshore guest.
async fn current_shares(settings: &Settings) -> Option<Vec<PathBuf>> {
    let at_boot = settings.shares.clone()?;
    if !agent::is_present() {
        return Some(at_boot);
    }
    let asked = async { agent::Agent::connect().await?.shares().await };
    match asked.await {
        Ok(shares) => {
            let mounted = shares.into_iter().filter(|share| share.mounted);
            Some(
                mounted
                    .map(|share| PathBuf::from(share.share.path))
                    .collect(),
            )
        }
        Err(error) => {
            tracing::warn!(%error, "the agent does not tell the shares: those of the boot count");
            Some(at_boot)
        }
    }
}

/// Makes volumes and checks sources.
async fn mount_points(daemon: &Daemon, wanted: Vec<Wanted>) -> ApiResult<Vec<MountPoint>> {
    let settings = daemon.config.settings();
    let binds = wanted.iter().any(|wanted| wanted.point.kind == "bind");
    let shares = if binds {
        current_shares(&settings).await
    } else {
        None
    };
    let mut points = Vec::new();
    for Wanted {
        mut point,
        volume_labels,
        volume_options,
        create_source,
    } in wanted
    {
        match point.kind.as_str() {
            // What is started by a client to talk to its engine (Testcontainers' reaper) mounts the socket that the client has.
            "bind" if settings.host_socket() == Some(&point.source) => {
                point.source = "/run/docker.sock".into();
            }
            "bind" => {
                let command = settings.share_command();
                mount_spec::check_shared(&point.source, shares.as_deref(), command)?;
                mount_spec::check_unmasked(&point.source, &settings.masked(), command)?;
                bind_source(&point, create_source)?;
            }
            "volume" if point.source.is_empty() => {
                let made = neighbours::volume(
                    daemon,
                    &point.name,
                    &point.driver,
                    &volume_options,
                    &volume_labels,
                );
                let (name, source) = made.await?;
                point.name = name;
                point.source = source.to_string_lossy().into_owned();
            }
            _ => {}
        }
        points.push(point);
    }
    Ok(points)
}

fn bind_source(point: &MountPoint, create: bool) -> ApiResult<()> {
    let source = Path::new(&point.source);
    if source.exists() {
        return Ok(());
    }
    if !create {
        return Err(ApiError::bad_request(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            point.source
        )));
    }
    std::fs::create_dir_all(source).map_err(|error| {
        ApiError::internal(format!(
            "error while creating mount source path '{}': {error}",
            point.source
        ))
    })
}

/// Go's name of this machine's architecture.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Option<Vec<String>> {
        Some(list.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn entrypoint_and_command_follow_docker() {
        // image entrypoint, image cmd, own entrypoint, own cmd, result
        type Words = Option<&'static [&'static str]>;
        let table: [(Words, Words, Words, Words, &str); 8] = [
            (None, Some(&["sh"]), None, None, "sh"),
            (None, Some(&["sh"]), None, Some(&["ls", "-l"]), "ls -l"),
            (Some(&["/e"]), Some(&["c"]), None, None, "/e c"),
            (Some(&["/e"]), Some(&["c"]), None, Some(&["x"]), "/e x"),
            (Some(&["/e"]), Some(&["c"]), Some(&["/o"]), None, "/o"),
            (
                Some(&["/e"]),
                Some(&["c"]),
                Some(&["/o"]),
                Some(&["x"]),
                "/o x",
            ),
            (Some(&["/e"]), Some(&["c"]), Some(&[""]), Some(&["x"]), "x"),
            (None, None, None, None, "no command specified"),
        ];
        for (image_entry, image_cmd, entry, cmd, expected) in table {
            let config = |entrypoint: Words, cmd: Words| ContainerConfig {
                entrypoint: entrypoint.and_then(words),
                cmd: cmd.and_then(words),
                ..Default::default()
            };
            let mut own = config(entry, cmd);
            merge_image(&mut own, &config(image_entry, image_cmd));
            let got = match command(&own) {
                Ok((path, args)) => [vec![path], args].concat().join(" "),
                Err(error) => error.message,
            };
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn the_images_environment_comes_behind() {
        let mut own = ContainerConfig {
            env: words(&["A=1", "B"]),
            ..Default::default()
        };
        merge_image(
            &mut own,
            &ContainerConfig {
                env: words(&["A=9", "C=3", "B=2"]),
                ..Default::default()
            },
        );
        assert_eq!(own.env, words(&["A=1", "B", "C=3"]));
    }
}
