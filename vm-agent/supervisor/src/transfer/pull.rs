//! Registry → image store: layers side by side, verified and unpacked as they arrive.

use std::sync::Arc;

use futures::future::{join_all, try_join_all};
use longshore_supervisor_api::services::v1::Image;
use longshore_supervisor_api::types::transfer::{ImageStore, OciRegistry};
use longshore_supervisor_api::types::{Descriptor, Platform};
use tokio::sync::{Semaphore, mpsc};

use super::credentials::StreamCredentials;
use super::fetch::{Wanted, fetch};
use super::manifest::{Link, Manifest, Node, diff_ids};
use super::progress::{Item, Progress};
use super::stage::{Blob, Stage};
use super::unpack::{ChannelReader, Unpacked, unpack_layer};
use crate::core::{Core, Labels};
use crate::digest::{Digest, chain_ids};
use crate::error::{Error, Result, blocking};
use crate::request::Scope;
use crate::services::introspection::platform;
use longshore_registry::reference::Reference;
use longshore_registry::{Access, CredentialSource, Registry};

/// Layers that are fetched at a time.
const PARALLEL: usize = 4;
const SMALL: u64 = 8 * 1024 * 1024;

struct Pull {
    core: Arc<Core>,
    scope: Scope,
    registry: Registry,
    progress: Progress,
    stage: Stage,
    slots: Semaphore,
    platform: Platform,
    unpack: bool,
    origin: (String, String),
}

/// Whether the client wants layers unpacked, and for which platform the image is.
pub fn target(store: &ImageStore) -> Result<(bool, Platform)> {
    for unpack in &store.unpacks {
        if !["", crate::snapshots::SNAPSHOTTER].contains(&unpack.snapshotter.as_str()) {
            return Err(Error::NotFound(format!(
                "snapshotter not loaded: {}",
                unpack.snapshotter
            )));
        }
    }
    let wanted = store.platforms.first().cloned();
    let wanted = wanted.or_else(|| {
        store
            .unpacks
            .first()
            .and_then(|unpack| unpack.platform.clone())
    });
    let wanted = wanted.filter(|wanted| !wanted.architecture.is_empty());
    Ok((!store.unpacks.is_empty(), wanted.unwrap_or_else(platform)))
}

pub async fn pull(
    core: Arc<Core>,
    scope: Scope,
    source: OciRegistry,
    destination: ImageStore,
    progress: Progress,
) -> Result<()> {
    let reference = Reference::parse(&source.reference)?;
    let resolver = source.resolver.unwrap_or_default();
    let credentials = match resolver.auth_stream.as_str() {
        "" => None,
        id => {
            let stream = core.streams.take(&scope.namespace, id)?;
            let source = StreamCredentials::new(stream, &source.reference);
            Some(Arc::new(source) as Arc<dyn CredentialSource>)
        }
    };
    let registry = Registry::open(
        &reference,
        Access::Pull,
        &super::endpoints(&reference, &resolver)?,
        resolver.headers.into_iter().collect(),
        credentials,
    )?;
    let (unpack, platform) = target(&destination)?;
    progress
        .say(
            &format!("Resolving from OCI Registry ({})", source.reference),
            "",
        )
        .await;
    let (media_type, digest, size) = registry
        .resolve(reference.object(), &source.reference)
        .await
        .map_err(|e| {
            Error::from(e).context(format!(
                "failed to resolve reference {:?}",
                source.reference
            ))
        })?;
    let root = Descriptor {
        media_type: media_type.unwrap_or_default(),
        digest: digest.to_string(),
        size,
        annotations: Labels::new(),
    };
    progress
        .say("pulling image content", &source.reference)
        .await;
    let origin = (
        format!("containerd.io/distribution.source.{}", reference.host),
        reference.repository.clone(),
    );
    let pull = Pull {
        core: core.clone(),
        scope: scope.clone(),
        registry,
        progress: progress.clone(),
        stage: Stage::default(),
        slots: Semaphore::new(PARALLEL),
        platform,
        unpack,
        origin,
    };
    let root = pull.tree(root).await?;
    let name = if destination.name.is_empty() {
        source.reference.clone()
    } else {
        destination.name
    };
    pull.stage.add_image(Image {
        name: name.clone(),
        labels: destination.labels,
        target: Some(root),
        ..Image::default()
    });
    pull.stage.commit(&core, &scope).await?;
    progress.say("saved", &name).await;
    progress
        .say(
            &format!("Completed pull from OCI Registry ({})", source.reference),
            "",
        )
        .await;
    Ok(())
}

