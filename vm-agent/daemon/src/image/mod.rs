//! Images of the Docker API: what is stored, pulled, loaded, tagged and removed, all at the supervisor.
//!
//! An image's id is the digest of its manifest or index, as Docker's containerd store has it.

mod api;
mod archive;
mod cache;
mod check;
mod commit;
mod content;
mod distribution;
mod endpoints;
mod import;
mod progress;
mod pull;
mod push;
mod reference;
mod remove;
mod show;
mod stream;
mod transfer;
mod write;

use std::collections::HashMap;
use std::sync::Arc;

use crate::supervisor::api::types;
use tonic::Code;

pub use api::route;
pub use content::{Descriptor, ImageConfig, Platform, PlatformImage};
pub use pull::RegistryAuth;
pub use reference::Reference;
pub use show::disk_usage;
pub use write::{NewImage, NewLayer};

use content::Content;
use reference::is_digest;

use crate::config::Config;
use crate::error::{ApiError, ApiResult};
use crate::event::Events;
use crate::state::Parts;
use crate::supervisor::{Supervisor, api as wire};

/// Names under which images without a tag are kept.
pub(super) const DANGLING: &str = "moby-dangling";

/// One name in the supervisor's image store.
#[derive(Clone, Debug)]
pub struct StoredImage {
    /// In full; or `moby-dangling@sha256:…`.
    pub name: String,
    pub target: Descriptor,
    pub updated: Option<prost_types::Timestamp>,
    pub labels: HashMap<String, String>,
}

/// An image as a container needs it.
#[derive(Clone, Debug)]
pub struct ImageRef {
    /// `sha256:…` of the manifest or index: what Docker shows as the image's id.
    pub id: String,
    /// The full name it was found by; empty when it was asked for by id.
    pub name: String,
    /// The manifest of this machine's platform.
    pub manifest: Descriptor,
    /// The snapshot of the last layer; empty for an image without layers.
    pub chain_id: String,
    pub config: ImageConfig,
}

#[derive(Clone)]
pub struct Images {
    config: Arc<Config>,
    supervisor: Supervisor,
    events: Events,
    content: Content,
}

impl Images {
    pub async fn open(parts: &Parts) -> ApiResult<Self> {
        Ok(Self {
            config: parts.config.clone(),
            supervisor: parts.supervisor.clone(),
            events: parts.events.clone(),
            content: Content::new(parts.supervisor.clone()),
        })
    }

    /// Every name in the store.
    pub async fn all(&self) -> ApiResult<Vec<StoredImage>> {
        let listed = self.supervisor.retry(|supervisor| async move {
            supervisor
                .images()
                .list(wire::ListImagesRequest {
                    filters: Vec::new(),
                })
                .await
        });
        Ok(listed
            .await?
            .images
            .into_iter()
            .filter_map(stored)
            .collect())
    }

