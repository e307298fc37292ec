//! `docker load` and `docker save`, through the transfer service's import and export.

use bytes::Bytes;
use futures::Stream;
use longshore_supervisor_api::to_any;
use serde_json::json;
use std::io;
use tokio::sync::mpsc;

use super::content::Platform;
use super::pull::{Lines, image_store, respond};
use super::{DANGLING, Images, Reference, StoredImage, familiar_name, stream};
use crate::error::{ApiError, ApiResult};
use crate::supervisor::api::TransferRequest;
use crate::supervisor::api::types::transfer::{
    ImageExportStream, ImageImportStream, ImageReference, ImageStore, Progress,
};

impl Images {
    /// Loads an archive and tells what it held, in Docker's lines.
    pub async fn load<S>(
        &self,
        archive: S,
        platform: Platform,
    ) -> ApiResult<impl Stream<Item = io::Result<Bytes>> + Send + use<S>>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static,
    {
        let (lines, queue) = mpsc::channel(64);
        let images = self.clone();
        let work = async move {
            if let Err(error) = images.load_to(archive, platform, &lines).await {
                let _ = lines.send(Err(error)).await;
            }
        };
        tokio::spawn(crate::trace_context::scope(
            crate::trace_context::current(),
            work,
        ));
        respond(queue).await
    }

    async fn load_to<S>(&self, archive: S, platform: Platform, lines: &Lines) -> ApiResult<()>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static,
    {
        let names = self
            .import_archive(archive, image_store("", platform))
            .await?;
        if names.is_empty() {
            return Err(ApiError::bad_request("the archive holds no image"));
        }
        for name in names {
            let shown = match familiar_name(&name) {
                Some(name) => format!("Loaded image: {name}\n"),
                None => {
                    let id = name
                        .split_once('@')
                        .map_or(name.as_str(), |(_, digest)| digest);
                    format!("Loaded image ID: {id}\n")
                }
            };
            let _ = lines.send(Ok(json!({ "stream": shown }))).await;
            self.publish_event("load", &name, &name);
        }
        Ok(())
    }

    /// Streams an archive into the store; returns the full names that it gave.
    pub(super) async fn import_archive<S>(
        &self,
        archive: S,
        mut store: ImageStore,
    ) -> ApiResult<Vec<String>>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static,
    {
        // Names inside the archive are taken as they are (containerd drops them unless they may overwrite the
        // prefix); what has none is kept by its digest.
        store.extra_references = vec![ImageReference {
            name: DANGLING.to_owned(),
            is_prefix: true,
            allow_overwrite: true,
            add_digest: true,
            skip_named_digest: true,
        }];
        let upload = stream::open(&self.supervisor, "import").await?;
        let source = ImageImportStream {
            stream: upload.id.clone(),
            ..ImageImportStream::default()
        };
        let sending = tokio::spawn(upload.send_archive(archive));
        let mut names = Vec::new();
        let tell = |event: Progress| {
            if event.event == "saved" && !names.contains(&event.name) {
                names.push(event.name);
            }
            Vec::new()
        };
        let done = self
            .transfer(to_any(&source), to_any(&store), None, tell)
            .await;
        let sent = sending
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?;
        done.map_err(|error| error.context("loading the archive"))?;
        sent.map_err(|error| ApiError::bad_request(format!("reading the archive: {error}")))?;
        Ok(names)
    }

    /// Streams images out as an archive.
    pub async fn save(
        &self,
        names: Vec<String>,
        platform: Option<Platform>,
    ) -> ApiResult<impl Stream<Item = io::Result<Bytes>> + Send + use<>> {
        let saved = self.saved(&names).await?;
        if saved.is_empty() {
            return Err(ApiError::bad_request("no image was named"));
        }
        let mut references: Vec<ImageReference> = Vec::new();
        let mut nameless = Vec::new();
        for image in saved {
            self.publish_event("save", &image.target.digest, &image.target.digest);
            if image.name.starts_with(DANGLING) && self.by_name(&image.name).await?.is_none() {
                self.put(&image.name, &image.target).await?;
                nameless.push(image.name.clone());
            }
            if !references.iter().any(|known| known.name == image.name) {
                references.push(ImageReference {
                    name: image.name,
                    ..ImageReference::default()
                });
            }
        }
        let download = stream::open(&self.supervisor, "export").await?;
        let platform = platform.unwrap_or_else(Platform::host);
        let target = ImageExportStream {
            stream: download.id.clone(),
            platforms: vec![crate::supervisor::api::types::Platform {
                os: platform.os,
                architecture: platform.architecture,
                ..Default::default()
            }],
            ..ImageExportStream::default()
        };
        let source = ImageStore {
            extra_references: references,
            ..ImageStore::default()
        };
        let request = TransferRequest {
            source: Some(to_any(&source)),
            destination: Some(to_any(&target)),
            options: None,
        };
        let images = self.clone();
        let transfer = tokio::spawn(async move {
            let done = images.supervisor.transfer().transfer(request).await;
            for name in nameless {
                let _ = images.delete_name(&name).await;
            }
            done.map(drop)
        });
        // A failed export breaks the response off, so that nobody takes half an archive for a whole one.
        Ok(download.receive_archive(transfer))
    }

    /// What an archive of `names` is to hold: an id without its names, a repository with all its tags, or one image.
    async fn saved(&self, names: &[String]) -> ApiResult<Vec<StoredImage>> {
        let mut saved = Vec::new();
        for name in names {
            let found = self.find(name).await;
            if let Ok(image) = &found {
                let hex = image.target.digest.trim_start_matches("sha256:");
                if hex.starts_with(name.trim_start_matches("sha256:")) {
                    saved.push(StoredImage {
                        name: format!("{DANGLING}@{}", image.target.digest),
                        ..image.clone()
                    });
                    continue;
                }
            }
            match Reference::parse(name) {
                Ok(reference) if reference.tag.is_none() && reference.digest.is_none() => {
                    let tags = self.repository(&reference).await?;
                    if tags.is_empty() {
                        return Err(ApiError::not_found(format!(
                            "No such image: {}",
                            reference.or_latest().familiar()
                        )));
                    }
                    saved.extend(tags.into_iter().map(|(_, image)| image));
                }
                _ => saved.push(found?),
            }
        }
        Ok(saved)
    }
}
