//! Image store → registry: blobs first, side by side, then manifests from the leaves up, the tag last.

use std::sync::Arc;

use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt};
use longshore_supervisor_api::services::v1::Image;
use longshore_supervisor_api::types::transfer::{ImageStore, OciRegistry};
use longshore_supervisor_api::types::{Descriptor, Platform};
use tokio::sync::Semaphore;
use tokio_util::io::ReaderStream;

use super::credentials::StreamCredentials;
use super::manifest::{Link, Node};
use super::progress::Progress;
use super::tree::{Tree, Wanted};
use crate::core::Core;
use crate::digest::Digest;
use crate::error::{Error, IoStep, Result, blocking};
use crate::request::Scope;
use crate::services::images;
use longshore_registry::reference::Reference;
use longshore_registry::{Access, CredentialSource, Registry, Upload};

/// Blobs that are sent at a time.
const PARALLEL: usize = 4;
/// One read of a blob that is sent.
const CHUNK: usize = 128 * 1024;

struct Push {
    core: Arc<Core>,
    scope: Scope,
    registry: Registry,
    reference: Reference,
    progress: Progress,
    slots: Semaphore,
}

/// With platforms in `source`, the one manifest of the first of them goes instead of the index.
pub async fn push(
    core: Arc<Core>,
    scope: Scope,
    source: ImageStore,
    destination: OciRegistry,
    progress: Progress,
) -> Result<()> {
    let reference = Reference::parse(&destination.reference)?;
    let resolver = destination.resolver.unwrap_or_default();
    let credentials = match resolver.auth_stream.as_str() {
        "" => None,
        id => {
            let stream = core.streams.take(&scope.namespace, id)?;
            let source = StreamCredentials::new(stream, &destination.reference);
            Some(Arc::new(source) as Arc<dyn CredentialSource>)
        }
    };
    let registry = Registry::open(
        &reference,
        Access::Push,
        &super::endpoints(&reference, &resolver)?,
        resolver.headers.into_iter().collect(),
        credentials,
    )?;
    progress
        .say(&format!("Pushing to {}", destination.reference), "")
        .await;
    let (reading, wanted) = (core.clone(), scope.clone());
    let (image, tree) = blocking(move || read(&reading, &wanted, &source)).await?;
    progress.say("pushing content", &image.name).await;
    let push = Push {
        core,
        scope,
        registry,
        reference,
        progress: progress.clone(),
        slots: Semaphore::new(PARALLEL),
    };
    push.tree(&tree).await?;
    progress.say("pushed", &image.name).await;
    progress
        .say(&format!("Completed push to {}", destination.reference), "")
        .await;
    Ok(())
}

/// The image and all that is to be sent of it.
fn read(core: &Core, scope: &Scope, source: &ImageStore) -> Result<(Image, Tree)> {
    let image = images::find(&core.store.read()?, &scope.namespace, &source.name)?;
    let target = image
        .target
        .clone()
        .ok_or_else(|| Error::Other(format!("image {:?} has no target", image.name)))?;
    let target = match source.platforms.first() {
        Some(platform) => of_platform(core, target, platform)?,
        None => target,
    };
    let tree = Tree::of(core, &scope.namespace, &target, &Wanted::Complete)?;
    Ok((image, tree))
}

fn of_platform(core: &Core, target: Descriptor, platform: &Platform) -> Result<Descriptor> {
    let digest: Digest = target.digest.parse()?;
    let bytes = core.content.read_small(&digest, super::tree::SMALL)?;
    match Node::parse(&target.media_type, &bytes)? {
        Node::Manifest(_) => Ok(target),
        Node::Index(index) => Ok(index.select(platform)?.descriptor()),
    }
}

impl Push {
    async fn tree(&self, tree: &Tree) -> Result<()> {
        for blob in &tree.blobs {
            let item = self.progress.item(&blob.descriptor(), &[]);
            item.set("waiting", 0).await;
        }
        try_join_all(tree.blobs.iter().map(|blob| self.blob(blob))).await?;
        let last = tree.manifests.len().saturating_sub(1);
        for (i, (link, bytes)) in tree.manifests.iter().enumerate() {
            let object = match (i == last, &self.reference.tag) {
                (true, Some(tag)) => tag.as_str(),
                _ => link.digest.as_str(),
            };
            let media_type = match Node::parse(&link.media_type, bytes)? {
                _ if !link.media_type.is_empty() => link.media_type.clone(),
                Node::Index(_) => super::manifest::OCI_INDEX.into(),
                Node::Manifest(_) => super::manifest::OCI_MANIFEST.into(),
            };
            let item = self.progress.item(&link.descriptor(), &[]);
            self.registry
                .put_manifest(object, &media_type, bytes.clone())
                .await
                .map_err(|e| Error::from(e).context(format!("failed to push {}", link.digest)))?;
            item.set("complete", link.size).await;
        }
        Ok(())
    }

    /// Another repository of the same registry that this content came from.
    fn origin(&self, digest: &Digest) -> Option<String> {
        let info = self
            .core
            .content_info(&self.scope.namespace, digest.as_str())
            .ok()?;
        let label = format!("containerd.io/distribution.source.{}", self.reference.host);
        let known = info.labels.get(&label)?;
        known
            .split(',')
            .find(|repository| *repository != self.reference.repository && !repository.is_empty())
            .map(str::to_owned)
    }

    async fn blob(&self, link: &Link) -> Result<()> {
        let _slot = self.slots.acquire().await;
        let descriptor = link.descriptor();
        let digest: Digest = link.digest.parse()?;
        let failed = |e: longshore_registry::Error| {
            Error::from(e).context(format!("failed to push {digest}"))
        };
        let item = self.progress.item(&descriptor, &[]);
        if self.registry.has_blob(&digest).await.map_err(failed)? {
            item.set("already exists", link.size).await;
            return Ok(());
        }
        let origin = self.origin(&digest);
        let begun = self.registry.begin_upload(&digest, origin.as_deref()).await;
        let location = match begun.map_err(failed)? {
            Upload::Mounted => {
                let origin: Vec<String> = origin.into_iter().collect();
                let item = self.progress.item(&descriptor, &origin);
                item.set("mounted", link.size).await;
                return Ok(());
            }
            Upload::At(location) => location,
        };
        item.set("uploading", 0).await;
        let path = self.core.content.path(&digest);
        let file = tokio::fs::File::open(&path)
            .await
            .step(|| format!("opening content {digest}"))?;
        let size = file
            .metadata()
            .await
            .step(|| format!("content {digest}"))?
            .len();
        let mut telling = self.progress.item(&descriptor, &[]);
        let mut sent = 0;
        let chunks = ReaderStream::with_capacity(file, CHUNK)
            .inspect_ok(move |chunk| {
                sent += chunk.len() as i64;
                telling.advance("uploading", sent);
            })
            .boxed();
        let body = reqwest::Body::wrap_stream(chunks);
        let sent = self.registry.finish_upload(&location, &digest, body, size);
        sent.await.map_err(failed)?;
        item.set("complete", link.size).await;
        Ok(())
    }
}
