//! The image endpoints of the Docker API.

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;

use super::Reference;
use super::import::ImportRequest;
use super::pull::RegistryAuth;
use super::show::platform_of;
use crate::error::{ApiError, ApiResult};
use crate::http_message::{ApiRequest, ApiResponse, empty, ok_json, stream};
use crate::router::{Routed, complete, handle};
use crate::state::Daemon;

pub fn route(daemon: Arc<Daemon>, request: ApiRequest) -> Routed {
    let path = request.path.clone();
    let segments = path.segments();
    // Names may hold slashes: everything between `images` and the last word.
    match (request.method.as_str(), segments.as_slice()) {
        ("GET", ["images", "json"]) => handle(async move {
            let filters = request.filters()?;
            let query = &request.query;
            let wanted = super::show::Wanted {
                all: query.flag("all"),
                manifests: query.flag("manifests"),
                shared_size: query.flag("shared-size"),
            };
            ok_json(&daemon.images.list(&daemon, &filters, wanted).await?)
        }),
        ("GET", ["distribution", name @ .., "json"]) => {
            let name = name.join("/");
            handle(async move {
                let auth = RegistryAuth::from_header(request.header("x-registry-auth"));
                ok_json(&daemon.images.distribution(&name, auth).await?)
            })
        }
        ("POST", ["commit"]) => complete(super::commit::serve(daemon, request)),
        ("GET", ["images", "get"]) => handle(save(daemon, request, None)),
        ("GET", ["images", "search"]) => handle(search(request)),
        ("POST", ["images", "create"]) => handle(create(daemon, request)),
        ("POST", ["images", "load"]) => handle(load(daemon, request)),
        ("POST", ["images", "prune"]) => complete(async move {
            let filters = request.filters()?;
            ok_json(&daemon.images.prune(&daemon, &filters).await?)
        }),
        ("GET", ["images", name @ .., "json"]) => {
            let name = name.join("/");
            handle(async move {
                let platform = platform_of(request.query.non_empty("platform"))?;
                let manifests = request.query.flag("manifests");
                let shown = daemon.images.inspect(&daemon, &name, &platform, manifests);
                ok_json(&shown.await?)
            })
        }
        ("GET", ["images", name @ .., "history"]) => {
            let name = name.join("/");
            handle(async move {
                let platform = platform_of(request.query.non_empty("platform"))?;
                ok_json(&daemon.images.history(&name, &platform).await?)
            })
        }
        ("GET", ["images", name @ .., "get"]) => {
            let name = name.join("/");
            handle(save(daemon, request, Some(name)))
        }
        ("POST", ["images", name @ .., "tag"]) => {
            let name = name.join("/");
            complete(tag(daemon, request, name))
        }
        ("POST", ["images", name @ .., "push"]) => {
            let name = name.join("/");
            handle(push(daemon, request, name))
        }
        ("DELETE", ["images", name @ ..]) if !name.is_empty() => {
            let name = name.join("/");
            complete(async move {
                let force = request.query.flag("force");
                let prune = !request.query.flag("noprune");
                ok_json(&daemon.images.remove(&daemon, &name, force, prune).await?)
            })
        }
        _ => Routed::NotMine(request),
    }
}

/// Pulls, or imports when `fromSrc` is given.
async fn create(daemon: Arc<Daemon>, request: ApiRequest) -> ApiResult<ApiResponse> {
    if request.query.non_empty("fromSrc").is_some() {
        return import(daemon, request).await;
    }
    let name = request.query.non_empty("fromImage").unwrap_or_default();
    let tag = request.query.non_empty("tag").unwrap_or_default();
    let reference = match tag.contains(':') {
        true => Reference::parse(&format!("{name}@{tag}")),
        false => Reference::with_tag(name, tag),
    };
    let reference = reference
        .map_err(|error| ApiError::bad_request(error.to_string()))?
        .or_latest();
    let platform = match request.query.non_empty("platform") {
        Some(text) => Some(platform_of(Some(text))?),
        None => None,
    };
    let auth = RegistryAuth::from_header(request.header("x-registry-auth"));
    Ok(stream(
        "application/json",
        daemon.images.pull(reference, platform, auth).await?,
    ))
}

