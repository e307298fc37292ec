//! Archive → image store: an OCI layout or a `docker save`, compressed or not, as it streams in.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::try_join_all;
use longshore_supervisor_api::services::v1::Image;
use longshore_supervisor_api::types::transfer::{ImageImportStream, ImageStore};
use longshore_supervisor_api::types::{Descriptor, Platform};
use longshore_tar_entries::for_each;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::manifest::{self, Index, Link, Manifest, Node, diff_ids};
use super::progress::Progress;
use super::pull::{is_unpacked, snapshot_label, target};
use super::stage::{Blob, Stage};
use super::unpack::unpack_layer;
use super::{client_stream, names};
use crate::content::Finished;
use crate::core::{Core, Labels};
use crate::digest::{Digest, chain_ids};
use crate::error::{Error, IoStep, Result, blocking};
use crate::layer::compression::decompress;
use crate::layer::place::clean;
use crate::request::Scope;
use longshore_registry::reference::normalize;

const SMALL: u64 = 8 * 1024 * 1024;
/// Layers that are unpacked at a time.
const PARALLEL: usize = 2;

/// Puts bytes into the store's ingest area.
pub fn store_bytes(
    core: &Core,
    namespace: &str,
    digest: &Digest,
    bytes: &[u8],
) -> Result<Finished> {
    let mut ingest = core.content.scratch(namespace, bytes.len() as i64)?;
    ingest.write(bytes)?;
    ingest.finish(bytes.len() as i64, Some(digest))
}

/// What an archive held.
#[derive(Default)]
struct Archive {
    blobs: HashMap<Digest, Finished>,
    /// Digests and sizes of files by their path, for `docker save`'s older form.
    files: HashMap<PathBuf, (Digest, i64, bool)>,
    links: HashMap<PathBuf, PathBuf>,
    index: Option<Vec<u8>>,
    docker: Option<Vec<u8>>,
}

/// An entry of `manifest.json` (`docker save`).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

pub async fn import(
    core: Arc<Core>,
    scope: Scope,
    source: ImageImportStream,
    destination: ImageStore,
    progress: Progress,
) -> Result<()> {
    let stream = core.streams.take(&scope.namespace, &source.stream)?;
    let (unpack, platform) = target(&destination)?;
    progress.say("Importing", "").await;
    let reader = client_stream::receive(stream);
    let (reading_core, namespace) = (core.clone(), scope.namespace.clone());
    let archive = blocking(move || read(&reading_core, &namespace, reader)).await?;
    let mut import = Import {
        core: core.clone(),
        scope: scope.clone(),
        archive,
        progress: progress.clone(),
        stage: Stage::default(),
        platform,
        unpack,
    };
    let roots = import.roots()?;
    for root in roots {
        import.root(&root, &destination).await?;
    }
    let images = import.stage.commit(&core, &scope).await?;
    for image in images {
        let progress_message = longshore_supervisor_api::types::transfer::Progress {
            event: "saved".into(),
            name: image.name,
            desc: image.target,
            ..Default::default()
        };
        progress.tell(progress_message).await;
    }
    progress.say("Completed import", "").await;
    Ok(())
}

fn read(core: &Core, namespace: &str, stream: impl Read + Send) -> Result<Archive> {
    let step = || "reading the archive".to_owned();
    let mut archive = Archive::default();
    let bad = |error| Error::InvalidArgument(format!("archive/tar: {error}"));
    for_each(decompress(stream).step(step)?, bad, |entry| {
        let path = clean(&entry.path().step(step)?);
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {}
            tar::EntryType::Symlink | tar::EntryType::Link => {
                if let Some(target) = entry.link_name().step(step)? {
                    let base = match entry.header().entry_type() {
                        tar::EntryType::Symlink => path.parent().unwrap_or(Path::new("")),
                        _ => Path::new(""),
                    };
                    archive
                        .links
                        .insert(path.clone(), clean(&base.join(target)));
                }
                return Ok(());
            }
            _ => return Ok(()),
        }
        match path.to_str() {
            Some("oci-layout" | "repositories") => Ok(()),
            Some("index.json") => {
                archive.index = Some(small(entry, "index.json")?);
                Ok(())
            }
            Some("manifest.json") => {
                archive.docker = Some(small(entry, "manifest.json")?);
                Ok(())
            }
            _ => archive.file(core, namespace, &path, entry),
        }
    })?;
    Ok(archive)
}

fn small(entry: &mut impl Read, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry
        .take(SMALL + 1)
        .read_to_end(&mut bytes)
        .step(|| format!("reading {name}"))?;
    if bytes.len() as u64 > SMALL {
        return Err(Error::InvalidArgument(format!("{name} is too large")));
    }
    Ok(bytes)
}

