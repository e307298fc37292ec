//! What the builder asks of images: those of its cache, bases to pull, and the name of what it made.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::sync::mpsc;

use super::write::{CACHE_LABEL, PARENT_LABEL};
use super::{DANGLING, Images, Reference, RegistryAuth, StoredImage};
use crate::config::SNAPSHOTTER;
use crate::error::{ApiError, ApiResult};
use crate::supervisor::api::snapshots;
use crate::supervisor::api::types::Mount;

/// Docker Hub's name in the credentials that clients send.
const HUB: &str = "https://index.docker.io/v1/";

impl StoredImage {
    /// The image that a step of a build stood on when it made this one.
    pub fn parent(&self) -> Option<&str> {
        self.labels.get(PARENT_LABEL).map(String::as_str)
    }
}

impl Images {
    pub const CACHE_LABEL: &str = CACHE_LABEL;

    /// The id of an image that a build made on `parent` under this key.
    pub async fn cached(&self, parent: Option<&str>, key: &str) -> ApiResult<Option<String>> {
        let found = self.all().await?.into_iter().find(|image| {
            image.parent() == parent && image.labels.get(CACHE_LABEL).is_some_and(|k| k == key)
        });
        Ok(found.map(|image| image.target.digest))
    }

    /// A snapshot to write to; remove it at the end.
    pub async fn prepare(&self, key: &str, parent: &str) -> ApiResult<Vec<Mount>> {
        let request = snapshots::PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: [("containerd.io/gc.root".to_owned(), "build".to_owned())].into(),
        };
        let made = self.supervisor.snapshots().prepare(request).await?;
        Ok(made.into_inner().mounts)
    }

    /// Pulls a base image with the build's credentials; its lines, the last of which may be an error.
    pub async fn pull_for_build(
        &self,
        name: &str,
        auth: &BTreeMap<String, RegistryAuth>,
    ) -> ApiResult<mpsc::Receiver<ApiResult<Value>>> {
        let reference = Reference::parse(name)
            .map_err(|error| ApiError::bad_request(error.to_string()))?
            .or_latest();
        let key = match reference.domain.as_str() {
            "docker.io" => HUB,
            domain => domain,
        };
        let found = auth.iter().find(|(server, _)| {
            let server = server
                .split_once("://")
                .map_or(server.as_str(), |(_, rest)| rest);
            server.trim_end_matches('/') == key || server == key.trim_start_matches("https://")
        });
        let auth = found.map(|(_, auth)| auth.clone()).unwrap_or_default();
        let (lines, queue) = mpsc::channel(64);
        let images = self.clone();
        let work = async move {
            if let Err(error) = images.pull_to(&reference, None, auth, &lines).await {
                let _ = lines.send(Err(error)).await;
            }
        };
        tokio::spawn(crate::trace_context::scope(
            crate::trace_context::current(),
            work,
        ));
        Ok(queue)
    }

    /// Names an image that a build made; it is no image without a tag any more.
    pub async fn tag_built(&self, id: &str, reference: &Reference) -> ApiResult<()> {
        let image = self.find(id).await?;
        let name = reference.to_string();
        self.dethrone(&name, &image.target.digest).await?;
        self.put_labelled(&name, &image.target, image.labels.clone())
            .await?;
        self.delete_name(&format!("{DANGLING}@{}", image.target.digest))
            .await?;
        self.publish_event("tag", &image.target.digest, &reference.familiar());
        Ok(())
    }

    /// What a name pointed at stays, without a tag, when the name goes to another image and was its last.
    pub(super) async fn dethrone(&self, name: &str, digest: &str) -> ApiResult<()> {
        if let Some(old) = self.by_name(name).await?
            && old.target.digest != digest
            && self.group_of(&old).await?.names.len() == 1
        {
            let kept = format!("{DANGLING}@{}", old.target.digest);
            self.put_labelled(&kept, &old.target, old.labels.clone())
                .await?;
        }
        Ok(())
    }
}
