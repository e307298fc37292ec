//! `POST /build`: the context to a folder, the classic builder over this engine, its words as Docker's JSON lines.

mod engine;
mod output;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use longshore_builder::{Dockerfile, Error, Options};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::archive;
use crate::container::config::HostConfig;
use crate::error::{ApiError, ApiResult};
use crate::http_message::{ApiRequest, ApiResponse, Query, empty, ok_json, stream};
use crate::image::{Reference, RegistryAuth};
use crate::router::{Routed, handle};
use crate::state::Daemon;
use engine::BuildEngine;
use output::Lines;

/// A Dockerfile is text that a person wrote.
const DOCKERFILE_LIMIT: u64 = 4 << 20;

pub fn route(daemon: Arc<Daemon>, request: ApiRequest) -> Routed {
    let path = request.path.clone();
    match (request.method.as_str(), path.segments().as_slice()) {
        ("POST", ["build"]) => handle(serve(daemon, request)),
        // BuildKit's: the classic builder has no records and no cache of its own.
        ("POST", ["build", "prune"]) => handle(async move {
            let known = [
                "description",
                "id",
                "inuse",
                "parent",
                "private",
                "shared",
                "type",
                "unused-for",
                "until",
            ];
            let allowed = request.filters()?.allow(&known);
            allowed.map_err(|error| error.context("failed to prune build cache"))?;
            ok_json(&json!({ "CachesDeleted": null, "SpaceReclaimed": 0 }))
        }),
        ("POST", ["build", "cancel"]) => handle(async move {
            match request.query.non_empty("id") {
                None => Err(ApiError::bad_request("build ID not provided")),
                Some(_) => Ok(empty(StatusCode::OK)),
            }
        }),
        _ => Routed::NotMine(request),
    }
}

/// What a build was asked for, beside the context.
struct Asked {
    options: Options,
    /// Where the Dockerfile is in the context.
    dockerfile_name: String,
    tags: Vec<Reference>,
    host: HostConfig,
    quiet: bool,
    auth: BTreeMap<String, RegistryAuth>,
}

/// A folder that goes with the build.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "removing a build context");
        }
    }
}

async fn serve(daemon: Arc<Daemon>, request: ApiRequest) -> ApiResult<ApiResponse> {
    let mut asked = asked(&request.query, request.header("x-registry-config"))?;
    let folder = daemon
        .config
        .data("tmp")
        .join(format!("build-{}", crate::identity::new_id()));
    let folder = Folder(folder);
    receive(request, &folder.0).await?;
    let (path, name) = (folder.0.clone(), asked.dockerfile_name.clone());
    let text =
        tokio::task::spawn_blocking(move || archive::read_text(&path, &name, DOCKERFILE_LIMIT));
    let text = text
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let text = text.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            ApiError::internal(Error::NoDockerfile(asked.dockerfile_name.clone()).to_string())
        }
        _ => ApiError::internal(format!("reading the Dockerfile: {error}")),
    })?;
    let dockerfile = longshore_builder::parse(&text, &asked.dockerfile_name)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    asked.options.context = folder.0.clone();
    let (sender, lines) = mpsc::channel(64);
    // Dropped with the response when the client goes: the build ends with its client.
    let work = crate::trace_context::scope(crate::trace_context::current(), async move {
        let _folder = folder;
        run(daemon, dockerfile, asked, Lines::new(sender)).await;
    });
    let task = AbortOnDrop(tokio::spawn(work));
    let lines = ReceiverStream::new(lines).map(move |line: Value| {
        let _task = &task;
        Ok(Bytes::from(format!("{line}\r\n")))
    });
    Ok(stream("application/json", lines))
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(daemon: Arc<Daemon>, dockerfile: Dockerfile, asked: Asked, lines: Lines) {
    let engine = BuildEngine::new(daemon.clone(), asked.host, asked.auth);
    let output = lines.clone();
    let output = if asked.quiet { output.quiet() } else { output };
    let built = longshore_builder::build(&engine, &output, dockerfile, &asked.options).await;
    engine.keep_containers();
    let image = match built {
        Ok(built) => built.image,
        Err(error) => {
            let code = match &error {
                Error::Command { code, .. } => *code,
                _ => 0,
            };
            lines.fail(&error.to_string(), code).await;
            return;
        }
    };
    for tag in &asked.tags {
        if let Err(error) = daemon.images.tag_built(&image, tag).await {
            lines.fail(&error.message, 0).await;
            return;
        }
        let text = format!("Successfully tagged {}\n", tag.familiar());
        longshore_builder::Output::say(&output, &text).await;
    }
    if asked.quiet {
        lines.stream(&format!("{image}\n")).await;
    }
}

