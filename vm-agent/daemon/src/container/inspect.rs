//! `GET /containers/{id}/json`, in Docker's shape.

use super::config::HostConfig;
use super::record::{Container, Status, timestamp};
use super::{links, list, log_options};
use crate::error::ApiResult;
use crate::http_message::{ApiRequest, ApiResponse, ok_json};
use crate::network::{EndpointSet, EndpointSettings};
use crate::state::Daemon;
use serde_json::{Value, json};
use std::sync::Arc;

pub async fn serve(daemon: Arc<Daemon>, request: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    let container = daemon.containers.entry(&id)?.inspected().await;
    let mut shown = inspect(&daemon, &container)?;
    if request.query.flag("size") {
        list::add_size(&daemon, &container, &mut Default::default(), &mut shown).await;
    }
    ok_json(&shown)
}

fn inspect(daemon: &Daemon, container: &Container) -> ApiResult<Value> {
    let containers = &daemon.containers;
    let folder = containers.folder(&container.id);
    let file = |name: &str| {
        let path = folder.join(name);
        if container.state.started_at.is_some() {
            path.to_string_lossy().into_owned()
        } else {
            String::new()
        }
    };
    let log = log_options::log_config(containers, container);
    let log_path = match log.driver {
        longshore_container_log::Driver::JsonFile => log.log_path().to_string_lossy().into_owned(),
        _ => String::new(),
    };
    let execs = daemon.execs.of_container(&container.id);
    Ok(json!({
        "Id": container.id,
        "Created": timestamp(Some(container.created)),
        "Path": container.path,
        "Args": container.args,
        "State": state(container),
        "Image": container.image_id,
        "ResolvConfPath": file("resolv.conf"),
        "HostnamePath": file("hostname"),
        "HostsPath": file("hosts"),
        "LogPath": log_path,
        "Name": format!("/{}", container.name),
        "RestartCount": container.state.restart_count,
        "Driver": crate::config::SNAPSHOTTER,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": if execs.is_empty() { Value::Null } else { json!(execs) },
        "HostConfig": host_config(daemon, container),
        "GraphDriver": { "Data": null, "Name": crate::config::SNAPSHOTTER },
        "Mounts": mounts(container),
        "Config": container.config,
        "NetworkSettings": network_settings(daemon, container),
        "ImageManifestDescriptor": manifest(container),
    }))
}

/// With the links as they are by now.
fn host_config(daemon: &Daemon, container: &Container) -> HostConfig {
    HostConfig {
        links: links::shown(daemon, container),
        ..container.host_config.clone()
    }
}

/// The manifest of the image that the container was made of.
pub fn manifest(container: &Container) -> Value {
    let mut shown = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": container.image_manifest,
        "size": container.image_manifest_size,
        "platform": { "architecture": super::create::architecture(), "os": "linux" },
    });
    if !container.image_manifest_annotations.is_empty() {
        shown["annotations"] = json!(container.image_manifest_annotations);
    }
    shown
}

fn state(container: &Container) -> Value {
    let state = &container.state;
    let mut shown = json!({
        "Status": state.status.as_str(),
        "Running": state.is_running() || state.status == Status::Restarting,
        "Paused": state.status == Status::Paused,
        "Restarting": state.status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == Status::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": timestamp(state.started_at),
        "FinishedAt": timestamp(state.finished_at),
    });
    if let Some(health) = &state.health {
        shown["Health"] = health.shown();
    }
    shown
}

/// Mount points as clients know them; a tmpfs of `--tmpfs` is in the host's configuration only.
pub fn mounts(container: &Container) -> Vec<Value> {
    let of_tmpfs_flag = |destination: &str| {
        container
            .host_config
            .tmpfs
            .keys()
            .any(|path| super::mount_spec::clean(path) == destination)
    };
    container
        .mounts
        .iter()
        .filter(|point| point.kind != "tmpfs" || !of_tmpfs_flag(&point.destination))
        .map(|point| {
            let mut shown = json!(point);
            if let Some(members) = shown.as_object_mut() {
                members.remove("CopyUp");
                members.remove("Options");
            }
            shown
        })
        .collect()
}

/// What a container has on its networks, or, while it does not run, the names of those it will be on.
pub fn endpoints(daemon: &Daemon, container: &Container) -> EndpointSet {
    if let Some(set) = daemon.networks.endpoints(&container.id) {
        return set;
    }
    let mut set = EndpointSet::default();
    let mode = &container.host_config.network_mode;
    if !mode.starts_with("container:") && !container.left_first_network {
        set.networks
            .insert(mode.clone(), EndpointSettings::default());
    }
    for (name, settings) in &container.networking.endpoints_config {
        let name = if name == "default" { "bridge" } else { name };
        let settings = serde_json::from_value(settings.clone()).unwrap_or_default();
        set.networks.insert(name.to_owned(), settings);
    }
    set
}

fn network_settings(daemon: &Daemon, container: &Container) -> Value {
    let set = endpoints(daemon, container);
    let bridge = set.networks.get("bridge").cloned().unwrap_or_default();
    json!({
        "Bridge": "",
        "SandboxID": set.sandbox_id,
        "SandboxKey": set.sandbox_key,
        "Ports": set.ports,
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": bridge.endpoint_id,
        "Gateway": bridge.gateway,
        "GlobalIPv6Address": bridge.global_ipv6_address,
        "GlobalIPv6PrefixLen": bridge.global_ipv6_prefix_len,
        "IPAddress": bridge.ip_address,
        "IPPrefixLen": bridge.ip_prefix_len,
        "IPv6Gateway": bridge.ipv6_gateway,
        "MacAddress": bridge.mac_address,
        "Networks": set.networks,
    })
}
