//! The network endpoints of the Docker API.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::definitions::CreateNetwork;
use super::endpoint_check;
use super::ipam::Lease;
use super::model::{EndpointSet, EndpointSettings, Network, null_default};
use crate::container::{Container, Entry, update_network_files};
use crate::error::{ApiError, ApiResult};
use crate::filter::{Filters, go_boolean};
use crate::http_message::{self, ApiRequest, ApiResponse, empty, ok_json};
use crate::router::{Routed, complete, handle};
use crate::state::Daemon;

pub fn route(daemon: Arc<Daemon>, request: ApiRequest) -> Routed {
    let path = request.path.clone();
    match (request.method.as_str(), path.segments().as_slice()) {
        ("GET", ["networks"]) => handle(async move { list(&daemon, &request) }),
        ("POST", ["networks", "create"]) => complete(create(daemon, request)),
        ("POST", ["networks", "prune"]) => complete(prune(daemon, request)),
        ("GET", ["networks", name]) => {
            let name = (*name).to_owned();
            handle(async move { inspect_one(&daemon, &name, &request) })
        }
        ("DELETE", ["networks", name]) => {
            let name = (*name).to_owned();
            complete(async move {
                daemon.networks.remove(&name).await?;
                Ok(empty(StatusCode::NO_CONTENT))
            })
        }
        ("POST", ["networks", name, "connect"]) => {
            complete(connect(daemon, (*name).to_owned(), request))
        }
        ("POST", ["networks", name, "disconnect"]) => {
            complete(disconnect(daemon, (*name).to_owned(), request))
        }
        _ => Routed::NotMine(request),
    }
}

/// One network, if it is of the scope that is asked for. Only a swarm has more to say in its verbose answer.
fn inspect_one(daemon: &Daemon, name: &str, request: &ApiRequest) -> ApiResult<ApiResponse> {
    if let Some(verbose) = request.query.non_empty("verbose")
        && go_boolean(verbose).is_none()
    {
        return Err(ApiError::bad_request(format!(
            "invalid value for verbose: {verbose}: strconv.ParseBool: parsing {verbose:?}: invalid syntax"
        )));
    }
    let network = daemon.networks.find(name)?;
    match request.query.non_empty("scope") {
        Some(scope) if scope != network.scope => {
            Err(ApiError::not_found(format!("network {name} not found")))
        }
        _ => ok_json(&inspect(daemon, &network, true)),
    }
}

/// A network as inspect shows it; lists leave its containers out.
fn inspect(daemon: &Daemon, network: &Network, with_containers: bool) -> Value {
    let mut shown = serde_json::to_value(network).unwrap_or_default();
    let mut containers = BTreeMap::new();
    if with_containers {
        let state = daemon.networks.state();
        for sandbox in state.sandboxes.values() {
            for end in sandbox
                .endpoints
                .iter()
                .filter(|end| end.network_id == network.id)
            {
                let block = |lease: Option<Lease>| {
                    lease.map_or_else(String::new, |lease| {
                        format!("{}/{}", lease.address, lease.prefix)
                    })
                };
                containers.insert(
                    sandbox.container_id.clone(),
                    json!({
                        "Name": sandbox.container_name,
                        "EndpointID": end.endpoint_id,
                        "MacAddress": end.mac,
                        "IPv4Address": block(end.v4),
                        "IPv6Address": block(end.v6),
                    }),
                );
            }
        }
    }
    if let Some(members) = shown.as_object_mut() {
        members.remove("Allocated");
    }
    shown["ConfigFrom"] = json!({ "Network": "" });
    shown["ConfigOnly"] = json!(false);
    shown["Containers"] = json!(containers);
    shown
}

fn list(daemon: &Daemon, request: &ApiRequest) -> ApiResult<ApiResponse> {
    let filters = request.filters()?;
    filters.allow(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
    let dangling = filters.boolean("dangling").map_err(|_| {
        ApiError::bad_request(
            "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")",
        )
    })?;
    if let Some(kind) = filters
        .values("type")
        .iter()
        .find(|kind| !matches!(kind.as_str(), "builtin" | "custom"))
    {
        return Err(ApiError::internal(format!(
            "invalid filter: 'type'='{kind}'"
        )));
    }
    let networks: Vec<Network> = daemon.networks.state().networks.values().cloned().collect();
    let shown: Vec<Value> = networks
        .iter()
        .filter(|network| matches(&filters, network))
        .filter(|network| {
            dangling.is_none_or(|wanted| {
                wanted == (!network.is_predefined() && !daemon.networks.is_used(network))
            })
        })
        .map(|network| inspect(daemon, network, false))
        .collect();
    ok_json(&shown)
}

fn matches(filters: &Filters, network: &Network) -> bool {
    let kind = if network.is_predefined() {
        "builtin"
    } else {
        "custom"
    };
    filters.any("name", |name| network.name.contains(name.as_str()))
        && filters.any("id", |id| network.id.starts_with(id.as_str()))
        && filters.exact("driver", &network.driver)
        && filters.exact("scope", &network.scope)
        && filters.exact("type", kind)
        && filters.labels(&network.labels)
}

async fn create(daemon: Arc<Daemon>, mut request: ApiRequest) -> ApiResult<ApiResponse> {
    let body: CreateNetwork = request.json_or_default().await?;
    let network = daemon.networks.create(body).await?;
    http_message::json(
        StatusCode::CREATED,
        &json!({ "Id": network.id, "Warning": "" }),
    )
}

