//! The volume endpoints of the Docker API.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::store::{Labels, Volume};
use crate::error::{ApiError, ApiResult};
use crate::filter::Filters;
use crate::http_message::{ApiRequest, ApiResponse, empty, json as json_response, ok_json};
use crate::router::{Routed, complete, handle};
use crate::state::Daemon;

pub fn route(daemon: Arc<Daemon>, request: ApiRequest) -> Routed {
    let path = request.path.clone();
    match (request.method.as_str(), path.segments().as_slice()) {
        ("GET", ["volumes"]) => handle(async move {
            let filters = request
                .filters()
                .map_err(|error| error.context("error reading volume filters"))?;
            list(&daemon, &filters)
        }),
        ("POST", ["volumes", "create"]) => complete(create(daemon, request)),
        ("POST", ["volumes", "prune"]) => complete(prune(daemon, request)),
        ("GET", ["volumes", name]) => {
            let name = (*name).to_owned();
            handle(async move { ok_json(&daemon.volumes.get(&name)?) })
        }
        ("POST", ["longshore", "volumes", name, "clone"]) => {
            let name = (*name).to_owned();
            handle(super::clone::clone(daemon, request, name))
        }
        ("PUT", ["volumes", _]) => handle(async {
            Err(ApiError::unavailable(
                "volume update only valid for cluster volumes, but swarm is unavailable",
            ))
        }),
        ("DELETE", ["volumes", name]) => {
            let name = (*name).to_owned();
            complete(async move {
                daemon
                    .volumes
                    .remove(&name, request.query.flag("force"))
                    .await?;
                Ok(empty(StatusCode::NO_CONTENT))
            })
        }
        _ => Routed::NotMine(request),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CreateVolume {
    name: Option<String>,
    driver: Option<String>,
    driver_opts: Option<Labels>,
    labels: Option<Labels>,
}

async fn create(daemon: Arc<Daemon>, mut request: ApiRequest) -> ApiResult<ApiResponse> {
    let body: CreateVolume = request.json_or_default().await?;
    let volume = daemon
        .volumes
        .get_or_create(
            body.name.as_deref().unwrap_or_default(),
            body.driver.as_deref().unwrap_or_default(),
            &body.driver_opts.unwrap_or_default(),
            &body.labels.unwrap_or_default(),
        )
        .await?;
    json_response(StatusCode::CREATED, &volume)
}

fn list(daemon: &Daemon, filters: &Filters) -> ApiResult<ApiResponse> {
    filters.allow(&["dangling", "driver", "label", "label!", "name"])?;
    let dangling = filters.boolean("dangling")?;
    let volumes: Vec<Volume> = daemon
        .volumes
        .list()
        .into_iter()
        .filter(|volume| {
            filters.any("name", |name| volume.name.contains(name.as_str()))
                && filters.exact("driver", &volume.driver)
                && filters.labels(&volume.labels.clone().unwrap_or_default())
                && dangling
                    .is_none_or(|wanted| wanted == daemon.volumes.users(&volume.name).is_empty())
        })
        .collect();
    ok_json(&json!({ "Volumes": volumes, "Warnings": null }))
}

/// Anonymous volumes that no container has; with `all=true` named ones too.
async fn prune(daemon: Arc<Daemon>, request: ApiRequest) -> ApiResult<ApiResponse> {
    let filters = request.filters()?;
    filters.allow(&["all", "label", "label!"])?;
    let all = filters.boolean("all").map_err(|_| {
        let value = filters.values("all").join(" ");
        ApiError::bad_request(format!(
            "invalid filter 'all': strconv.ParseBool: parsing {value:?}: invalid syntax"
        ))
    })?;
    let all = all.unwrap_or(false);
    let (mut deleted, mut reclaimed) = (Vec::new(), 0);
    for volume in daemon.volumes.list() {
        let wanted = (all || volume.is_anonymous())
            && daemon.volumes.users(&volume.name).is_empty()
            && filters.labels(&volume.labels.clone().unwrap_or_default());
        if !wanted {
            continue;
        }
        let size = size_of(&volume).await;
        match daemon.volumes.remove(&volume.name, false).await {
            Ok(()) => {
                reclaimed += size;
                deleted.push(volume.name);
            }
            Err(error) => tracing::warn!(%error, volume = volume.name, "pruning a volume"),
        }
    }
    daemon.volumes.publish_prune(reclaimed);
    ok_json(&json!({ "VolumesDeleted": deleted, "SpaceReclaimed": reclaimed }))
}

/// Bytes of the files in it.
pub(super) async fn size_of(volume: &Volume) -> u64 {
    let path = volume.mountpoint.clone();
    tokio::task::spawn_blocking(move || bytes_under(&path))
        .await
        .unwrap_or(0)
}

/// Bytes of files below a folder; links are counted, not followed.
fn bytes_under(folder: &Path) -> u64 {
    let mut total = 0;
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => open.push(entry.path()),
                Ok(meta) => total += meta.size(),
                Err(_) => {}
            }
        }
    }
    total
}

/// The part of `docker system df` that volumes have.
pub async fn disk_usage(daemon: &Daemon) -> ApiResult<Vec<Value>> {
    let mut shown = Vec::new();
    for volume in daemon.volumes.list() {
        let size = size_of(&volume).await;
        let users = daemon.volumes.users(&volume.name).len();
        let mut value = serde_json::to_value(&volume)?;
        value["UsageData"] = json!({ "Size": size, "RefCount": users });
        shown.push(value);
    }
    Ok(shown)
}
