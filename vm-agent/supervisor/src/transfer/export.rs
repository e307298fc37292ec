//! Image store → archive: an OCI image layout that is a `docker save` archive at the same time.
//!
//! The form is containerd's (`core/images/archive`, exporter): blobs, then `index.json`, `manifest.json` and
//! `oci-layout`, in the order of their names and without times, so that the same images give the same bytes.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::sync::Arc;

use longshore_supervisor_api::services::v1::Image;
use longshore_supervisor_api::types::transfer::{ImageExportStream, ImageStore};
use serde_json::{Value, json};

use super::client_stream::{self, StreamWriter};
use super::manifest::{Index, Link};
use super::progress::Progress;
use super::tree::{Tree, Wanted};
use super::{names, pull};
use crate::core::Core;
use crate::digest::Digest;
use crate::error::{Error, IoStep, Result, blocking};
use crate::request::Scope;
use crate::services::images;
use crate::services::introspection::platform;
use longshore_registry::reference::{Reference, familiar};

pub async fn export(
    core: Arc<Core>,
    scope: Scope,
    source: ImageStore,
    target: ImageExportStream,
    progress: Progress,
) -> Result<()> {
    let stream = core.streams.take(&scope.namespace, &target.stream)?;
    // Refuses snapshotters that are not there, as every use of an image store does.
    pull::target(&source)?;
    progress.say("Exporting", "").await;
    let (writer, sending) = client_stream::send(stream);
    let written = blocking(move || {
        let images = wanted_images(&core, &scope, &source)?;
        let export = Export::of(&core, &scope, &images, &target)?;
        export.write(&core, writer)
    })
    .await;
    let sent = sending
        .await
        .map_err(|e| Error::Other(format!("a worker panicked: {e}")))?;
    // Which of both failed first does not matter; what the writer says is more.
    written?;
    sent.step(|| "sending the archive".into())?;
    progress.say("Completed export", "").await;
    Ok(())
}

/// The images that the client named, in its order.
fn wanted_images(core: &Core, scope: &Scope, source: &ImageStore) -> Result<Vec<Image>> {
    let listed = source.extra_references.iter().map(|r| r.name.as_str());
    let names: Vec<&str> = match source.name.as_str() {
        "" => listed.collect(),
        name => std::iter::once(name).chain(listed).collect(),
    };
    if names.is_empty() {
        return Err(Error::InvalidArgument("no image to export".into()));
    }
    let records = core.store.read()?;
    names
        .into_iter()
        .map(|name| images::find(&records, &scope.namespace, name))
        .collect()
}

/// An entry of `manifest.json`.
struct DockerImage {
    manifest: String,
    config: String,
    tags: Vec<String>,
    layers: Vec<String>,
}

#[derive(Default)]
struct Export {
    /// Blobs in the store, by digest, with their sizes.
    blobs: BTreeMap<String, i64>,
    index: Vec<Link>,
    docker: Vec<DockerImage>,
    with_docker: bool,
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

impl Export {
    fn of(
        core: &Core,
        scope: &Scope,
        images: &[Image],
        target: &ImageExportStream,
    ) -> Result<Self> {
        let mut export = Self {
            with_docker: !target.skip_compatibility_manifest,
            ..Self::default()
        };
        let platforms = match target.all_platforms {
            true => &[][..],
            false => &target.platforms[..],
        };
        for image in images {
            let descriptor = image
                .target
                .as_ref()
                .ok_or_else(|| Error::Other(format!("image {:?} has no target", image.name)))?;
            let wanted = Wanted::Present(platforms);
            let tree = Tree::of(core, &scope.namespace, descriptor, &wanted)?;
            export.add(&image.name, descriptor.into(), tree);
        }
        Ok(export)
    }

    fn add(&mut self, name: &str, target: Link, tree: Tree) {
        let reference = Reference::parse(name).ok();
        let mut annotations: HashMap<String, String> =
            target.annotations.clone().unwrap_or_default();
        annotations.extend(names::annotations(name));
        self.index.push(Link {
            annotations: Some(annotations),
            ..target
        });
        let small = tree
            .manifests
            .iter()
            .map(|(link, bytes)| (link, bytes.len() as i64));
        let large = tree.blobs.iter().map(|link| (link, link.size));
        for (link, size) in small.chain(large) {
            self.blobs.insert(link.digest.clone(), size);
        }
        let host = platform();
        let images = &tree.images;
        let chosen = images.iter().find(|(link, _)| link.is_for(&host));
        let Some((link, manifest)) = chosen.or(images.first()) else {
            return;
        };
        // A name that is only a digest is no tag that anyone could load again.
        let tag = reference.filter(|r| r.tag.is_some() && r.digest.is_none());
        let tag = tag.map(|r| familiar(&r));
        if let Some(known) = self.docker.iter_mut().find(|d| d.manifest == link.digest) {
            known.tags.extend(tag);
            return;
        }
        self.docker.push(DockerImage {
            manifest: link.digest.clone(),
            config: blob_path(&manifest.config.digest),
            tags: tag.into_iter().collect(),
            layers: manifest
                .layers
                .iter()
                .map(|l| blob_path(&l.digest))
                .collect(),
        });
    }

    fn docker_manifest(&self) -> Value {
        let images = self.docker.iter().map(|image| {
            let tags = match image.tags.is_empty() {
                true => Value::Null,
                false => json!(image.tags),
            };
            json!({ "Config": image.config, "RepoTags": tags, "Layers": image.layers })
        });
        images.collect()
    }

    fn write(self, core: &Core, writer: StreamWriter) -> Result<()> {
        let step = || "writing the archive".to_owned();
        let output = io::BufWriter::with_capacity(256 * 1024, writer);
        let mut tar = tar::Builder::new(output);
        folder(&mut tar, "blobs/").step(step)?;
        folder(&mut tar, "blobs/sha256/").step(step)?;
        for (digest, recorded) in &self.blobs {
            let digest: Digest = digest.parse()?;
            let blob = core.content.open_blob(&digest)?;
            let size = blob.metadata().step(step)?.len();
            if *recorded > 0 && *recorded as u64 != size {
                return Err(Error::FailedPrecondition(format!(
                    "content {digest} has {size} bytes, not {recorded}"
                )));
            }
            file(&mut tar, &blob_path(digest.as_str()), size, blob).step(step)?;
        }
        let docker = self.docker_manifest().to_string();
        let index = Index {
            schema_version: 2,
            media_type: super::manifest::OCI_INDEX.into(),
            manifests: self.index,
        };
        let index = serde_json::to_vec(&index)
            .map_err(|e| Error::Other(format!("encoding index.json: {e}")))?;
        file(&mut tar, "index.json", index.len() as u64, &index[..]).step(step)?;
        if self.with_docker && docker != "[]" {
            let size = docker.len() as u64;
            file(&mut tar, "manifest.json", size, docker.as_bytes()).step(step)?;
        }
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
        file(&mut tar, "oci-layout", layout.len() as u64, &layout[..]).step(step)?;
        tar.into_inner().step(step)?.flush().step(step)
    }
}

fn folder<W: Write>(tar: &mut tar::Builder<W>, name: &str) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    tar.append_data(&mut header, name, io::empty())
}

fn file<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o444);
    header.set_size(size);
    tar.append_data(&mut header, name, content)
}