async fn prune(daemon: Arc<Daemon>, request: ApiRequest) -> ApiResult<ApiResponse> {
    let filters = request.filters()?;
    filters.allow(&["label", "label!", "until"])?;
    let networks: Vec<Network> = daemon.networks.state().networks.values().cloned().collect();
    let until = filters.until()?;
    let wanted = networks.iter().filter(|network| {
        !network.is_predefined()
            && until.is_none_or(|until| network.created_before(until))
            && !daemon.networks.is_used(network)
            && filters.labels(&network.labels)
    });
    let mut deleted = Vec::new();
    for network in wanted {
        match daemon.networks.remove(&network.id).await {
            Ok(()) => deleted.push(network.name.clone()),
            Err(error) => tracing::warn!(%error, network = network.name, "pruning a network"),
        }
    }
    daemon.networks.publish_prune();
    let deleted = if deleted.is_empty() {
        Value::Null
    } else {
        json!(deleted)
    };
    ok_json(&json!({ "NetworksDeleted": deleted }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConnectRequest {
    #[serde(deserialize_with = "null_default")]
    container: String,
    #[serde(deserialize_with = "null_default")]
    endpoint_config: EndpointSettings,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DisconnectRequest {
    #[serde(deserialize_with = "null_default")]
    container: String,
    #[serde(deserialize_with = "null_default")]
    force: bool,
}

async fn connect(
    daemon: Arc<Daemon>,
    name: String,
    mut request: ApiRequest,
) -> ApiResult<ApiResponse> {
    let body: ConnectRequest = request.json().await?;
    let entry = find_container(&daemon, &body.container)?;
    let network = daemon.networks.find(&name)?;
    let _operation = entry.operate().await?;
    let container = entry.now();
    check_change(&container, &network, true)?;
    endpoint_check::check(&network.name, Some(&network), &body.endpoint_config)
        .map_err(ApiError::bad_request)?;
    let before = daemon.networks.endpoints(&container.id);
    if container.running {
        let names = [container.name.as_str(), &container.config.hostname];
        daemon
            .networks
            .connect(&container.id, &names, &network, &body.endpoint_config)
            .await?;
    }
    let settings = serde_json::to_value(&body.endpoint_config)?;
    daemon.containers.change_fixed(&entry, |fixed| {
        if is_first(&container, &network) {
            fixed.left_first_network = false;
        }
        let ends = &mut fixed.networking.endpoints_config;
        ends.retain(|known, _| !names(&network, known));
        ends.insert(network.name.clone(), settings);
    })?;
    update_files(&daemon, &container, before, &entry.now());
    Ok(empty(StatusCode::OK))
}

async fn disconnect(
    daemon: Arc<Daemon>,
    name: String,
    mut request: ApiRequest,
) -> ApiResult<ApiResponse> {
    let body: DisconnectRequest = request.json().await?;
    let entry = match find_container(&daemon, &body.container) {
        Err(_) if body.force => {
            daemon.networks.find(&name)?;
            return Err(ApiError::not_found(format!(
                "endpoint {} not found",
                body.container
            )));
        }
        found => found?,
    };
    let network = daemon.networks.find(&name)?;
    let _operation = entry.operate().await?;
    let container = entry.now();
    check_change(&container, &network, false)?;
    let ends = &container.networking.endpoints_config;
    let asked = ends.keys().any(|known| names(&network, known));
    let first = is_first(&container, &network) && !container.left_first_network;
    let before = daemon.networks.endpoints(&container.id);
    if container.running {
        let done = daemon.networks.disconnect(&container.id, &network).await;
        if !body.force {
            done?;
        }
    } else if !asked && !first && !body.force {
        return Err(ApiError::forbidden(format!(
            "container {} is not connected to network {}",
            container.id, network.name
        )));
    }
    daemon.containers.change_fixed(&entry, |fixed| {
        fixed.left_first_network |= first;
        let ends = &mut fixed.networking.endpoints_config;
        ends.retain(|known, _| !names(&network, known));
    })?;
    update_files(&daemon, &container, before, &entry.now());
    Ok(empty(StatusCode::OK))
}

/// The change itself has happened by now; files that do not follow it are worth a line in the log.
fn update_files(
    daemon: &Daemon,
    container: &Container,
    before: Option<EndpointSet>,
    changed: &Container,
) {
    let (Some(before), Some(after)) = (before, daemon.networks.endpoints(&container.id)) else {
        return;
    };
    let updated = update_network_files(daemon, (container, &before), (changed, &after));
    if let Err(error) = updated {
        tracing::warn!(%error, container = container.id, "following a change of networks in the container's files");
    }
}

fn find_container(daemon: &Daemon, reference: &str) -> ApiResult<Arc<Entry>> {
    match reference {
        "" => Err(ApiError::bad_request("invalid name or ID supplied: \"\"")),
        reference => daemon.containers.entry(reference),
    }
}

/// Whether `known`, as a client wrote it, is this network.
fn names(network: &Network, known: &str) -> bool {
    let known = if known == "default" { "bridge" } else { known };
    known == network.name || known == network.id
}

/// Whether the container's mode names this network.
fn is_first(container: &Container, network: &Network) -> bool {
    names(network, &container.host_config.network_mode)
}

/// Docker's refusals for containers without networks of their own, and for networks without ends.
fn check_change(container: &Container, network: &Network, connecting: bool) -> ApiResult<()> {
    let mode = container.host_config.network_mode.as_str();
    let of_host = network.driver == "host";
    if !connecting && mode == "host" && of_host {
        return Err(ApiError::bad_request(
            "cannot disconnect container from host network - container was created in host network mode",
        ));
    }
    if mode.starts_with("container:") || mode == "host" {
        return Err(ApiError::bad_request(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ));
    }
    if of_host {
        return Err(ApiError::bad_request(
            "cannot connect container to host network - container must be created in host network mode",
        ));
    }
    if mode == "none" || network.driver == "null" {
        return Err(ApiError::bad_request(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ));
    }
    Ok(())
}
