//! Pulling through the supervisor's transfer service.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use longshore_supervisor_api::to_any;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::content::Platform;
use super::progress::PullProgress;
use super::{Images, Reference};
use crate::config::SNAPSHOTTER;
use crate::error::{ApiError, ApiResult};
use crate::supervisor::api::types;
use crate::supervisor::api::types::transfer::{
    AuthResponse, AuthType, ImageStore, UnpackConfiguration,
};

/// What `X-Registry-Auth` carries, in base64.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RegistryAuth {
    pub username: String,
    pub password: String,
    pub identitytoken: String,
    pub registrytoken: String,
    pub serveraddress: String,
}

impl RegistryAuth {
    /// Clients use both alphabets, with and without padding; nonsense counts as none, as Docker has it.
    pub fn from_header(header: Option<&str>) -> Self {
        let Some(text) = header.filter(|text| !text.is_empty()) else {
            return Self::default();
        };
        let decoded = URL_SAFE.decode(text).or_else(|_| STANDARD.decode(text));
        decoded
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .unwrap_or_default()
    }

    /// `X-Registry-Config`: credentials by server, in base64.
    pub fn all_from_header(header: Option<&str>) -> std::collections::BTreeMap<String, Self> {
        let text = header.unwrap_or_default();
        let decoded = URL_SAFE.decode(text).or_else(|_| STANDARD.decode(text));
        decoded
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.username.is_empty() && self.identitytoken.is_empty() && self.registrytoken.is_empty()
    }

    pub(super) fn response(&self) -> AuthResponse {
        let (kind, secret) = if !self.registrytoken.is_empty() {
            (AuthType::Header, format!("Bearer {}", self.registrytoken))
        } else if !self.identitytoken.is_empty() {
            (AuthType::Refresh, self.identitytoken.clone())
        } else {
            (AuthType::Credentials, self.password.clone())
        };
        AuthResponse {
            auth_type: kind as i32,
            secret,
            username: self.username.clone(),
            ..AuthResponse::default()
        }
    }
}

/// Lines of a JSON stream; the first may be an error instead, which then is the response's status.
pub(super) type Lines = mpsc::Sender<ApiResult<Value>>;

impl Images {
    /// Pulls, and tells how it goes in Docker's lines.
    pub async fn pull(
        &self,
        reference: Reference,
        platform: Option<Platform>,
        auth: RegistryAuth,
    ) -> ApiResult<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>> {
        let images = self.clone();
        while_read(|lines| async move { images.pull_to(&reference, platform, auth, &lines).await })
            .await
    }

    pub(super) async fn pull_to(
        &self,
        reference: &Reference,
        platform: Option<Platform>,
        auth: RegistryAuth,
        lines: &Lines,
    ) -> ApiResult<()> {
        let name = stored_name(reference);
        let before = self.by_name(&name).await?.map(|image| image.target.digest);
        let side = self.registry_side(reference, auth).await?;
        let opening = json!({
            "status": format!("Pulling from {}", reference.familiar_path()),
            "id": reference.tag.as_ref().or(reference.digest.as_ref()),
        });
        let store = image_store(&name, platform.unwrap_or_else(Platform::host));
        let mut pull = PullProgress::default();
        let mut opened = false;
        let tell = |event| {
            let mut told = pull.translate(&event);
            if !told.is_empty() && !std::mem::replace(&mut opened, true) {
                told.insert(0, opening.clone());
            }
            told
        };
        self.transfer(side.registry.clone(), to_any(&store), Some(lines), tell)
            .await
            .map_err(|error| pull_error(error, reference))?;
        let unopened = (!opened).then_some(opening);
        for line in unopened.into_iter().chain(pull.finish()) {
            let _ = lines.send(Ok(line)).await;
        }
        let after = self
            .by_name(&name)
            .await?
            .ok_or_else(|| ApiError::internal(format!("{name} vanished after it was pulled")))?;
        let digest = after.target.digest;
        let news = match before.as_deref() == Some(&digest) {
            true => "Image is up to date",
            false => "Downloaded newer image",
        };
        for status in [
            format!("Digest: {digest}"),
            format!("Status: {news} for {}", reference.familiar()),
        ] {
            let _ = lines.send(Ok(json!({ "status": status }))).await;
        }
        self.publish_event("pull", &reference.familiar(), &reference.familiar_name());
        Ok(())
    }
}