impl Archive {
    fn file(
        &mut self,
        core: &Core,
        namespace: &str,
        path: &Path,
        entry: &mut impl Read,
    ) -> Result<()> {
        let step = || format!("reading {}", path.display());
        let expected: Option<Digest> = match path.strip_prefix("blobs/sha256") {
            Ok(hex) => Some(format!("sha256:{}", hex.display()).parse()?),
            Err(_) => None,
        };
        if let Some(expected) = expected
            .as_ref()
            .filter(|d| core.content.open_blob(d).is_ok())
        {
            let size = std::io::copy(entry, &mut std::io::sink()).step(step)?;
            self.files
                .insert(path.to_owned(), (expected.clone(), size as i64, false));
            return Ok(());
        }
        let mut ingest = core.content.scratch(namespace, 0)?;
        let mut buffer = vec![0; 256 * 1024];
        let mut compressed = None;
        loop {
            let n = entry.read(&mut buffer).step(step)?;
            if n == 0 {
                break;
            }
            compressed.get_or_insert_with(|| super::unpack::is_compressed(&buffer[..n]));
            ingest.write(&buffer[..n])?;
        }
        let finished = ingest.finish(0, expected.as_ref())?;
        let facts = (
            finished.digest.clone(),
            finished.size,
            compressed.unwrap_or(false),
        );
        self.files.insert(path.to_owned(), facts);
        self.blobs.insert(finished.digest.clone(), finished);
        Ok(())
    }

    fn find(&self, name: &str) -> Result<(Digest, i64, bool)> {
        let mut path = clean(Path::new(name));
        // Older archives share layers by links, never by long chains of them.
        for _ in 0..8 {
            if let Some(found) = self.files.get(&path) {
                return Ok(found.clone());
            }
            match self.links.get(&path) {
                Some(target) => path = target.clone(),
                None => break,
            }
        }
        Err(Error::NotFound(format!("file {name:?} in the archive")))
    }
}

struct Import {
    core: Arc<Core>,
    scope: Scope,
    archive: Archive,
    progress: Progress,
    stage: Stage,
    platform: Platform,
    unpack: bool,
}

impl Import {
    /// The archive's images, with their names as annotations.
    fn roots(&mut self) -> Result<Vec<Link>> {
        if let Some(bytes) = self.archive.index.take() {
            let index: Index = serde_json::from_slice(&bytes)
                .map_err(|e| Error::InvalidArgument(format!("index.json: {e}")))?;
            return Ok(index.manifests);
        }
        let Some(bytes) = self.archive.docker.take() else {
            return Err(Error::InvalidArgument("unrecognized image format".into()));
        };
        let images: Vec<DockerImage> = serde_json::from_slice(&bytes)
            .map_err(|e| Error::InvalidArgument(format!("manifest.json: {e}")))?;
        let mut roots = Vec::new();
        for image in images {
            let root = self.docker_manifest(&image)?;
            let tags = image.repo_tags.unwrap_or_default();
            if tags.is_empty() {
                roots.push(root.clone());
            }
            for tag in tags {
                roots.push(Link {
                    annotations: Some(names::annotations(&normalize(&tag))),
                    ..root.clone()
                });
            }
        }
        Ok(roots)
    }

