//! Pulling through the supervisor's transfer service.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
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
        let (lines, queue) = mpsc::channel(64);
        let images = self.clone();
        let work = async move {
            if let Err(error) = images.pull_to(&reference, platform, auth, &lines).await {
                let _ = lines.send(Err(error)).await;
            }
        };
        tokio::spawn(crate::trace_context::scope(
            crate::trace_context::current(),
            work,
        ));
        respond(queue).await
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
        let mut tell = |event| {
            let mut told = pull.translate(&event);
            if !told.is_empty() && !std::mem::replace(&mut opened, true) {
                told.insert(0, opening.clone());
            }
            told
        };
        let mut done = false;
        for mirror in self.mirrors(reference) {
            let pulled = self.transfer(mirror, to_any(&store), Some(lines), &mut tell);
            match pulled.await {
                Ok(()) => {
                    done = true;
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, %reference, "a mirror does not give the image")
                }
            }
        }
        if !done {
            self.transfer(side.registry.clone(), to_any(&store), Some(lines), tell)
                .await
                .map_err(|error| pull_error(error, reference))?;
        }
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

    /// `http` for registries on the loopback and those that daemon.json declares insecure.
    pub(super) fn scheme(&self, domain: &str) -> &'static str {
        let insecure = self.config.settings().strings("insecure-registries");
        if is_insecure(domain, &insecure) {
            "http"
        } else {
            "https"
        }
    }
}

/// A pull by tag and digest is stored by its digest alone, as Docker does.
fn stored_name(reference: &Reference) -> String {
    reference.to_string()
}

pub(super) fn is_insecure(domain: &str, insecure: &[String]) -> bool {
    let host = match domain.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => domain,
    };
    let host = host.trim_matches(['[', ']']);
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    insecure.iter().any(|entry| {
        let entry = entry
            .split_once("://")
            .map_or(entry.as_str(), |(_, rest)| rest);
        entry == domain || entry == host || in_network(address, entry)
    })
}

/// Whether an address is in `10.0.0.0/8`.
fn in_network(address: Option<IpAddr>, network: &str) -> bool {
    let (Some(IpAddr::V4(address)), Some((base, prefix))) = (address, network.split_once('/'))
    else {
        return false;
    };
    match (base.parse::<std::net::Ipv4Addr>(), prefix.parse::<u32>()) {
        (Ok(base), Ok(prefix @ 1..=32)) => {
            (address.to_bits() ^ base.to_bits()) >> (32 - prefix) == 0
        }
        (Ok(_), Ok(0)) => true,
        _ => false,
    }
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

/// Waits for the first line: an error there is the response's own; a later one ends the stream in Docker's way.
pub(super) async fn respond(
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
    fn insecure_registries_are_found_by_name_address_and_network() {
        let insecure = ["10.0.2.2:5000", "192.168.0.0/16", "http://reg.local"].map(str::to_owned);
        for (domain, expected) in [
            ("10.0.2.2:5000", true),
            ("10.0.2.2:5001", false),
            ("192.168.7.1:5000", true),
            ("192.169.7.1", false),
            ("reg.local:80", true),
            ("127.0.0.1:5000", true),
            ("localhost:5000", true),
            ("[::1]:5000", true),
            ("docker.io", false),
        ] {
            assert_eq!(is_insecure(domain, &insecure), expected, "{domain}");
        }
    }

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