/// A pull by tag and digest is stored by its digest alone, as Docker does.
fn stored_name(reference: &Reference) -> String {
    reference.to_string()
}

/// Where an image goes: under `name`, with its layers unpacked for `platform`.
pub(super) fn image_store(name: &str, platform: Platform) -> ImageStore {
    let platform = types::Platform {
        os: platform.os,
        architecture: platform.architecture,
        variant: platform.variant,
        ..types::Platform::default()
    };
    ImageStore {
        name: name.to_owned(),
        platforms: vec![platform.clone()],
        unpacks: vec![UnpackConfiguration {
            platform: Some(platform),
            snapshotter: SNAPSHOTTER.to_owned(),
        }],
        ..ImageStore::default()
    }
}

/// The transfer's words, in Docker's where Docker has better ones.
fn pull_error(error: ApiError, reference: &Reference) -> ApiError {
    let words = error.message.as_str();
    let denied = [
        "insufficient_scope",
        "authorization failed",
        "pull access denied",
        "401 Unauthorized",
        "403 Forbidden",
    ];
    if words.contains("no basic auth credentials") {
        return ApiError::internal(words);
    }
    if denied.iter().any(|sign| words.contains(sign)) {
        return ApiError::not_found(format!(
            "pull access denied for {}, repository does not exist or may require 'docker login'",
            reference.familiar_name()
        ));
    }
    if words.contains("not found") {
        return ApiError::not_found(words);
    }
    ApiError::internal(words)
}

/// The lines of `work`, which is given up when nobody reads them any more: its client has gone.
pub(super) async fn while_read<F>(
    work: impl FnOnce(Lines) -> F,
) -> ApiResult<BoxStream<'static, std::io::Result<Bytes>>>
where
    F: Future<Output = ApiResult<()>> + Send + 'static,
{
    let (lines, queue) = mpsc::channel(64);
    let work = work(lines.clone());
    let work = async move {
        tokio::select! {
            ended = work => {
                if let Err(error) = ended {
                    let _ = lines.send(Err(error)).await;
                }
            }
            () = lines.closed() => tracing::info!("the client has gone: its transfer is given up"),
        }
    };
    tokio::spawn(crate::trace_context::scope(
        crate::trace_context::current(),
        work,
    ));
    respond(queue).await.map(StreamExt::boxed)
}

/// Waits for the first line: an error there is the response's own; a later one ends the stream in Docker's way.
async fn respond(
    mut queue: mpsc::Receiver<ApiResult<Value>>,
) -> ApiResult<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>> {
    let first = match queue.recv().await {
        Some(first) => Some(first?),
        None => None,
    };
    let first = futures::stream::iter(first.map(Ok));
    Ok(encoded(first.chain(ReceiverStream::new(queue))))
}

/// Docker's JSON stream: a line each; an error ends it as one more.
pub(super) fn encoded(
    lines: impl Stream<Item = ApiResult<Value>> + Send,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    lines.map(|line| {
        let line = line.unwrap_or_else(
            |error| json!({ "errorDetail": { "message": error.message }, "error": error.message }),
        );
        Ok(Bytes::from(format!("{line}\r\n")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_in_both_alphabets() {
        let json = br#"{"username":"a","password":"b?>"}"#;
        for header in [URL_SAFE.encode(json), STANDARD.encode(json)] {
            let auth = RegistryAuth::from_header(Some(&header));
            assert_eq!(
                (auth.username.as_str(), auth.password.as_str()),
                ("a", "b?>")
            );
        }
        assert!(RegistryAuth::from_header(Some("%%%")).is_empty());
        assert!(RegistryAuth::from_header(Some(&URL_SAFE.encode("{}"))).is_empty());
    }
}
