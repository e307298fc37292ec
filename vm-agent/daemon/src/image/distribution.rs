//! `GET /distribution/{name}/json`: what a registry has under a name, without pulling it.

use std::sync::Arc;

use longshore_registry::{Access, CredentialSource, Credentials, Error, Registry};
use serde::Deserialize;
use serde_json::{Value, json};

use super::content::{Descriptor, digest_of};
use super::pull::RegistryAuth;
use super::{Images, Reference};
use crate::error::{ApiError, ApiResult};

/// A configuration is small; more is a mistake or an attack.
const CONFIG_LIMIT: usize = 8 << 20;

/// An index or a manifest, as far as it says what it is for.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Manifest {
    media_type: String,
    manifests: Option<Vec<Listed>>,
    config: Option<Descriptor>,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    platform: Value,
}

#[async_trait::async_trait]
impl CredentialSource for RegistryAuth {
    async fn credentials(&self, _: &str, _: &[String]) -> longshore_registry::Result<Credentials> {
        Ok(if !self.registrytoken.is_empty() {
            Credentials::Header(format!("Bearer {}", self.registrytoken))
        } else if !self.identitytoken.is_empty() {
            Credentials::Refresh(self.identitytoken.clone())
        } else if !self.username.is_empty() {
            Credentials::Basic {
                username: self.username.clone(),
                secret: self.password.clone(),
            }
        } else {
            Credentials::Anonymous
        })
    }
}

/// The registry of what a client calls a server: `https://index.docker.io/v1/`, `registry.example.org:5000`.
fn host_of(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    match rest.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" => "docker.io",
        host => host,
    }
}

impl Images {
    /// `docker login`: asks the registry itself whether it takes the credentials.
    pub async fn log_in(&self, auth: RegistryAuth) -> ApiResult<()> {
        let host = host_of(&auth.serveraddress).to_owned();
        let endpoints = self.endpoints(&host)?;
        let registry = Registry::whole(&host, &endpoints, Arc::new(auth)).map_err(told)?;
        registry.log_in().await.map_err(|error| match error {
            // A token service that knows the user otherwise; anything else is the attempt's own failure to Docker.
            Error::Denied(words) if words.starts_with("unauthorized") => {
                ApiError::new(http::StatusCode::UNAUTHORIZED, words)
            }
            other => {
                let words = other.to_string();
                let words = words.strip_prefix("failed to do request: ");
                ApiError::internal(words.map_or_else(|| other.to_string(), str::to_owned))
            }
        })
    }

    pub async fn distribution(&self, name: &str, auth: RegistryAuth) -> ApiResult<Value> {
        if is_id(name) {
            return Err(ApiError::internal("no manifest found for full image ID"));
        }
        let reference = Reference::parse(name)
            .map_err(|error| ApiError::bad_request(error.to_string()))?
            .or_latest();
        let full = reference.to_string();
        let endpoints = self.endpoints(&reference.domain)?;
        let asked = longshore_registry::reference::Reference::parse(&full).map_err(told)?;
        let source = Some(Arc::new(auth) as Arc<dyn CredentialSource>);
        let registry =
            Registry::open(&asked, Access::Pull, &endpoints, Vec::new(), source).map_err(told)?;
        let (served, bytes) = registry
            .manifest(asked.object(), &full)
            .await
            .map_err(told)?;
        let digest = digest_of(&bytes);
        if reference
            .digest
            .as_ref()
            .is_some_and(|wanted| *wanted != digest)
        {
            return Err(ApiError::internal(format!(
                "manifest verification failed for digest {}",
                asked.object()
            )));
        }
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::internal(format!("the manifest of {full}: {error}")))?;
        let media_type = match manifest.media_type.as_str() {
            "" => served.unwrap_or_default(),
            own => own.to_owned(),
        };
        Ok(json!({
            "Descriptor": { "mediaType": media_type, "digest": digest, "size": bytes.len() },
            "Platforms": platforms(&registry, manifest).await?,
        }))
    }
}

/// Of an index what it lists; of a manifest what its configuration says. A configuration that cannot be had is no error.
async fn platforms(registry: &Registry, manifest: Manifest) -> ApiResult<Option<Vec<Value>>> {
    if let Some(listed) = manifest.manifests {
        let platforms = listed.into_iter().map(|one| platform(&one.platform));
        return Ok(Some(platforms.collect()));
    }
    let Some(config) = manifest.config else {
        return Ok(None);
    };
    let digest = config.digest.parse().map_err(told)?;
    let config = match registry.small_blob(&digest, CONFIG_LIMIT).await {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
        Err(error) => {
            tracing::debug!(%error, "asking a registry for a configuration");
            Value::Null
        }
    };
    let platform = platform(&config);
    let is_told = platform
        .as_object()
        .is_some_and(|members| !members.is_empty());
    Ok(is_told.then(|| vec![platform]))
}

/// The members of a platform (image-spec, image-index.md), and no others.
fn platform(of: &Value) -> Value {
    let members = ["architecture", "os", "os.version", "os.features", "variant"];
    let known = members.iter().filter_map(|member| {
        let value = of.get(member)?;
        Some(((*member).to_owned(), value.clone()))
    });
    Value::Object(known.collect())
}

fn is_id(name: &str) -> bool {
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// In the words of Docker's engine.
fn told(error: Error) -> ApiError {
    match error {
        Error::NotFound(_) => ApiError::not_found("manifest unknown: manifest unknown"),
        Error::Denied(_) => ApiError::new(
            http::StatusCode::UNAUTHORIZED,
            "unauthorized: authentication required",
        ),
        Error::InvalidArgument(why) => ApiError::bad_request(why),
        other => ApiError::internal(other.to_string()),
    }
}
