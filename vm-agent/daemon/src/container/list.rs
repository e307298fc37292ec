//! `GET /containers/json`: `docker ps` with its filters, from a snapshot that waits for nobody.

use super::record::{Container, Status};
use super::{inspect, links, snapshot};
use crate::error::{ApiError, ApiResult};
use crate::filter::Filters;
use crate::http_message::{ApiRequest, ApiResponse, ok_json};
use crate::network::EndpointSet;
use crate::state::Daemon;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

const FILTERS: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

pub async fn serve(daemon: Arc<Daemon>, request: ApiRequest) -> ApiResult<ApiResponse> {
    let query = &request.query;
    let filters = request.filters()?;
    filters.allow(&FILTERS)?;
    let mut selection = Selection::new(&daemon, &filters)?;
    selection.find_ancestors().await;
    let limit = match query.non_empty("limit") {
        Some(text) => text.parse::<i64>().map_err(|_| {
            ApiError::internal(format!("strconv.Atoi: parsing \"{text}\": invalid syntax"))
        })?,
        None => -1,
    };
    let all = query.flag("all") || limit > 0 || filters.has("status") || filters.has("exited");
    let mut containers = daemon.containers.list();
    containers.retain(|container| {
        (all || container.running || container.state.status == Status::Restarting)
            && selection.takes(container)
    });
    containers.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
    if limit > 0 {
        containers.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    ok_json(&summaries(&daemon, &containers, query.flag("size")).await)
}

async fn summaries(daemon: &Daemon, containers: &[Arc<Container>], sizes: bool) -> Vec<Value> {
    let mut shown = Vec::with_capacity(containers.len());
    let mut images = ImageSizes::default();
    let mut linked = links::names(&daemon.containers.list());
    for container in containers {
        let mut summary = summary(daemon, container);
        let names = [format!("/{}", container.name)];
        let by_links = linked.remove(&container.id).into_iter().flatten();
        summary["Names"] = names.into_iter().chain(by_links).collect();
        if sizes {
            add_size(daemon, container, &mut images, &mut summary).await;
        }
        shown.push(summary);
    }
    shown
}

/// Every container with its sizes, for `docker system df`.
pub async fn disk_usage(daemon: &Daemon) -> Vec<Value> {
    let mut shown = summaries(daemon, &daemon.containers.list(), true).await;
    for summary in shown.iter_mut().filter_map(Value::as_object_mut) {
        // Docker has it in lists alone.
        summary.remove("ImageManifestDescriptor");
    }
    shown
}

/// Bytes of the images that containers stand on, by their snapshot; many stand on the same.
pub type ImageSizes = HashMap<String, i64>;

/// `SizeRw` and `SizeRootFs`, where the supervisor knows them.
pub async fn add_size(
    daemon: &Daemon,
    container: &Container,
    images: &mut ImageSizes,
    shown: &mut Value,
) {
    let own = snapshot::usage(&daemon.containers, &container.id)
        .await
        .unwrap_or_default();
    let parent = &container.snapshot_parent;
    let image = match images.get(parent) {
        Some(size) => *size,
        None => snapshot::chain_usage(&daemon.containers, parent).await,
    };
    images.insert(parent.clone(), image);
    if own > 0 {
        shown["SizeRw"] = json!(own);
    }
    shown["SizeRootFs"] = json!(own + image);
}

/// What the filters ask for, names resolved once.
struct Selection<'a> {
    filters: &'a Filters,
    daemon: &'a Daemon,
    before: Option<Arc<Container>>,
    since: Option<Arc<Container>>,
    exited: Vec<i32>,
    /// Images whose containers are asked for; `None` for those of all.
    images: Option<HashSet<String>>,
}

impl<'a> Selection<'a> {
    fn new(daemon: &'a Daemon, filters: &'a Filters) -> ApiResult<Self> {
        for status in filters.values("status") {
            if !Status::ALL.iter().any(|known| known.as_str() == status) {
                return Err(ApiError::bad_request(format!(
                    "invalid filter 'status={status}': invalid value for state ({status}): must be one of created, \
                     running, paused, restarting, removing, exited, dead"
                )));
            }
        }
        for health in filters.values("health") {
            if !matches!(
                health.as_str(),
                "none" | "starting" | "healthy" | "unhealthy"
            ) {
                return Err(ApiError::bad_request(format!(
                    "invalid filter 'health={health}': invalid value for health ({health}): must be one of none, \
                     starting, healthy, unhealthy"
                )));
            }
        }
        filters.boolean("is-task")?;
        for what in ["expose", "publish"] {
            for port in filters.values(what) {
                check_port(what, port)?;
            }
        }
        let exited = filters.values("exited").iter().map(|text| {
            text.parse()
                .map_err(|_| ApiError::bad_request(format!(
                    "invalid filter 'exited={text}': strconv.Atoi: parsing \"{text}\": invalid syntax"
                )))
        });
        let named = |filter: &str| {
            filters
                .values(filter)
                .first()
                .map(|name| daemon.containers.get(name))
                .transpose()
        };
        Ok(Selection {
            before: named("before")?,
            since: named("since")?,
            exited: exited.collect::<ApiResult<_>>()?,
            images: None,
            filters,
            daemon,
        })
    }

