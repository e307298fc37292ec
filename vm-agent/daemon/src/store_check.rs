//! Ours, beside the Docker API: whether all that the store says it holds is there, and whole.
//!
//! ```text
//! GET /longshore/store    what was looked at, and what is wrong: `{"Blobs": 12, …, "Problems": ["image …"]}`
//! ```
//! Every blob is read and hashed, so an answer takes as long as the disk takes to read it all. Nothing is changed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::config::SNAPSHOTTER;
use crate::error::ApiResult;
use crate::http_message::{ApiRequest, ok_json};
use crate::router::{Routed, handle};
use crate::state::Daemon;
use crate::supervisor::api::{self, snapshots};

/// What is told of a store that is in ruins.
const MOST_PROBLEMS: usize = 100;

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    blobs: usize,
    bytes: u64,
    snapshots: usize,
    images: usize,
    containers: usize,
    volumes: usize,
    /// A line each.
    problems: Vec<String>,
}

pub fn route(daemon: Arc<Daemon>, request: ApiRequest) -> Routed {
    let path = request.path.clone();
    match (request.method.as_str(), path.segments().as_slice()) {
        ("GET", ["longshore", "store"]) => handle(async move { ok_json(&check(&daemon).await?) }),
        _ => Routed::NotMine(request),
    }
}

async fn check(daemon: &Daemon) -> ApiResult<Report> {
    daemon.containers.settled().await;
    let mut report = look(daemon).await?;
    if !report.problems.is_empty() {
        // What was removed between the look at a list and the look at the thing is in no list any more.
        let again = look(daemon).await?.problems;
        report.problems.retain(|problem| again.contains(problem));
    }
    report.problems.truncate(MOST_PROBLEMS);
    Ok(report)
}

async fn look(daemon: &Daemon) -> ApiResult<Report> {
    let mut report = Report::default();
    blobs(daemon, &mut report).await?;
    let layers = layers(daemon, &mut report).await?;
    for image in daemon.images.all().await? {
        report.images += 1;
        let missing = daemon.images.missing(&image, &layers).await;
        report.problems.extend(missing);
    }
    containers(daemon, &layers, &mut report);
    volumes(daemon, &mut report);
    Ok(report)
}

async fn blobs(daemon: &Daemon, report: &mut Report) -> ApiResult<()> {
    let request = api::ListContentRequest::default();
    let mut pages = daemon
        .supervisor
        .content()
        .list(request)
        .await?
        .into_inner();
    let mut known = Vec::new();
    while let Some(page) = pages.message().await? {
        known.extend(page.info);
    }
    for info in known {
        report.blobs += 1;
        let digest = &info.digest;
        match digest_of_blob(daemon, digest).await {
            Ok((found, size)) => {
                report.bytes += size;
                if found != *digest || size != info.size as u64 {
                    let problem = format!("blob {digest}: its {size} bytes have digest {found}");
                    report.problems.push(problem);
                }
            }
            Err(error) => report
                .problems
                .push(format!("blob {digest}: {}", error.message)),
        }
    }
    Ok(())
}

/// Digest and size of what is really there.
async fn digest_of_blob(daemon: &Daemon, digest: &str) -> ApiResult<(String, u64)> {
    let request = api::ReadContentRequest {
        digest: digest.to_owned(),
        offset: 0,
        size: 0,
    };
    let mut stream = daemon
        .supervisor
        .content()
        .read(request)
        .await?
        .into_inner();
    let (mut hasher, mut size) = (Sha256::new(), 0);
    while let Some(part) = stream.message().await? {
        hasher.update(&part.data);
        size += part.data.len() as u64;
    }
    Ok((format!("sha256:{}", hex::encode(hasher.finalize())), size))
}

/// The names of all snapshots, each looked at for its parent and its folder.
async fn layers(daemon: &Daemon, report: &mut Report) -> ApiResult<HashSet<String>> {
    let request = snapshots::ListSnapshotsRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        ..Default::default()
    };
    let mut pages = daemon
        .supervisor
        .snapshots()
        .list(request)
        .await?
        .into_inner();
    let mut parents = HashMap::new();
    while let Some(page) = pages.message().await? {
        parents.extend(page.info.into_iter().map(|info| (info.name, info.parent)));
    }
    report.snapshots = parents.len();
    for (name, parent) in &parents {
        if !parent.is_empty() && !parents.contains_key(parent) {
            let problem = format!("snapshot {name}: its parent {parent} is gone");
            report.problems.push(problem);
        }
        let usage = snapshots::UsageRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: name.clone(),
        };
        match daemon.supervisor.snapshots().usage(usage).await {
            // The folder itself is one.
            Ok(usage) if usage.get_ref().inodes > 0 => {}
            Ok(_) => report
                .problems
                .push(format!("snapshot {name}: its folder is gone")),
            Err(status) => report
                .problems
                .push(format!("snapshot {name}: {}", status.message())),
        }
    }
    Ok(parents.into_keys().collect())
}

fn containers(daemon: &Daemon, layers: &HashSet<String>, report: &mut Report) {
    for container in daemon.containers.list() {
        report.containers += 1;
        for layer in [&container.id, &container.snapshot_parent] {
            if !layer.is_empty() && !layers.contains(layer) {
                let name = &container.name;
                let problem = format!("container {name}: its layer {layer} is gone");
                report.problems.push(problem);
            }
        }
    }
}

fn volumes(daemon: &Daemon, report: &mut Report) {
    for volume in daemon.volumes.list() {
        report.volumes += 1;
        if let Err(error) = std::fs::read_dir(&volume.mountpoint) {
            let problem = format!("volume {}: its folder: {error}", volume.name);
            report.problems.push(problem);
        }
    }
}
