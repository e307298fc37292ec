//! Pushing through the supervisor's transfer service.

use bytes::Bytes;
use futures::Stream;
use longshore_supervisor_api::to_any;
use serde_json::json;

use super::content::Platform;
use super::progress::PushProgress;
use super::pull::{Lines, RegistryAuth, while_read};
use super::{Images, Reference, StoredImage};
use crate::error::{ApiError, ApiResult};
use crate::supervisor::api::types;
use crate::supervisor::api::types::transfer::ImageStore;

impl Images {
    /// Pushes one tag, or with none every tag of the repository, and tells how it goes in Docker's lines.
    pub(super) async fn push(
        &self,
        name: &str,
        tag: &str,
        platform: Option<Platform>,
        auth: RegistryAuth,
    ) -> ApiResult<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>> {
        let found = self.pushed(name, tag).await;
        if let Err(error) = &found
            && error.status != http::StatusCode::NOT_FOUND
        {
            return Err(error.clone());
        }
        let opened =
            Reference::parse(name).map_err(|error| ApiError::bad_request(error.to_string()))?;
        let images = self.clone();
        while_read(|lines| async move {
            if found.is_err() {
                // Docker has opened its stream by then.
                let _ = lines.send(Ok(opening(&opened))).await;
            }
            for (reference, image) in found? {
                images
                    .push_to(&reference, &image, platform.as_ref(), &auth, &lines)
                    .await?;
            }
            Ok(())
        })
        .await
    }

    /// What a push is of; 404 in Docker's words when it is not here.
    async fn pushed(&self, name: &str, tag: &str) -> ApiResult<Vec<(Reference, StoredImage)>> {
        let text = match tag {
            "" => name.to_owned(),
            tag => format!("{name}:{tag}"),
        };
        let reference =
            Reference::parse(&text).map_err(|error| ApiError::bad_request(error.to_string()))?;
        if reference.digest.is_some() {
            return Err(ApiError::bad_request("cannot push a digest reference"));
        }
        if reference.tag.is_some() {
            let image = self.by_name(&reference.to_string()).await?;
            let image = image.ok_or_else(|| {
                ApiError::not_found(format!("tag does not exist: {}", reference.familiar()))
            })?;
            return Ok(vec![(reference, image)]);
        }
        let found = self.repository(&reference).await?;
        match found.is_empty() {
            true => Err(ApiError::not_found(format!(
                "An image does not exist locally with the tag: {}",
                reference.familiar_name()
            ))),
            false => Ok(found),
        }
    }

    /// Every tag of a repository that is here.
    pub(super) async fn repository(
        &self,
        wanted: &Reference,
    ) -> ApiResult<Vec<(Reference, StoredImage)>> {
        let all = self.all().await?.into_iter();
        let named = all.filter_map(|image| Some((Reference::parse(&image.name).ok()?, image)));
        Ok(named
            .filter(|(reference, _)| {
                reference.domain == wanted.domain
                    && reference.path == wanted.path
                    && reference.tag.is_some()
                    && reference.digest.is_none()
            })
            .collect())
    }

    async fn push_to(
        &self,
        reference: &Reference,
        image: &StoredImage,
        platform: Option<&Platform>,
        auth: &RegistryAuth,
        lines: &Lines,
    ) -> ApiResult<()> {
        let _ = lines.send(Ok(opening(reference))).await;
        // An index whose other platforms were never pulled cannot be pushed: what is here goes instead.
        let partial = !self.content.is_complete(&image.target).await?;
        let single = match (platform, partial) {
            (Some(platform), _) => Some(platform.clone()),
            (None, true) => Some(Platform::host()),
            (None, false) => None,
        };
        let target = match &single {
            Some(platform) => self
                .content
                .image(&image.target, platform)
                .await?
                .manifest
                .clone(),
            None => image.target.clone(),
        };
        self.push_content(reference, image, single, auth, lines)
            .await
            .map_err(|error| push_error(error, reference))?;
        if target.digest != image.target.digest && platform.is_none() {
            let aux = json!({
                "manifestPushedInsteadOfIndex": true,
                "originalIndex": image.target,
                "selectedManifest": target,
            });
            let _ = lines
                .send(Ok(json!({ "progressDetail": {}, "aux": aux })))
                .await;
        }
        let tag = reference.tag.clone().unwrap_or_default();
        let size = target.size;
        let status = format!("{tag}: digest: {} size: {size}", target.digest);
        let aux = json!({ "Tag": tag, "Digest": target.digest, "Size": size });
        for line in [
            json!({ "status": status }),
            json!({ "progressDetail": {}, "aux": aux }),
        ] {
            let _ = lines.send(Ok(line)).await;
        }
        self.publish_event("push", &reference.familiar(), &reference.familiar_name());
        Ok(())
    }

    async fn push_content(
        &self,
        reference: &Reference,
        image: &StoredImage,
        platform: Option<Platform>,
        auth: &RegistryAuth,
        lines: &Lines,
    ) -> ApiResult<()> {
        let side = self.registry_side(reference, auth.clone()).await?;
        let platforms = platform.map(|platform| types::Platform {
            os: platform.os,
            architecture: platform.architecture,
            variant: platform.variant,
            ..types::Platform::default()
        });
        let source = ImageStore {
            name: image.name.clone(),
            platforms: platforms.into_iter().collect(),
            ..ImageStore::default()
        };
        let mut push = PushProgress::default();
        let tell = move |event| push.translate(&event).into_iter().collect();
        self.transfer(to_any(&source), side.registry.clone(), Some(lines), tell)
            .await
    }
}

fn opening(reference: &Reference) -> serde_json::Value {
    let repository = format!("{}/{}", reference.domain, reference.path);
    json!({ "status": format!("The push refers to repository [{repository}]") })
}

/// The transfer's words, in Docker's where Docker has better ones.
fn push_error(error: ApiError, reference: &Reference) -> ApiError {
    let words = error.message.as_str();
    let denied = [
        "401 Unauthorized",
        "403 Forbidden",
        "access denied",
        "insufficient_scope",
    ];
    if denied.iter().any(|sign| words.contains(sign)) {
        return ApiError::forbidden(format!(
            "push access denied, repository does not exist or may require authorization: \
             authorization failed: no basic auth credentials for {}",
            reference.domain
        ));
    }
    error
}