    /// Writes the manifest that `docker save`'s older form does not have.
    fn docker_manifest(&mut self, image: &DockerImage) -> Result<Link> {
        let link = |media_type: &str, (digest, size, _): (Digest, i64, bool)| Link {
            media_type: media_type.into(),
            digest: digest.to_string(),
            size,
            ..Link::default()
        };
        let mut layers = Vec::new();
        for name in &image.layers {
            let found = self.archive.find(name)?;
            let kind = if found.2 {
                manifest::DOCKER_LAYER_GZIP
            } else {
                manifest::DOCKER_LAYER
            };
            layers.push(link(kind, found));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: manifest::DOCKER_MANIFEST.into(),
            config: link(manifest::DOCKER_CONFIG, self.archive.find(&image.config)?),
            layers,
        };
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|e| Error::Other(format!("encoding a manifest: {e}")))?;
        let digest = Digest::of(&bytes);
        let finished = store_bytes(&self.core, &self.scope.namespace, &digest, &bytes)?;
        let facts = (digest.clone(), bytes.len() as i64, false);
        self.archive.blobs.insert(digest, finished);
        Ok(link(manifest::DOCKER_MANIFEST, facts))
    }

    async fn root(&mut self, root: &Link, destination: &ImageStore) -> Result<()> {
        let descriptor = root.descriptor();
        self.node(&descriptor, vec![]).await?;
        for name in names::imported(destination, &descriptor.annotations, &descriptor.digest) {
            self.stage.add_image(Image {
                name,
                labels: destination.labels.clone(),
                target: Some(descriptor.clone()),
                ..Image::default()
            });
        }
        Ok(())
    }

    /// A blob's bytes, from the archive or the store.
    fn bytes(&self, digest: &Digest) -> Result<Vec<u8>> {
        match self.archive.blobs.get(digest) {
            Some(finished) => small(&mut finished.open()?, digest.as_str()),
            None => match self.core.content.read_small(digest, SMALL) {
                // It came twice in this archive, and is staged already.
                Err(_) => self.staged_bytes(digest),
                found => found,
            },
        }
    }

    fn staged_bytes(&self, digest: &Digest) -> Result<Vec<u8>> {
        let mut file = self.staged_file(digest)?;
        small(&mut file, digest.as_str())
    }

    fn staged_file(&self, digest: &Digest) -> Result<std::fs::File> {
        let blobs = self.stage.blobs.lock().expect("no panic under this lock");
        let staged = blobs
            .iter()
            .find(|blob| blob.digest == *digest)
            .and_then(|b| b.file.as_ref());
        staged
            .ok_or_else(|| Error::NotFound(format!("content {digest}")))?
            .open()
    }

    /// Moves a blob of the archive to the stage.
    fn keep(&mut self, digest: &Digest, size: i64, labels: Labels) {
        let file = self.archive.blobs.remove(digest);
        let size = file.as_ref().map_or(size, |file| file.size);
        self.stage.add_blob(Blob {
            digest: digest.clone(),
            size,
            labels,
            file,
        });
    }

    async fn node(&mut self, descriptor: &Descriptor, parents: Vec<String>) -> Result<()> {
        let digest: Digest = descriptor.digest.parse()?;
        let bytes = self.bytes(&digest)?;
        let node = Node::parse(&descriptor.media_type, &bytes)?;
        self.keep(&digest, bytes.len() as i64, node.labels());
        let name = super::progress::item_name(descriptor);
        match node {
            Node::Manifest(manifest) => self.image(&manifest, vec![name]).await,
            Node::Index(index) => {
                if parents.len() > 2 {
                    return Err(Error::InvalidArgument(
                        "indexes are nested too deeply".into(),
                    ));
                }
                let mut inside = parents;
                inside.insert(0, name);
                // An archive need not hold every platform; at least one, and ours if it is to run.
                let mut found = false;
                for link in &index.manifests {
                    let digest: Digest = link.digest.parse()?;
                    if self.bytes(&digest).is_ok() {
                        found = true;
                        Box::pin(self.node(&link.descriptor(), inside.clone())).await?;
                    }
                }
                if found {
                    Ok(())
                } else {
                    index
                        .select(&self.platform)
                        .map(|_| ())
                        .and(Err(Error::NotFound("content of any manifest".into())))
                }
            }
        }
    }

    async fn image(&mut self, manifest: &Manifest, parents: Vec<String>) -> Result<()> {
        manifest.check()?;
        let config_digest: Digest = manifest.config.digest.parse()?;
        let config = self.bytes(&config_digest)?;
        let diff_ids = diff_ids(&config).unwrap_or_default();
        // An attestation has layers that are none.
        let unpack = self.unpack && !diff_ids.is_empty() && diff_ids.len() == manifest.layers.len();
        let chain = chain_ids(&diff_ids);
        let mut labels = Labels::new();
        labels.extend(chain.last().filter(|_| unpack).map(snapshot_label));
        self.keep(&config_digest, manifest.config.size, labels);
        let mut files = Vec::new();
        for layer in &manifest.layers {
            let digest: Digest = layer.digest.parse()?;
            self.keep(&digest, layer.size, Labels::new());
            let file = self
                .staged_file(&digest)
                .or_else(|_| self.core.content.open_blob(&digest))?;
            files.push((digest, file));
        }
        if !unpack {
            return Ok(());
        }
        let slots = Semaphore::new(PARALLEL);
        let work = files.into_iter().enumerate().map(|(i, (digest, file))| {
            let (slots, core, diff_id) = (&slots, self.core.clone(), diff_ids[i].clone());
            let item = self
                .progress
                .item(&manifest.layers[i].descriptor(), &parents);
            let known = self.is_known(&chain[i]);
            let size = manifest.layers[i].size;
            async move {
                if known {
                    item.set("already exists", size).await;
                    return Ok(None);
                }
                let _slot = slots.acquire().await;
                item.set("extracting", 0).await;
                let unpacked = blocking(move || unpack_layer(&core, file, &diff_id, Some(&digest)));
                let unpacked = unpacked
                    .await
                    .map_err(|e| e.context("failed to extract layer"))?;
                item.set("extracted", size).await;
                Ok::<_, Error>(Some(unpacked))
            }
        });
        self.stage.add_layers(&chain, try_join_all(work).await?);
        Ok(())
    }

    /// Unpacked before, or by another image of this archive.
    fn is_known(&self, chain_id: &Digest) -> bool {
        let layers = self.stage.layers.lock().expect("no panic under this lock");
        layers.iter().any(|layer| layer.chain_id == *chain_id)
            || is_unpacked(&self.core, &self.scope, chain_id)
    }
}