impl Pull {
    /// Brings a manifest or index and what it needs for the platform.
    async fn tree(&self, mut root: Descriptor) -> Result<Descriptor> {
        let (node, size, name) = self.manifest(&root, &[]).await?;
        root.size = size;
        if root.media_type.is_empty() {
            root.media_type = match &node {
                Node::Index(index) => index.media_type.clone(),
                Node::Manifest(manifest) => manifest.media_type.clone(),
            };
        }
        match node {
            Node::Manifest(manifest) => self.image(&manifest, vec![name]).await?,
            Node::Index(index) => {
                let chosen = index.select(&self.platform)?.descriptor();
                let parents = vec![name];
                let (Node::Manifest(manifest), _, child) = self.manifest(&chosen, &parents).await?
                else {
                    return Err(Error::InvalidArgument("an index inside an index".into()));
                };
                self.image(&manifest, vec![child, parents[0].clone()])
                    .await?;
            }
        }
        Ok(root)
    }

    /// A manifest from the store or the registry, with its size and its name in the progress.
    async fn manifest(
        &self,
        descriptor: &Descriptor,
        parents: &[String],
    ) -> Result<(Node, i64, String)> {
        let digest: Digest = descriptor.digest.parse()?;
        let item = self.progress.item(descriptor, parents);
        let known = self.core.content.read_small(&digest, SMALL).ok();
        let is_known = known.is_some();
        let bytes = match known {
            Some(bytes) => bytes,
            None => {
                let (_, bytes) = self
                    .registry
                    .manifest(digest.as_str(), digest.as_str())
                    .await?;
                let found = Digest::of(&bytes);
                if found != digest {
                    let message = format!("unexpected manifest digest {found}, expected {digest}");
                    return Err(Error::FailedPrecondition(message));
                }
                bytes
            }
        };
        let node = Node::parse(&descriptor.media_type, &bytes)?;
        let mut labels = node.labels();
        labels.extend([self.origin.clone()]);
        let size = bytes.len() as i64;
        let file = if is_known {
            None
        } else {
            Some(self.store_small(&digest, bytes).await?)
        };
        self.stage.add_blob(Blob {
            digest,
            size,
            labels,
            file,
        });
        item.set(
            if is_known {
                "already exists"
            } else {
                "complete"
            },
            size,
        )
        .await;
        Ok((node, size, item.name().to_owned()))
    }

    async fn store_small(
        &self,
        digest: &Digest,
        bytes: Vec<u8>,
    ) -> Result<crate::content::Finished> {
        let (core, namespace, digest) = (
            self.core.clone(),
            self.scope.namespace.clone(),
            digest.clone(),
        );
        blocking(move || super::import::store_bytes(&core, &namespace, &digest, &bytes)).await
    }

    async fn image(&self, manifest: &Manifest, parents: Vec<String>) -> Result<()> {
        manifest.check()?;
        let announce = manifest.layers.iter().map(|layer| {
            let item = self.progress.item(&layer.descriptor(), &parents);
            async move { item.set("waiting", 0).await }
        });
        join_all(announce).await;
        let config = self.config(&manifest.config, &parents).await?;
        let diff_ids = diff_ids(&config).unwrap_or_default();
        let is_image = diff_ids.len() == manifest.layers.len();
        if self.unpack && !is_image {
            let message = format!(
                "mismatched image rootfs and manifest layers: {} and {}",
                diff_ids.len(),
                manifest.layers.len()
            );
            return Err(Error::InvalidArgument(message));
        }
        let chain = chain_ids(&diff_ids);
        self.stage_config(
            &manifest.config,
            chain.last().filter(|_| self.unpack),
            &config,
        )
        .await?;
        let layers = manifest.layers.iter().enumerate().map(|(i, layer)| {
            let stack = self.unpack.then(|| (&diff_ids[i], &chain[i]));
            self.layer(layer, stack, &parents)
        });
        self.stage.add_layers(&chain, try_join_all(layers).await?);
        Ok(())
    }

