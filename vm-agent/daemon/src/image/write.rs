//! New images made here: a layer from a snapshot's changes, and configuration and manifest around it.
//!
//! Both are handed to the transfer service as a small OCI layout whose layers are in the store already, so that one
//! change at the supervisor records blobs, snapshots and image together.

use std::collections::HashMap;
use std::io::{self, Write};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tonic::Request;

use super::content::{Descriptor, Platform, digest_of};
use super::pull::image_store;
use super::{DANGLING, Images};
use crate::config::SNAPSHOTTER;
use crate::error::{ApiError, ApiResult};
use crate::supervisor::api::{self, snapshots, types};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The label of the content store that tells the digest of a compressed layer's content.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// An archive with nothing in it: 1024 zero bytes.
const EMPTY: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
/// The image that a step of a build stood on, as Docker's containerd store labels it.
pub(super) const PARENT_LABEL: &str = "org.mobyproject.image.parent";
/// What the builder's cache finds an image by.
pub(super) const CACHE_LABEL: &str = "longshore.build.cache";
/// After this time a lease that a dead daemon left counts no more.
const LEASE_HOURS: i64 = 1;

/// A layer that is in the content store.
pub struct NewLayer {
    pub descriptor: Descriptor,
    pub diff_id: String,
}

/// An image to be made.
#[derive(Default)]
pub struct NewImage {
    /// The id of the image it stands on.
    pub parent: Option<String>,
    /// The `config` member of its configuration, whole.
    pub config: Map<String, Value>,
    pub layer: Option<NewLayer>,
    pub created_by: String,
    pub author: String,
    pub comment: String,
    /// The full name; without one it is kept as an image without a tag.
    pub name: Option<String>,
    pub labels: HashMap<String, String>,
}

/// Spares what is made under it from garbage collection until it is part of an image.
pub struct Lease(String);

impl Lease {
    fn on<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Ok(value) = self.0.parse() {
            request.metadata_mut().insert("containerd-lease", value);
        }
        request
    }
}

impl Images {
    pub async fn lease(&self) -> ApiResult<Lease> {
        let id = crate::identity::new_id();
        let expires = chrono::Utc::now() + chrono::Duration::hours(LEASE_HOURS);
        let request = api::CreateRequest {
            id: id.clone(),
            labels: [("containerd.io/gc.expire".to_owned(), expires.to_rfc3339())].into(),
        };
        self.supervisor.leases().create(request).await?;
        Ok(Lease(id))
    }

    pub async fn release(&self, lease: Lease) {
        let request = api::DeleteRequest {
            id: lease.0,
            sync: false,
        };
        if let Err(status) = self.supervisor.leases().delete(request).await {
            tracing::warn!(%status, "deleting a lease");
        }
    }

