//! Garbage collection: what no image, container or lease reaches is removed.
//!
//! Roots are images, containers, unexpired leases and records labelled `containerd.io/gc.root`. References are
//! the parents of snapshots and the labels `containerd.io/gc.ref.{content,snapshot.overlayfs}…`, as in containerd.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use longshore_supervisor_api::events::{ContentDelete, SnapshotRemove};
use longshore_supervisor_api::services::v1::snapshots::Kind;
use longshore_supervisor_api::services::v1::{Container, Image, Info, Lease};

use crate::core::{Core, Labels};
use crate::digest::Digest;
use crate::error::{Result, blocking};
use crate::snapshots::{SNAPSHOTTER, Snapshot};
use crate::store::{self, Records, Write, key};

const ROOT_LABEL: &str = "containerd.io/gc.root";
const CONTENT_LABEL: &str = "containerd.io/gc.ref.content";
const SNAPSHOT_LABEL: &str = "containerd.io/gc.ref.snapshot.overlayfs";
const EXPIRE_LABEL: &str = "containerd.io/gc.expire";
/// A client prepares a snapshot a moment before it creates the container that holds it.
const ACTIVE_GRACE: Duration = Duration::from_secs(300);

/// Runs collections one at a time; requests that arrive meanwhile share the next one.
#[derive(Default)]
pub struct Collector {
    running: tokio::sync::Mutex<()>,
    wanted: AtomicBool,
}

impl Core {
    /// Collects soon, without waiting for it.
    pub fn collect_soon(self: &Arc<Self>) {
        if !self.collector.wanted.swap(true, Ordering::SeqCst) {
            let core = self.clone();
            tokio::spawn(async move {
                if let Err(error) = core.collect().await {
                    tracing::warn!(%error, "garbage collection");
                }
            });
        }
    }

    /// Collects now.
    pub async fn collect(self: &Arc<Self>) -> Result<()> {
        let _one = self.collector.running.lock().await;
        self.collector.wanted.store(false, Ordering::SeqCst);
        let core = self.clone();
        blocking(move || sweep(&core)).await
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Node {
    Content(String),
    Snapshot(String),
}

fn references(labels: &Labels) -> impl Iterator<Item = Node> + '_ {
    labels.iter().filter_map(|(name, value)| {
        let extends = |prefix: &str| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '/']))
        };
        if extends(CONTENT_LABEL) {
            Some(Node::Content(value.clone()))
        } else if extends(SNAPSHOT_LABEL) {
            Some(Node::Snapshot(value.clone()))
        } else {
            None
        }
    })
}

fn is_expired(lease: &Lease) -> bool {
    let Some(text) = lease.labels.get(EXPIRE_LABEL) else {
        return false;
    };
    chrono::DateTime::parse_from_rfc3339(text)
        .is_ok_and(|at| SystemTime::from(at) < SystemTime::now())
}

/// Everything of a namespace that must stay.
fn roots(tx: &Write, namespace: &str) -> Result<Vec<Node>> {
    let mut roots = Vec::new();
    for image in tx.in_namespace::<Image>(store::IMAGES, namespace)? {
        roots.extend(
            image
                .target
                .iter()
                .map(|target| Node::Content(target.digest.clone())),
        );
        roots.extend(references(&image.labels));
    }
    // One at a time: their specifications are large, and a collection follows every container's removal.
    tx.each_in_namespace(store::CONTAINERS, namespace, |container: Container| {
        roots.extend(references(&container.labels));
        if container.snapshotter == SNAPSHOTTER {
            roots.push(Node::Snapshot(container.snapshot_key));
        }
    })?;
    for lease in tx.in_namespace::<Lease>(store::LEASES, namespace)? {
        if is_expired(&lease) {
            crate::services::leases::remove(tx, namespace, &lease.id)?;
            continue;
        }
        roots.extend(references(&lease.labels));
        for resource in crate::services::leases::resources(tx, namespace, &lease.id)? {
            match resource.r#type.as_str() {
                "content" => roots.push(Node::Content(resource.id)),
                kind if kind.strip_prefix("snapshots/") == Some(SNAPSHOTTER) => {
                    roots.push(Node::Snapshot(resource.id));
                }
                _ => {}
            }
        }
    }
    for info in tx.in_namespace::<Info>(store::CONTENT, namespace)? {
        if info.labels.contains_key(ROOT_LABEL) {
            roots.push(Node::Content(info.digest));
        }
    }
    for snapshot in tx.in_namespace::<Snapshot>(store::SNAPSHOTS, namespace)? {
        let info = snapshot.info();
        let young = || {
            let created = info.created_at.and_then(|at| SystemTime::try_from(at).ok());
            created.is_some_and(|at| at.elapsed().is_ok_and(|age| age < ACTIVE_GRACE))
        };
        let in_use = info.kind != Kind::Committed as i32 && young();
        if in_use || info.labels.contains_key(ROOT_LABEL) {
            roots.push(Node::Snapshot(info.name.clone()));
        }
    }
    Ok(roots)
}