    /// The wanted ancestors and all images that were built on them.
    async fn find_ancestors(&mut self) {
        if !self.filters.has("ancestor") {
            return;
        }
        let mut images = HashSet::new();
        for name in self.filters.values("ancestor") {
            // One that is not here has no containers.
            images.extend(
                self.daemon
                    .images
                    .with_descendants(name)
                    .await
                    .unwrap_or_default(),
            );
        }
        self.images = Some(images);
    }

    fn takes(&self, container: &Container) -> bool {
        let filters = self.filters;
        let state = &container.state;
        let ended =
            matches!(state.status, Status::Exited | Status::Dead) && state.started_at.is_some();
        filters.any("id", |id| container.id.starts_with(id.as_str()))
            && filters.any("name", |wanted| name_matches(&container.name, wanted))
            && filters.labels(&container.config.labels)
            && filters.exact("status", state.status.as_str())
            && (self.exited.is_empty() || (ended && self.exited.contains(&state.exit_code)))
            && self
                .before
                .as_ref()
                .is_none_or(|before| container.created < before.created)
            && self
                .since
                .as_ref()
                .is_none_or(|since| container.created > since.created)
            && self
                .images
                .as_ref()
                .is_none_or(|images| images.contains(&container.image_id))
            && filters.any("volume", |volume| uses_volume(container, volume))
            && filters.any("network", |network| self.is_on(container, network))
            && filters.any("publish", |port| publishes(container, port))
            && filters.any("expose", |port| exposes(container, port))
            && filters.any("health", |health| health_of(container) == health)
            && filters.any("is-task", |wanted| !matches!(wanted.as_str(), "true" | "1"))
    }

    fn is_on(&self, container: &Container, wanted: &str) -> bool {
        let set = self
            .daemon
            .networks
            .endpoints(&container.id)
            .unwrap_or_default();
        let mode = &container.host_config.network_mode;
        mode == wanted
            || set.networks.iter().any(|(name, endpoint)| {
                name == wanted || (!wanted.is_empty() && endpoint.network_id.starts_with(wanted))
            })
    }
}

fn health_of(container: &Container) -> &'static str {
    let health = container.state.health.as_ref();
    health.map_or("none", |health| health.status.as_str())
}

