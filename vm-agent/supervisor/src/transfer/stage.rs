//! What a transfer has brought but nobody sees yet, and the one change that makes it all visible.
//!
//! Blobs and layers are written without a flush of their own; one flush of the file system comes before the one
//! transaction that records them, and one of their new names before that transaction ends.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use longshore_supervisor_api::events::{SnapshotCommit, SnapshotPrepare};
use longshore_supervisor_api::services::v1::Image;
use longshore_supervisor_api::services::v1::snapshots::{Info, Kind};

use super::unpack::Unpacked;
use crate::content::Finished;
use crate::core::{Core, Labels, add_to_lease, now, record_content};
use crate::digest::Digest;
use crate::error::{Result, blocking};
use crate::layer::unpack::settle;
use crate::request::Scope;
use crate::services::images;
use crate::snapshots::{SNAPSHOTTER, Snapshot};
use crate::store::{self, Records, Write, key};

pub struct Blob {
    pub digest: Digest,
    pub size: i64,
    pub labels: Labels,
    /// The new file; `None` when the store has it.
    pub file: Option<Finished>,
}

pub struct Layer {
    pub chain_id: Digest,
    pub parent: Option<Digest>,
    pub unpacked: Unpacked,
}

#[derive(Default)]
pub struct Stage {
    pub blobs: Mutex<Vec<Blob>>,
    /// Bottom first within an image.
    pub layers: Mutex<Vec<Layer>>,
    pub images: Mutex<Vec<Image>>,
}

impl Stage {
    pub fn add_blob(&self, blob: Blob) {
        self.blobs
            .lock()
            .expect("no panic under this lock")
            .push(blob);
    }

    /// Adds what was unpacked of a stack of layers, each on the one before; nothing for those that were there.
    pub fn add_layers(&self, chain: &[Digest], unpacked: Vec<Option<Unpacked>>) {
        let mut layers = self.layers.lock().expect("no panic under this lock");
        for (i, unpacked) in unpacked.into_iter().enumerate() {
            layers.extend(unpacked.map(|unpacked| Layer {
                chain_id: chain[i].clone(),
                parent: i.checked_sub(1).map(|below| chain[below].clone()),
                unpacked,
            }));
        }
    }

    pub fn add_image(&self, image: Image) {
        self.images
            .lock()
            .expect("no panic under this lock")
            .push(image);
    }

    /// Makes everything visible. Returns the images.
    pub async fn commit(self, core: &Arc<Core>, scope: &Scope) -> Result<Vec<Image>> {
        let (core, scope) = (core.clone(), scope.clone());
        blocking(move || commit(self, &core, &scope)).await
    }
}

/// Where the content of a snapshot of this transfer, or of an earlier one, is.
fn locate(core: &Core, scope: &Scope, layers: &[Layer], chain_id: &Digest) -> Result<PathBuf> {
    if let Some(layer) = layers.iter().find(|layer| layer.chain_id == *chain_id) {
        return Ok(layer.unpacked.folder.join("fs"));
    }
    let found = crate::snapshots::find(&core.store.read()?, &scope.namespace, chain_id.as_str())?;
    Ok(core.snapshots.fs(found.id))
}

/// The folders below a layer, nearest first.
fn below(core: &Core, scope: &Scope, layers: &[Layer], layer: &Layer) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    let mut parent = layer.parent.clone();
    while let Some(chain_id) = parent {
        folders.push(locate(core, scope, layers, &chain_id)?);
        parent = match layers.iter().find(|layer| layer.chain_id == chain_id) {
            Some(layer) => layer.parent.clone(),
            None => {
                let records = core.store.read()?;
                let row = crate::snapshots::find(&records, &scope.namespace, chain_id.as_str())?;
                row.info().parent.parse().ok()
            }
        };
    }
    Ok(folders)
}

fn commit(stage: Stage, core: &Arc<Core>, scope: &Scope) -> Result<Vec<Image>> {
    let blobs = stage.blobs.into_inner().expect("no panic under this lock");
    let layers = stage.layers.into_inner().expect("no panic under this lock");
    let mut images = stage.images.into_inner().expect("no panic under this lock");
    for layer in &layers {
        let deferred = &layer.unpacked.deferred;
        if !deferred.implied.is_empty() || !deferred.links.is_empty() {
            let below = below(core, scope, &layers, layer)?;
            settle(deferred, &layer.unpacked.folder.join("fs"), &below)?;
        }
    }
    core.content.sync_file_system()?;
    let _visible = core.content.gate.read().expect("no panic under this lock");
    let new_images = core.store.write_blocking(|tx| {
        for blob in &blobs {
            record_content(tx, scope, &blob.digest, blob.size, &blob.labels)?;
            if let Some(file) = &blob.file {
                core.content.publish(file)?;
            }
        }
        for layer in &layers {
            record_layer(tx, core, scope, layer)?;
        }
        core.content.sync_names()?;
        core.snapshots.sync_names()?;
        images
            .iter_mut()
            .map(|image| images::put(tx, &scope.namespace, image))
            .collect::<Result<Vec<bool>>>()
    })?;
    for layer in &layers {
        publish_layer(core, scope, layer);
    }
    for (image, is_new) in images.iter().zip(new_images) {
        if is_new {
            images::publish_create(core, &scope.namespace, image);
        } else {
            images::publish_update(core, &scope.namespace, image);
        }
    }
    Ok(images)
}

fn record_layer(tx: &Write, core: &Core, scope: &Scope, layer: &Layer) -> Result<()> {
    let row = key(&[&scope.namespace, layer.chain_id.as_str()]);
    add_to_lease(
        tx,
        scope,
        &format!("snapshots/{SNAPSHOTTER}"),
        layer.chain_id.as_str(),
    )?;
    if tx.raw(store::SNAPSHOTS, &row)?.is_some() {
        return Ok(());
    }
    let snapshot = Snapshot {
        info: Some(Info {
            name: layer.chain_id.to_string(),
            parent: layer
                .parent
                .as_ref()
                .map(Digest::to_string)
                .unwrap_or_default(),
            kind: Kind::Committed as i32,
            created_at: now(),
            updated_at: now(),
            labels: Labels::from([(
                "containerd.io/snapshot.ref".to_owned(),
                layer.chain_id.to_string(),
            )]),
        }),
        id: tx.next("snapshot")?,
        usage: None,
    };
    core.snapshots.adopt(&layer.unpacked.folder, snapshot.id)?;
    tx.put(store::SNAPSHOTS, &row, &snapshot)
}

fn publish_layer(core: &Core, scope: &Scope, layer: &Layer) {
    let prepared = SnapshotPrepare {
        key: format!("extract-{}", layer.chain_id),
        parent: layer
            .parent
            .as_ref()
            .map(Digest::to_string)
            .unwrap_or_default(),
        snapshotter: SNAPSHOTTER.into(),
    };
    let committed = SnapshotCommit {
        key: prepared.key.clone(),
        name: layer.chain_id.to_string(),
        snapshotter: SNAPSHOTTER.into(),
    };
    core.events
        .publish(&scope.namespace, "/snapshot/prepare", &prepared);
    core.events
        .publish(&scope.namespace, "/snapshot/commit", &committed);
}