    /// The changes of the snapshot `key` as a layer; `None` when there are none.
    pub async fn layer_of(&self, key: &str, lease: &Lease) -> ApiResult<Option<NewLayer>> {
        let stat = snapshots::StatSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
        };
        let stat = self.supervisor.snapshots().stat(stat).await?.into_inner();
        let parent = stat.info.map_or_else(String::new, |info| info.parent);
        let mounts = snapshots::MountsRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
        };
        let right = self.supervisor.snapshots().mounts(mounts).await?;
        let view = format!("below-{}", crate::identity::new_id());
        let left = match parent.is_empty() {
            true => Vec::new(),
            false => self.view(&view, &parent).await?,
        };
        let request = api::DiffRequest {
            left,
            right: right.into_inner().mounts,
            media_type: LAYER.to_owned(),
            r#ref: format!("layer-{}", crate::identity::new_id()),
            ..Default::default()
        };
        let made = self.supervisor.diff().diff(lease.on(request)).await;
        if !parent.is_empty() {
            self.remove_snapshot(&view).await;
        }
        let made = made.map_err(|s| ApiError::from(s).context("making a layer"))?;
        let made = made.into_inner().diff;
        let descriptor = made.ok_or_else(|| ApiError::internal("a layer without a descriptor"))?;
        let request = api::InfoRequest {
            digest: descriptor.digest.clone(),
        };
        let info = self.supervisor.content().info(request).await?.into_inner();
        let labels = info.info.map(|info| info.labels).unwrap_or_default();
        let diff_id = labels
            .get(UNCOMPRESSED)
            .cloned()
            .ok_or_else(|| ApiError::internal("a layer without the digest of its content"))?;
        Ok((diff_id != EMPTY).then(|| NewLayer {
            descriptor: Descriptor {
                media_type: LAYER.to_owned(),
                digest: descriptor.digest,
                size: descriptor.size,
                ..Descriptor::default()
            },
            diff_id,
        }))
    }

    /// A snapshot to look at; remove it when it was looked at.
    pub async fn view(&self, key: &str, parent: &str) -> ApiResult<Vec<types::Mount>> {
        let request = snapshots::ViewSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: [("containerd.io/gc.root".to_owned(), "view".to_owned())].into(),
        };
        let made = self.supervisor.snapshots().view(request).await?;
        Ok(made.into_inner().mounts)
    }

    pub async fn remove_snapshot(&self, key: &str) {
        let request = snapshots::RemoveSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
        };
        if let Err(status) = self.supervisor.snapshots().remove(request).await {
            tracing::warn!(%status, key, "removing a snapshot");
        }
    }

    /// Makes an image. Returns its id and the name it is stored under.
    pub async fn write(&self, new: NewImage) -> ApiResult<(String, String)> {
        let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true);
        let host = Platform::host();
        let (mut config, mut layers) = match &new.parent {
            None => {
                let base = json!({ "architecture": host.architecture, "os": host.os });
                (base, Vec::new())
            }
            Some(parent) => {
                let image = self.find(parent).await?;
                let image = self.content.image(&image.target, &host).await?;
                let text = self.content.blob(&image.config_descriptor.digest).await?;
                (serde_json::from_slice(&text)?, image.layers.clone())
            }
        };
        let entry = json!({
            "created": now,
            "author": (!new.author.is_empty()).then_some(&new.author),
            "created_by": new.created_by,
            "comment": (!new.comment.is_empty()).then_some(&new.comment),
            "empty_layer": new.layer.is_none().then_some(true),
        });
        let entry = without_nulls(entry);
        append(&mut config, "history", entry)?;
        config["created"] = json!(now);
        config["config"] = Value::Object(new.config);
        if !new.author.is_empty() {
            config["author"] = json!(new.author);
        }
        if config.get("rootfs").is_none() {
            config["rootfs"] = json!({ "type": "layers", "diff_ids": [] });
        }
        if let Some(layer) = new.layer {
            append(&mut config["rootfs"], "diff_ids", json!(layer.diff_id))?;
            layers.push(layer.descriptor);
        }
        let config = config.to_string();
        let layers: Vec<Value> = layers
            .iter()
            .map(|l| json!({ "mediaType": l.media_type, "digest": l.digest, "size": l.size }))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": digest_of(config.as_bytes()), "size": config.len() },
            "layers": layers,
        })
        .to_string();
        let id = digest_of(manifest.as_bytes());
        let name = new.name.unwrap_or_else(|| format!("{DANGLING}@{id}"));
        self.dethrone(&name, &id).await?;
        let archive = layout(&config, &manifest, &name)?;
        let mut store = image_store("", host);
        store.labels = new.labels;
        if let Some(parent) = new.parent {
            store.labels.insert(PARENT_LABEL.to_owned(), parent);
        }
        let archive = futures::stream::iter([Ok(Bytes::from(archive))]);
        self.import_archive(archive, store).await?;
        if self.by_name(&name).await?.is_none() {
            return Err(ApiError::internal(format!(
                "the image {name} was not stored"
            )));
        }
        Ok((id, name))
    }
}

fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(members) = &mut value {
        members.retain(|_, member| !member.is_null());
    }
    value
}

fn append(value: &mut Value, list: &str, entry: Value) -> ApiResult<()> {
    if value[list].is_null() {
        value[list] = json!([]);
    }
    let list = value[list].as_array_mut();
    list.ok_or_else(|| ApiError::internal("an image configuration of another shape"))?
        .push(entry);
    Ok(())
}

/// An OCI layout that holds the image's two texts, its layers being in the store.
fn layout(config: &str, manifest: &str, name: &str) -> io::Result<Vec<u8>> {
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": MANIFEST,
            "digest": digest_of(manifest.as_bytes()),
            "size": manifest.len(),
            "annotations": { "io.containerd.image.name": name },
        }],
    })
    .to_string();
    let blob = |text: &str| format!("blobs/{}", digest_of(text.as_bytes()).replace(':', "/"));
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in [
        ("oci-layout".to_owned(), r#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json".to_owned(), index.as_str()),
        (blob(manifest), manifest),
        (blob(config), config),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o444);
        tar.append_data(&mut header, path, text.as_bytes())?;
    }
    let mut bytes = tar.into_inner()?;
    bytes.flush()?;
    Ok(bytes)
}