fn mark(tx: &Write, namespace: &str) -> Result<HashSet<Node>> {
    let mut pending = roots(tx, namespace)?;
    let mut marked = HashSet::new();
    while let Some(node) = pending.pop() {
        if marked.contains(&node) {
            continue;
        }
        match &node {
            Node::Content(digest) => {
                if let Some(info) = tx.get::<Info>(store::CONTENT, &key(&[namespace, digest]))? {
                    pending.extend(references(&info.labels));
                }
            }
            Node::Snapshot(name) => {
                let row = key(&[namespace, name]);
                if let Some(snapshot) = tx.get::<Snapshot>(store::SNAPSHOTS, &row)? {
                    pending.extend(references(&snapshot.info().labels));
                    if !snapshot.info().parent.is_empty() {
                        pending.push(Node::Snapshot(snapshot.info().parent.clone()));
                    }
                }
            }
        }
        marked.insert(node);
    }
    Ok(marked)
}

#[derive(Default)]
struct Swept {
    content: Vec<(String, String)>,
    snapshots: Vec<(String, Snapshot)>,
}

fn sweep(core: &Arc<Core>) -> Result<()> {
    // No blob may become visible between the decision and the removal of its file.
    let _exclusive = core.content.gate.write().expect("no panic under this lock");
    let swept = core.store.write_blocking(|tx| {
        let mut swept = Swept::default();
        for namespace in tx.keys(store::NAMESPACES, "")? {
            let marked = mark(tx, &namespace)?;
            for info in tx.in_namespace::<Info>(store::CONTENT, &namespace)? {
                if !marked.contains(&Node::Content(info.digest.clone())) {
                    tx.delete(store::CONTENT, &key(&[&namespace, &info.digest]))?;
                    swept.content.push((namespace.clone(), info.digest));
                }
            }
            for snapshot in tx.in_namespace::<Snapshot>(store::SNAPSHOTS, &namespace)? {
                let name = snapshot.info().name.clone();
                if !marked.contains(&Node::Snapshot(name.clone())) {
                    tx.delete(store::SNAPSHOTS, &key(&[&namespace, &name]))?;
                    swept.snapshots.push((namespace.clone(), snapshot));
                }
            }
        }
        Ok(swept)
    })?;
    remove_unheld_blobs(core, &swept)?;
    for (namespace, digest) in swept.content {
        core.events
            .publish(&namespace, "/content/delete", &ContentDelete { digest });
    }
    for (namespace, snapshot) in swept.snapshots {
        core.snapshots.remove_later(snapshot.id);
        let event = SnapshotRemove {
            key: snapshot.info().name.clone(),
            snapshotter: SNAPSHOTTER.into(),
        };
        core.events.publish(&namespace, "/snapshot/remove", &event);
    }
    Ok(())
}

fn remove_unheld_blobs(core: &Core, swept: &Swept) -> Result<()> {
    let held = held_digests(core)?;
    for (_, digest) in swept
        .content
        .iter()
        .filter(|(_, digest)| !held.contains(digest))
    {
        if let Ok(digest) = digest.parse::<Digest>() {
            core.content.remove_file(&digest);
        }
    }
    Ok(())
}

fn held_digests(core: &Core) -> Result<HashSet<String>> {
    let rows = core.store.read()?.keys(store::CONTENT, "")?;
    Ok(rows
        .iter()
        .filter_map(|row| row.split_once('\0'))
        .map(|(_, d)| d.to_owned())
        .collect())
}

/// Removes a blob's file unless another namespace holds it. The caller has removed the record.
pub fn remove_blob_if_unheld(core: &Core, digest: &Digest) -> Result<()> {
    let _exclusive = core.content.gate.write().expect("no panic under this lock");
    if !held_digests(core)?.contains(digest.as_str()) {
        core.content.remove_file(digest);
    }
    Ok(())
}

/// At start: files that no record names are leftovers of an interrupted change; records whose file is gone or cut off
/// (the power failed before an unflushed write) must not be believed.
pub fn repair(core: &Core) -> Result<()> {
    let files: std::collections::HashMap<String, u64> = core
        .content
        .files()?
        .into_iter()
        .map(|(digest, size)| (digest.to_string(), size))
        .collect();
    let (digests, ids) = core.store.write_blocking(|tx| {
        let mut digests = HashSet::new();
        for (row, info) in tx.list::<Info>(store::CONTENT, "")? {
            if files.get(&info.digest) == Some(&(info.size as u64)) {
                digests.insert(info.digest);
            } else {
                tracing::warn!(
                    digest = info.digest,
                    "a blob is missing or cut off: forgotten"
                );
                tx.delete(store::CONTENT, &row)?;
            }
        }
        let mut ids = HashSet::new();
        for (row, snapshot) in tx.list::<Snapshot>(store::SNAPSHOTS, "")? {
            if core.snapshots.exists(snapshot.id) {
                ids.insert(snapshot.id);
            } else {
                tracing::warn!(
                    name = snapshot.info().name,
                    "a snapshot is missing: forgotten"
                );
                tx.delete(store::SNAPSHOTS, &row)?;
            }
        }
        Ok((digests, ids))
    })?;
    for digest in files.keys().filter(|digest| !digests.contains(*digest)) {
        if let Ok(digest) = digest.parse::<Digest>() {
            core.content.remove_file(&digest);
        }
    }
    core.snapshots.remove_all_but(&ids)
}
