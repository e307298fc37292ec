//! Ping, version, info, disk usage, and the answers of an engine that is in no swarm.

mod info;
mod version;

use crate::error::{ApiError, ApiResult};
use crate::event;
use crate::http_message::{ApiRequest, ApiResponse, bytes, empty, ok_json};
use crate::router::{Routed, handle};
use crate::state::Daemon;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use std::sync::Arc;

pub const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" \
    to connect this node to swarm and try again.";

pub fn route(daemon: Arc<Daemon>, request: ApiRequest) -> Routed {
    let path = request.path.clone();
    match (request.method.as_str(), path.segments().as_slice()) {
        ("GET", ["_ping"]) => handle(async { Ok(ping(true)) }),
        ("HEAD", ["_ping"]) => handle(async { Ok(ping(false)) }),
        ("GET", ["events"]) => handle(event::serve(daemon, request)),
        ("GET", ["version"]) => handle(async move { ok_json(&version::describe(&daemon).await?) }),
        ("GET", ["info"]) => handle(async move { ok_json(&info::describe(&daemon).await?) }),
        ("GET", ["system", "df"]) => handle(disk_usage(daemon, request)),
        ("POST", ["auth"]) => handle(auth(daemon, request)),
        ("GET", ["plugins"]) => handle(async move {
            request.filters()?.allow(&["capability", "enabled"])?;
            ok_json(&json!([]))
        }),
        (_, ["plugins", name]) | (_, ["plugins", name, _]) => {
            let unknown = ApiError::not_found(format!("plugin {name:?} not found"));
            handle(async { Err(unknown) })
        }
        ("POST", ["swarm", "leave"]) => {
            handle(async { Err(ApiError::unavailable("This node is not part of a swarm")) })
        }
        ("POST", ["swarm", action @ ("init" | "join")]) => {
            let joins = *action == "join";
            handle(swarm(request, joins))
        }
        ("POST", ["swarm", "update"]) => {
            handle(async move { Err(swarm_version(&request, "swarm")) })
        }
        (
            "POST",
            [
                kind @ ("nodes" | "services" | "secrets" | "configs"),
                _,
                "update",
            ],
        ) => {
            let kind = kind.trim_end_matches('s').to_owned();
            handle(async move { Err(swarm_version(&request, &kind)) })
        }
        (
            _,
            [
                "swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs",
                ..,
            ],
        ) => handle(async { Err(ApiError::unavailable(NO_SWARM)) }),
        _ => Routed::NotMine(request),
    }
}

/// This engine joins and makes no swarm; what is wrong with the request is told first, as Docker does.
async fn swarm(mut request: ApiRequest, joins: bool) -> ApiResult<ApiResponse> {
    let body: Value = request.json().await?;
    let address = body["ListenAddr"].as_str().unwrap_or_default();
    if joins && address.is_empty() {
        return Err(ApiError::bad_request(
            "invalid ListenAddr \"\": invalid empty address",
        ));
    }
    Err(ApiError::not_implemented("this engine has no swarm"))
}

/// Updates name the version that they were made from; without a swarm that is all that can be wrong with them.
fn swarm_version(request: &ApiRequest, kind: &str) -> ApiError {
    let version = request.query.get("version").unwrap_or_default();
    match version.parse::<u64>() {
        Ok(_) => ApiError::unavailable(NO_SWARM),
        Err(_) => ApiError::bad_request(format!(
            "invalid {kind} version '{version}': strconv.ParseUint: parsing {version:?}: invalid syntax"
        )),
    }
}

fn ping(with_body: bool) -> ApiResponse {
    let text = "text/plain; charset=utf-8";
    let mut response = if with_body {
        bytes(StatusCode::OK, text, "OK")
    } else {
        empty(StatusCode::OK)
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(text));
    headers.insert("Builder-Version", HeaderValue::from_static("1"));
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Swarm", HeaderValue::from_static("inactive"));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

async fn auth(daemon: Arc<Daemon>, mut request: ApiRequest) -> ApiResult<ApiResponse> {
    daemon
        .images
        .log_in(request.json_or_default().await?)
        .await?;
    ok_json(&json!({ "IdentityToken": "", "Status": "Login Succeeded" }))
}

/// `docker system df`; `type` limits it to some kinds.
async fn disk_usage(daemon: Arc<Daemon>, request: ApiRequest) -> ApiResult<ApiResponse> {
    let kinds: Vec<&str> = request.query.all("type").collect();
    if let Some(kind) = kinds
        .iter()
        .find(|kind| !matches!(**kind, "container" | "image" | "volume" | "build-cache"))
    {
        return Err(ApiError::bad_request(format!(
            "unknown object type: {kind}"
        )));
    }
    let wanted = |kind: &str| kinds.is_empty() || kinds.contains(&kind);
    let (mut images, mut layers) = (Value::Null, 0);
    if wanted("image") {
        let (list, size) = crate::image::disk_usage(&daemon).await?;
        (images, layers) = (json!(list), size);
    }
    let volumes = match wanted("volume") {
        true => json!(crate::volume::disk_usage(&daemon).await?),
        false => Value::Null,
    };
    let containers = match wanted("container") {
        true => json!(crate::container::disk_usage(&daemon).await),
        false => Value::Null,
    };
    ok_json(&json!({
        "LayersSize": layers,
        "Images": images,
        "Containers": containers,
        "Volumes": volumes,
        "BuildCache": if wanted("build-cache") { json!([]) } else { Value::Null },
    }))
}