    /// The image of exactly this full name.
    pub(super) async fn by_name(&self, name: &str) -> ApiResult<Option<StoredImage>> {
        let request = wire::GetImageRequest {
            name: name.to_owned(),
        };
        let got = self.supervisor.retry(|supervisor| {
            let request = request.clone();
            async move { supervisor.images().get(request).await }
        });
        match got.await {
            Ok(response) => Ok(response.image.and_then(stored)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    /// By name, id, or prefix of an id; 404 `No such image: X:latest`.
    pub async fn find(&self, name: &str) -> ApiResult<StoredImage> {
        let reference = match Reference::parse(name).map(Reference::or_latest) {
            // A piece of an id is no name, and a name for a file needs no image.
            Err(error) if !is_digest(name) => {
                return Err(ApiError::bad_request(error.to_string()));
            }
            parsed => parsed,
        };
        if let Ok(reference) = &reference
            && !is_digest(name)
            && let Some(image) = self.by_name(&reference.to_string()).await?
        {
            return Ok(image);
        }
        let missing = || {
            let shown = reference
                .as_ref()
                .map_or_else(|_| name.to_owned(), Reference::familiar);
            ApiError::not_found(format!("No such image: {shown}"))
        };
        let images = self.all().await?;
        // `repository@sha256:…`, whatever tag it was stored under.
        if let Ok(Reference {
            domain,
            path,
            digest: Some(digest),
            ..
        }) = &reference
            && let Some(image) = images.iter().find(|image| {
                image.target.digest == *digest
                    && Reference::parse(&image.name)
                        .is_ok_and(|known| known.domain == *domain && known.path == *path)
            })
        {
            return Ok(image.clone());
        }
        self.by_id(&images, name)?.ok_or_else(missing)
    }

    fn by_id(&self, images: &[StoredImage], id: &str) -> ApiResult<Option<StoredImage>> {
        let hex = id.strip_prefix("sha256:").unwrap_or(id);
        if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let wanted = format!("sha256:{hex}");
        let mut found: Option<&StoredImage> = None;
        for image in images
            .iter()
            .filter(|image| image.target.digest.starts_with(&wanted))
        {
            match found {
                Some(other) if other.target.digest != image.target.digest => {
                    return Err(ApiError::bad_request(format!(
                        "invalid image id: ambiguous digest prefix {id:?} matches several images"
                    )));
                }
                _ => found = Some(image),
            }
        }
        Ok(found.cloned())
    }

    /// What a container needs of an image, for this machine's platform.
    pub async fn resolve(&self, name: &str) -> ApiResult<ImageRef> {
        self.resolve_for(name, &Platform::host()).await
    }

    pub async fn resolve_for(&self, name: &str, platform: &Platform) -> ApiResult<ImageRef> {
        let image = self.find(name).await?;
        let parsed = self.content.image(&image.target, platform).await?;
        let by_id = image
            .target
            .digest
            .trim_start_matches("sha256:")
            .starts_with(name.trim_start_matches("sha256:"));
        Ok(ImageRef {
            id: image.target.digest,
            name: if by_id { String::new() } else { image.name },
            manifest: parsed.manifest.clone(),
            chain_id: parsed.chain_ids().pop().unwrap_or_default(),
            config: parsed.config.clone(),
        })
    }

    /// An image's id, and those of all that were built on it step by step.
    pub async fn with_descendants(&self, name: &str) -> ApiResult<Vec<String>> {
        let mut found = vec![self.find(name).await?.target.digest];
        let all = self.all().await?;
        let mut next = 0;
        while let Some(parent) = found.get(next).cloned() {
            let children = all.iter().filter(|image| image.parent() == Some(&parent));
            for child in children {
                if !found.contains(&child.target.digest) {
                    found.push(child.target.digest.clone());
                }
            }
            next += 1;
        }
        Ok(found)
    }

    /// Points a full name at a target, whether or not the name was there.
    pub(super) async fn put(&self, name: &str, target: &Descriptor) -> ApiResult<()> {
        self.put_labelled(name, target, HashMap::new()).await
    }

    /// The same, with labels.
    pub(super) async fn put_labelled(
        &self,
        name: &str,
        target: &Descriptor,
        labels: HashMap<String, String>,
    ) -> ApiResult<()> {
        let image = wire::Image {
            name: name.to_owned(),
            target: Some(types::Descriptor {
                media_type: target.media_type.clone(),
                digest: target.digest.clone(),
                size: target.size,
                annotations: target
                    .annotations
                    .clone()
                    .unwrap_or_default()
                    .into_iter()
                    .collect(),
            }),
            labels,
            ..wire::Image::default()
        };
        let create = wire::CreateImageRequest {
            image: Some(image.clone()),
            ..Default::default()
        };
        match self.supervisor.images().create(create).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => {
                let update = wire::UpdateImageRequest {
                    image: Some(image),
                    update_mask: Some(prost_types::FieldMask {
                        paths: vec!["target".to_owned(), "labels".to_owned()],
                    }),
                    ..Default::default()
                };
                self.supervisor.images().update(update).await?;
                Ok(())
            }
            Err(status) => Err(status.into()),
        }
    }

    pub(super) fn publish_event(&self, action: &str, id: &str, name: &str) {
        let attributes = [("name".to_owned(), name.to_owned())].into();
        self.events.publish("image", action, id, attributes);
    }
}

fn stored(image: wire::Image) -> Option<StoredImage> {
    let target = image.target?;
    Some(StoredImage {
        name: image.name,
        target: Descriptor {
            media_type: target.media_type,
            digest: target.digest,
            size: target.size,
            annotations: (!target.annotations.is_empty())
                .then(|| target.annotations.into_iter().collect()),
            platform: None,
        },
        updated: image.updated_at,
        labels: image.labels,
    })
}

/// How people write a stored name; `None` for names of images without a tag.
pub(super) fn familiar_name(stored: &str) -> Option<String> {
    match stored.starts_with(DANGLING) {
        true => None,
        false => {
            Some(Reference::parse(stored).map_or_else(|_| stored.to_owned(), |r| r.familiar()))
        }
    }
}