fn asked(query: &Query, auth: Option<&str>) -> ApiResult<Asked> {
    if let Some(remote) = query.non_empty("remote") {
        return Err(ApiError::bad_request(format!(
            "a build context from {remote} is not supported by this builder: clone or download it and build the folder"
        )));
    }
    if query.get("version") == Some("2") {
        return Err(ApiError::bad_request(
            "this engine has no BuildKit: build with DOCKER_BUILDKIT=0",
        ));
    }
    if query.flag("squash") {
        return Err(ApiError::bad_request(
            "squash is only supported with experimental mode",
        ));
    }
    let tags = query.all("t").filter(|tag| !tag.is_empty()).map(|tag| {
        let reference = Reference::parse(tag)
            .map_err(|error| ApiError::bad_request(format!("invalid tag {tag:?}: {error}")))?;
        match reference.digest {
            Some(_) => Err(ApiError::bad_request("build tag cannot contain a digest")),
            None => Ok(reference.or_latest()),
        }
    });
    let tags = tags.collect::<ApiResult<Vec<_>>>()?;
    let mut host = HostConfig {
        network_mode: query
            .non_empty("networkmode")
            .unwrap_or("default")
            .to_owned(),
        shm_size: query.number("shmsize")?.unwrap_or(0),
        ..HostConfig::default()
    };
    let limits = &mut host.resources;
    limits.memory = query.number("memory")?.unwrap_or(0);
    limits.memory_swap = query.number("memswap")?.unwrap_or(0);
    limits.cpu_shares = query.number("cpushares")?.unwrap_or(0);
    limits.cpu_period = query.number("cpuperiod")?.unwrap_or(0);
    limits.cpu_quota = query.number("cpuquota")?.unwrap_or(0);
    limits.cpuset_cpus = query.get("cpusetcpus").unwrap_or_default().to_owned();
    limits.cpuset_mems = query.get("cpusetmems").unwrap_or_default().to_owned();
    limits.cgroup_parent = query.get("cgroupparent").unwrap_or_default().to_owned();
    limits.ulimits = json_parameter(query, "ulimits")?;
    let hosts = query.get("extrahosts").unwrap_or_default();
    let hosts: Vec<String> = hosts
        .split(',')
        .filter(|h| !h.is_empty())
        .map(str::to_owned)
        .collect();
    host.extra_hosts = (!hosts.is_empty()).then_some(hosts);
    host.security_opt = json_parameter(query, "securityopt")?;
    let name = query.non_empty("dockerfile").unwrap_or("Dockerfile");
    let options = Options {
        arguments: json_parameter(query, "buildargs")?.unwrap_or_default(),
        labels: json_parameter(query, "labels")?.unwrap_or_default(),
        target: query.get("target").unwrap_or_default().to_owned(),
        no_cache: query.flag("nocache"),
        pull: query.flag("pull"),
        remove: query.flag_or("rm", true),
        force_remove: query.flag("forcerm"),
        ..Options::default()
    };
    Ok(Asked {
        options,
        dockerfile_name: name.to_owned(),
        tags,
        host,
        quiet: query.flag("q"),
        auth: RegistryAuth::all_from_header(auth),
    })
}

fn json_parameter<T: serde::de::DeserializeOwned>(
    query: &Query,
    name: &str,
) -> ApiResult<Option<T>> {
    let Some(text) = query.non_empty(name) else {
        return Ok(None);
    };
    serde_json::from_str(text)
        .map_err(|error| ApiError::bad_request(format!("error reading {name}: {error}")))
}

/// The context's archive into a folder of the engine's disk.
async fn receive(request: ApiRequest, folder: &Path) -> ApiResult<()> {
    std::fs::create_dir_all(folder)?;
    archive::receive(request.into_stream(), folder)
        .await
        .map_err(|error| ApiError::bad_request(format!("reading the build context: {error}")))
}