    async fn config(&self, link: &Link, parents: &[String]) -> Result<Vec<u8>> {
        let digest: Digest = link.digest.parse()?;
        let item = self.progress.item(&link.descriptor(), parents);
        if let Ok(bytes) = self.core.content.read_small(&digest, SMALL) {
            item.set("already exists", link.size).await;
            return Ok(bytes);
        }
        let bytes = self.registry.small_blob(&digest, SMALL as usize).await?;
        item.set("complete", link.size).await;
        Ok(bytes)
    }

    async fn stage_config(&self, link: &Link, top: Option<&Digest>, bytes: &[u8]) -> Result<()> {
        let digest: Digest = link.digest.parse()?;
        let mut labels = Labels::from([self.origin.clone()]);
        labels.extend(top.map(snapshot_label));
        let file = match self.core.content.open_blob(&digest) {
            Ok(_) => None,
            Err(_) => Some(self.store_small(&digest, bytes.to_vec()).await?),
        };
        self.stage.add_blob(Blob {
            digest,
            size: bytes.len() as i64,
            labels,
            file,
        });
        Ok(())
    }

    /// Brings one layer; unpacks it when `stack` (DiffID and chain id) says so and nobody has yet.
    async fn layer(
        &self,
        link: &Link,
        stack: Option<(&Digest, &Digest)>,
        parents: &[String],
    ) -> Result<Option<Unpacked>> {
        let _slot = self.slots.acquire().await;
        let digest: Digest = link.digest.parse()?;
        let mut item = self.progress.item(&link.descriptor(), parents);
        let diff_id = stack
            .filter(|(_, chain_id)| !is_unpacked(&self.core, &self.scope, chain_id))
            .map(|(diff_id, _)| diff_id.clone());
        let known = self.core.content.open_blob(&digest).ok();
        let labels = Labels::from([self.origin.clone()]);
        if let Some(file) = known {
            let size = file.metadata().map(|m| m.len() as i64).unwrap_or(link.size);
            self.stage.add_blob(Blob {
                digest: digest.clone(),
                size,
                labels,
                file: None,
            });
            item.set("already exists", link.size).await;
            let Some(diff_id) = diff_id else {
                return Ok(None);
            };
            let core = self.core.clone();
            let unpacked =
                blocking(move || unpack_layer(&core, file, &diff_id, Some(&digest))).await?;
            item.set("extracted", link.size).await;
            return Ok(Some(unpacked));
        }
        self.download(link, &digest, diff_id, labels, &mut item)
            .await
    }

    async fn download(
        &self,
        link: &Link,
        digest: &Digest,
        diff_id: Option<Digest>,
        labels: Labels,
        item: &mut Item,
    ) -> Result<Option<Unpacked>> {
        let mut unpacking = None;
        let unpacker = diff_id.map(|diff_id| {
            let (sender, receiver) = mpsc::channel(16);
            let (core, blob) = (self.core.clone(), digest.clone());
            unpacking = Some(tokio::spawn(blocking(move || {
                unpack_layer(&core, ChannelReader::new(receiver), &diff_id, Some(&blob))
            })));
            sender
        });
        item.set("downloading", 0).await;
        let wanted = Wanted {
            digest,
            size: link.size,
        };
        let fetched = fetch(
            &self.core,
            &self.scope,
            &self.registry,
            wanted,
            item,
            unpacker,
        )
        .await;
        let unpacked = match unpacking {
            Some(unpacking) => Some(unpacking.await.map_err(|e| Error::Other(e.to_string()))?),
            None => None,
        };
        // What is wrong with the download says more than what the unpacker made of it.
        let file = fetched.map_err(|e| e.context(format!("failed to fetch {digest}")))?;
        item.set("complete", link.size).await;
        self.stage.add_blob(Blob {
            digest: digest.clone(),
            size: file.size,
            labels,
            file: Some(file),
        });
        let unpacked = unpacked
            .transpose()
            .map_err(|e| e.context(format!("failed to extract layer {digest}")))?;
        if unpacked.is_some() {
            item.set("extracted", link.size).await;
        }
        Ok(unpacked)
    }
}

/// Keeps the unpacked layers for as long as the configuration.
pub fn snapshot_label(top: &Digest) -> (String, String) {
    (
        "containerd.io/gc.ref.snapshot.overlayfs".into(),
        top.to_string(),
    )
}

pub fn is_unpacked(core: &Core, scope: &Scope, chain_id: &Digest) -> bool {
    core.store
        .read()
        .and_then(|records| crate::snapshots::find(&records, &scope.namespace, chain_id.as_str()))
        .is_ok()
}