/// `name` filters are regular expressions to Docker; `^`, `$` and `.*` are what people use.
fn name_matches(name: &str, wanted: &str) -> bool {
    let (text, from_start) = match wanted.strip_prefix('^') {
        Some(rest) => (rest, true),
        None => (wanted, false),
    };
    let (text, to_end) = match text.strip_suffix('$') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let slashed = format!("/{name}");
    let name = if text.starts_with('/') {
        slashed.as_str()
    } else {
        name
    };
    let mut rest = name;
    let parts: Vec<&str> = text.split(".*").collect();
    for (index, part) in parts.iter().enumerate() {
        let last = index + 1 == parts.len();
        let at = match (index == 0 && from_start, last && to_end) {
            (true, true) => (rest == *part).then_some(0),
            (true, false) => rest.starts_with(part).then_some(0),
            (false, true) => rest.ends_with(part).then(|| rest.len() - part.len()),
            (false, false) => rest.find(part),
        };
        match at {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

fn uses_volume(container: &Container, wanted: &str) -> bool {
    container
        .mounts
        .iter()
        .any(|point| point.name == wanted || point.destination == wanted)
}

/// `80`, `80/udp`, `8000-9000/tcp`
fn port_range(text: &str) -> Option<(u16, u16, &str)> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    Some((first.parse().ok()?, last.parse().ok()?, protocol))
}

/// A port filter that no container could satisfy, in the words of Docker and its number parser.
fn check_port(what: &str, text: &str) -> ApiResult<()> {
    let numbers = text.split_once('/').map_or(text, |(numbers, _)| numbers);
    for number in numbers.splitn(2, '-') {
        if number.parse::<u16>().is_ok() {
            continue;
        }
        let why = match !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
            true => "value out of range",
            false => "invalid syntax",
        };
        return Err(ApiError::internal(format!(
            "error while looking up for {what} {text}: strconv.ParseUint: parsing \"{number}\": {why}"
        )));
    }
    Ok(())
}

fn in_range(port: &str, wanted: &str) -> bool {
    let (Some((port, _, protocol)), Some((first, last, wanted))) =
        (port_range(port), port_range(wanted))
    else {
        return false;
    };
    protocol == wanted && (first..=last).contains(&port)
}

fn publishes(container: &Container, wanted: &str) -> bool {
    container
        .host_config
        .port_bindings
        .iter()
        .flatten()
        .any(|(port, bindings)| {
            let protocol = port.split_once('/').map_or("tcp", |(_, protocol)| protocol);
            bindings
                .iter()
                .flatten()
                .any(|binding| in_range(&format!("{}/{protocol}", binding.host_port), wanted))
        })
}

fn exposes(container: &Container, wanted: &str) -> bool {
    container
        .config
        .exposed_ports
        .keys()
        .any(|port| in_range(port, wanted))
}

fn summary(daemon: &Daemon, container: &Container) -> Value {
    let set = inspect::endpoints(daemon, container);
    let quoted = |argument: &String| match argument.contains(' ') {
        true => format!("'{argument}'"),
        false => argument.clone(),
    };
    let command = std::iter::once(container.path.clone()).chain(container.args.iter().map(quoted));
    let mut labels = container.config.labels.clone();
    labels.retain(|key, _| !key.is_empty());
    json!({
        "Id": container.id,
        "Image": container.image,
        "ImageID": container.image_id,
        "ImageManifestDescriptor": inspect::manifest(container),
        "Command": command.collect::<Vec<_>>().join(" "),
        "Created": container.created.timestamp(),
        "Ports": ports(&set, container),
        "Labels": labels,
        "State": container.state.status.as_str(),
        "Status": status_text(container, Utc::now()),
        "HostConfig": { "NetworkMode": container.host_config.network_mode },
        "NetworkSettings": { "Networks": set.networks },
        "Mounts": inspect::mounts(container),
    })
}

fn ports(set: &EndpointSet, container: &Container) -> Vec<Value> {
    let mut shown = Vec::new();
    let split = |port: &str| {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        (
            number.parse::<u16>().unwrap_or_default(),
            protocol.to_owned(),
        )
    };
    for (port, bindings) in &set.ports {
        let (number, protocol) = split(port);
        let bindings = bindings.as_deref().unwrap_or_default();
        if bindings.is_empty() {
            shown.push(json!({ "PrivatePort": number, "Type": protocol }));
        }
        for binding in bindings {
            let public: u16 = binding.host_port.parse().unwrap_or_default();
            shown.push(json!({
                "IP": binding.host_ip, "PrivatePort": number, "PublicPort": public, "Type": protocol,
            }));
        }
    }
    if container.running {
        for port in container
            .config
            .exposed_ports
            .keys()
            .filter(|port| !set.ports.contains_key(*port))
        {
            let (number, protocol) = split(port);
            shown.push(json!({ "PrivatePort": number, "Type": protocol }));
        }
    }
    shown
}

/// `Up 3 minutes`, `Exited (0) 2 hours ago`, …
pub fn status_text(container: &Container, now: DateTime<Utc>) -> String {
    let state = &container.state;
    let since = |time: Option<DateTime<Utc>>| {
        time.map_or_else(String::new, |time| {
            human_duration((now - time).num_seconds())
        })
    };
    match state.status {
        Status::Running => {
            let health = match health_of(container) {
                "none" => String::new(),
                "starting" => " (health: starting)".to_owned(),
                other => format!(" ({other})"),
            };
            format!("Up {}{health}", since(state.started_at))
        }
        Status::Paused => format!("Up {} (Paused)", since(state.started_at)),
        Status::Restarting => format!(
            "Restarting ({}) {} ago",
            state.exit_code,
            since(state.finished_at)
        ),
        Status::Created => "Created".to_owned(),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Exited if state.finished_at.is_none() => format!("Exited ({})", state.exit_code),
        Status::Exited => format!(
            "Exited ({}) {} ago",
            state.exit_code,
            since(state.finished_at)
        ),
    }
}

/// Docker's wording of a duration.
fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_dockers() {
        let table = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (3 * 3600, "3 hours"),
            (49 * 3600, "2 days"),
            (15 * 24 * 3600, "2 weeks"),
            (100 * 24 * 3600, "3 months"),
        ];
        for (seconds, expected) in table {
            assert_eq!(human_duration(seconds), expected);
        }
    }

    #[test]
    fn names_match_as_people_write_them() {
        let table = [
            ("web", "we", true),
            ("web", "^web$", true),
            ("web1", "^web$", false),
            ("my-web", "web$", true),
            ("web", "/web", true),
            ("my-web", "^/web", false),
            ("a-b-c", "^a.*c$", true),
            ("a-b-d", "^a.*c$", false),
        ];
        for (name, wanted, expected) in table {
            assert_eq!(name_matches(name, wanted), expected, "{name} {wanted}");
        }
    }

    #[test]
    fn port_filters() {
        let table = [
            ("80/tcp", "80", true),
            ("80/tcp", "79-81/tcp", true),
            ("80/udp", "80", false),
            ("81/tcp", "80/tcp", false),
            ("80/tcp", "x", false),
        ];
        for (port, wanted, expected) in table {
            assert_eq!(in_range(port, wanted), expected, "{port} {wanted}");
        }
    }
}