async fn import(daemon: Arc<Daemon>, request: ApiRequest) -> ApiResult<ApiResponse> {
    let source = request.query.non_empty("fromSrc").unwrap_or_default();
    if source != "-" {
        return Err(ApiError::not_implemented(
            "import reads from the request only: use `docker import -`",
        ));
    }
    let repo = request
        .query
        .non_empty("repo")
        .unwrap_or_default()
        .to_owned();
    let tag = request.query.non_empty("tag").unwrap_or_default();
    let text = if tag.is_empty() {
        repo.clone()
    } else {
        format!("{repo}:{tag}")
    };
    let reference = match repo.is_empty() {
        true => None,
        false => Some(
            Reference::parse(&text)
                .map_err(|error| ApiError::bad_request(error.to_string()))?
                .or_latest(),
        ),
    };
    let asked = ImportRequest {
        reference,
        message: request.query.get("message").unwrap_or_default().to_owned(),
        changes: request.query.all("changes").map(str::to_owned).collect(),
        platform: platform_of(request.query.non_empty("platform"))?,
    };
    let id = daemon.images.import(request.into_stream(), asked).await?;
    let line = format!("{}\r\n", json!({ "status": id }));
    Ok(stream(
        "application/json",
        futures::stream::once(async { Ok(line.into()) }),
    ))
}

async fn load(daemon: Arc<Daemon>, request: ApiRequest) -> ApiResult<ApiResponse> {
    let platform = platform_of(request.query.non_empty("platform"))?;
    let lines = daemon.images.load(request.into_stream(), platform).await?;
    Ok(stream("application/json", lines))
}

async fn save(
    daemon: Arc<Daemon>,
    request: ApiRequest,
    name: Option<String>,
) -> ApiResult<ApiResponse> {
    let names = match name {
        Some(name) => vec![name],
        None => request.query.all("names").map(str::to_owned).collect(),
    };
    let platform = match request.query.non_empty("platform") {
        Some(text) => Some(platform_of(Some(text))?),
        None => None,
    };
    Ok(stream(
        "application/x-tar",
        daemon.images.save(names, platform).await?,
    ))
}

async fn push(daemon: Arc<Daemon>, request: ApiRequest, name: String) -> ApiResult<ApiResponse> {
    let platform = match request.query.non_empty("platform") {
        Some(text) => Some(platform_of(Some(text))?),
        None => None,
    };
    let tag = request.query.non_empty("tag").unwrap_or_default();
    let auth = RegistryAuth::from_header(request.header("x-registry-auth"));
    let lines = daemon.images.push(&name, tag, platform, auth).await?;
    Ok(stream("application/json", lines))
}

/// Searching is a service of Docker Hub's index alone.
async fn search(request: ApiRequest) -> ApiResult<ApiResponse> {
    let term = request.query.non_empty("term").unwrap_or_default();
    if term.is_empty() {
        return Err(ApiError::bad_request("search term is required"));
    }
    request
        .filters()?
        .allow(&["is-automated", "is-official", "stars"])?;
    let limit = request.query.non_empty("limit").unwrap_or("25");
    match limit.parse::<i64>() {
        Err(_) => {
            return Err(ApiError::bad_request(format!(
                "invalid limit specified: strconv.Atoi: parsing \"{limit}\": invalid syntax"
            )));
        }
        Ok(0..=100) => {}
        Ok(_) => {
            return Err(ApiError::bad_request(format!(
                "limit {limit} is outside the range of [1, 100]"
            )));
        }
    }
    match tokio::net::lookup_host("index.docker.io:443").await {
        Err(_) => Err(ApiError::internal(format!(
            "Get \"https://index.docker.io/v1/search?n={limit}&q={term}\": dial tcp: lookup index.docker.io: no such host"
        ))),
        Ok(_) => Err(ApiError::not_implemented(
            "this engine does not search registries",
        )),
    }
}

async fn tag(daemon: Arc<Daemon>, request: ApiRequest, name: String) -> ApiResult<ApiResponse> {
    let repo = request.query.non_empty("repo").unwrap_or_default();
    let tag = request.query.non_empty("tag").unwrap_or_default();
    daemon.images.tag(&name, repo, tag).await?;
    Ok(empty(StatusCode::CREATED))
}
