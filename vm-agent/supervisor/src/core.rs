//! What the services share: the stores, the event bus, and changes that touch several stores at once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use longshore_supervisor_api::services::v1::{Info, Namespace};
use prost_types::Timestamp;

use crate::content::{ContentStore, Finished};
use crate::digest::Digest;
use crate::error::{Error, IoStep, Result, blocking};
use crate::events::EventBus;
use crate::gc::Collector;
use crate::request::Scope;
use crate::snapshots::Overlay;
use crate::store::{self, Records, Store, Write, key};
use crate::streams::Streams;

pub type Labels = HashMap<String, String>;

/// Where things are.
#[derive(Clone, Debug)]
pub struct Paths {
    /// What lasts, e.g. `/var/lib/containerd`.
    pub root: PathBuf,
    /// What a reboot clears, e.g. `/run/containerd`.
    pub state: PathBuf,
    /// The gRPC socket; the ttrpc socket's path is this plus `.ttrpc`.
    pub address: PathBuf,
}

pub struct Core {
    pub paths: Paths,
    pub store: Store,
    pub content: ContentStore,
    pub snapshots: Overlay,
    pub events: EventBus,
    pub streams: Streams,
    pub collector: Collector,
}

impl Core {
    pub fn open(paths: Paths) -> Result<Arc<Self>> {
        let metadata = paths.root.join("io.containerd.metadata.v1.longshore");
        std::fs::create_dir_all(&metadata).step(|| format!("creating {}", metadata.display()))?;
        let core = Arc::new(Self {
            store: Store::open(&metadata.join("meta.redb"))?,
            content: ContentStore::open(&paths.root)?,
            snapshots: Overlay::open(&paths.root)?,
            events: EventBus::default(),
            streams: Streams::default(),
            collector: Collector::default(),
            paths,
        });
        crate::gc::repair(&core)?;
        Ok(core)
    }

    /// Makes a verified blob visible in a namespace. Says whether it was new there.
    pub async fn commit_content(
        self: &Arc<Self>,
        scope: &Scope,
        finished: Finished,
        labels: Labels,
    ) -> Result<bool> {
        let (core, scope) = (self.clone(), scope.clone());
        blocking(move || {
            let _visible = core.content.gate.read().expect("no panic under this lock");
            core.store.write_blocking(|tx| {
                let is_new = record_content(tx, &scope, &finished.digest, finished.size, &labels)?;
                core.content.publish(&finished)?;
                core.content.sync_names()?;
                Ok(is_new)
            })
        })
        .await
    }

    /// The record of a blob; one that only other namespaces hold is not found.
    pub fn content_info(&self, namespace: &str, digest: &str) -> Result<Info> {
        self.store
            .read()?
            .get(store::CONTENT, &key(&[namespace, digest]))?
            .ok_or_else(|| Error::NotFound(format!("content digest {digest}")))
    }
}

/// Records a blob in a namespace and its lease. Says whether it was new there.
pub fn record_content(
    tx: &Write,
    scope: &Scope,
    digest: &Digest,
    size: i64,
    labels: &Labels,
) -> Result<bool> {
    ensure_namespace(tx, &scope.namespace)?;
    add_to_lease(tx, scope, "content", digest.as_str())?;
    let row = key(&[&scope.namespace, digest.as_str()]);
    if let Some(mut info) = tx.get::<Info>(store::CONTENT, &row)? {
        // An image imported again must still get its references.
        let known = info.labels.len();
        for (name, value) in labels {
            info.labels
                .entry(name.clone())
                .or_insert_with(|| value.clone());
        }
        if info.labels.len() != known {
            tx.put(store::CONTENT, &row, &info)?;
        }
        return Ok(false);
    }
    let info = Info {
        digest: digest.to_string(),
        size,
        created_at: now(),
        updated_at: now(),
        labels: labels.clone(),
    };
    tx.put(store::CONTENT, &row, &info)?;
    Ok(true)
}

/// Namespaces come to be with the first thing in them.
pub fn ensure_namespace(tx: &Write, namespace: &str) -> Result<()> {
    if tx.raw(store::NAMESPACES, namespace)?.is_none() {
        let record = Namespace {
            name: namespace.into(),
            labels: Labels::new(),
        };
        tx.put(store::NAMESPACES, namespace, &record)?;
    }
    Ok(())
}

/// Adds a resource to the request's lease, when it has one.
pub fn add_to_lease(tx: &Write, scope: &Scope, kind: &str, id: &str) -> Result<()> {
    let Some(lease) = &scope.lease else {
        return Ok(());
    };
    if tx
        .raw(store::LEASES, &key(&[&scope.namespace, lease]))?
        .is_none()
    {
        return Err(Error::NotFound(format!("lease {lease:?}")));
    }
    tx.put(
        store::LEASE_RESOURCES,
        &key(&[&scope.namespace, lease, kind, id]),
        &(),
    )
}

pub fn now() -> Option<Timestamp> {
    Some(SystemTime::now().into())
}

/// Applies an update of labels under a field mask: `labels` replaces all, `labels.NAME` one.
pub fn update_labels(current: &mut Labels, wanted: &Labels, path: &str) -> bool {
    if path == "labels" {
        *current = wanted.clone();
        return true;
    }
    let Some(name) = path.strip_prefix("labels.") else {
        return false;
    };
    match wanted.get(name).filter(|value| !value.is_empty()) {
        Some(value) => current.insert(name.into(), value.clone()),
        None => current.remove(name),
    };
    true
}

/// The file of the metadata store and friends live here; asked by introspection.
pub fn read_or_create_uuid(root: &Path) -> Result<String> {
    let path = root.join("uuid");
    if let Ok(uuid) = std::fs::read_to_string(&path) {
        return Ok(uuid.trim().to_owned());
    }
    let b: [u8; 16] = rand::random();
    let hex = hex::encode(b);
    let uuid = format!(
        "{}-{}-4{}-a{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..]
    );
    std::fs::write(&path, &uuid).step(|| format!("writing {}", path.display()))?;
    Ok(uuid)
}
