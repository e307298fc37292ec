//! Manifests and configurations of images, read from the supervisor's content store.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::error::{ApiError, ApiResult};
use crate::supervisor::{Supervisor, api};

/// Larger manifests and configurations than this are refused (registries allow 4 MiB).
const LIMIT: usize = 8 << 20;
/// Blobs never change, so what was parsed stays right; the bound is on memory.
const CACHED: usize = 256;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    #[serde(default)]
    pub size: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            architecture: architecture.into(),
            os: "linux".into(),
            variant: String::new(),
        }
    }

    /// `linux/arm64/v8`, `linux/amd64`, `arm64`.
    pub fn parse(text: &str) -> ApiResult<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [architecture] if *architecture != "linux" => ("linux", *architecture, ""),
            [os] => (*os, "", ""),
            [os, architecture] => (*os, *architecture, ""),
            [os, architecture, variant] => (*os, *architecture, *variant),
            _ => {
                return Err(ApiError::bad_request(format!(
                    "{text:?} is an invalid OS component of {text:?}"
                )));
            }
        };
        const SYSTEMS: [&str; 5] = ["linux", "windows", "darwin", "freebsd", "wasip1"];
        const ARCHITECTURES: [&str; 15] = [
            "", "amd64", "arm64", "arm", "386", "ppc64le", "ppc64", "s390x", "riscv64", "mips64",
            "mips64le", "mips", "loong64", "wasm", "x86_64",
        ];
        let known = SYSTEMS.contains(&os)
            && (ARCHITECTURES.contains(&architecture)
                || matches!(
                    architecture,
                    "x86-64" | "aarch64" | "i386" | "armhf" | "armel"
                ));
        if !known {
            return Err(ApiError::bad_request(format!(
                "{text:?}: unknown operating system or architecture: invalid argument"
            )));
        }
        let architecture = match architecture {
            "" => Self::host().architecture,
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            other => other.to_owned(),
        };
        Ok(Self {
            architecture,
            os: os.to_owned(),
            variant: variant.to_owned(),
        })
    }
}

#[derive(Debug, Deserialize)]
struct ManifestBlob {
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

/// An image configuration (OCI image-spec, config.md), as far as Docker shows it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    pub created: Option<String>,
    pub author: Option<String>,
    pub architecture: String,
    pub variant: Option<String>,
    pub os: String,
    pub comment: Option<String>,
    pub docker_version: Option<String>,
    pub config: Option<Map<String, Value>>,
    pub rootfs: RootFs,
    pub history: Option<Vec<History>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RootFs {
    #[serde(rename = "type")]
    pub kind: String,
    pub diff_ids: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct History {
    pub created: Option<String>,
    pub created_by: Option<String>,
    pub comment: Option<String>,
    pub empty_layer: bool,
}

/// The image of one platform: its manifest and configuration, parsed.
#[derive(Clone, Debug)]
pub struct PlatformImage {
    pub manifest: Descriptor,
    pub config_descriptor: Descriptor,
    pub layers: Vec<Descriptor>,
    pub config: ImageConfig,
}

impl PlatformImage {
    /// Bytes of everything in the content store that belongs to the image.
    pub fn content_size(&self) -> i64 {
        let layers: i64 = self.layers.iter().map(|layer| layer.size).sum();
        self.manifest.size + self.config_descriptor.size + layers
    }

    /// The snapshot chain's names, from the lowest layer up (image-spec, config.md "Layer ChainID").
    pub fn chain_ids(&self) -> Vec<String> {
        chain_ids(&self.config.rootfs.diff_ids)
    }
}

pub fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    for diff in diff_ids {
        let next = match chain.last() {
            None => diff.clone(),
            Some(below) => digest_of(format!("{below} {diff}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

pub fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Reads blobs, and remembers the images it has parsed.
#[derive(Clone)]
pub struct Content {
    supervisor: Supervisor,
    parsed: Arc<Mutex<HashMap<String, Arc<PlatformImage>>>>,
}

impl Content {
    pub fn new(supervisor: Supervisor) -> Self {
        Self {
            supervisor,
            parsed: Arc::default(),
        }
    }

    /// A small blob, whole.
    pub async fn blob(&self, digest: &str) -> ApiResult<Vec<u8>> {
        let request = api::ReadContentRequest {
            digest: digest.to_owned(),
            offset: 0,
            size: 0,
        };
        let read = self.supervisor.retry(|supervisor| {
            let request = request.clone();
            async move { supervisor.content().read(request).await }
        });
        let mut stream = read.await?;
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await? {
            bytes.extend_from_slice(&part.data);
            if bytes.len() > LIMIT {
                return Err(ApiError::internal(format!(
                    "blob {digest} is larger than {LIMIT} bytes"
                )));
            }
        }
        Ok(bytes)
    }

    /// The image of `platform` under a manifest or index; the first one that is here when that platform is not.
    pub async fn image(
        &self,
        target: &Descriptor,
        platform: &Platform,
    ) -> ApiResult<Arc<PlatformImage>> {
        let key = format!(
            "{} {}/{}",
            target.digest, platform.os, platform.architecture
        );
        if let Some(known) = self.parsed().get(&key) {
            return Ok(known.clone());
        }
        let parsed = Arc::new(self.parse(target, platform).await?);
        let mut known = self.parsed();
        if known.len() >= CACHED {
            known.clear();
        }
        known.insert(key, parsed.clone());
        Ok(parsed)
    }

    fn parsed(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<PlatformImage>>> {
        self.parsed
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    async fn parse(&self, target: &Descriptor, platform: &Platform) -> ApiResult<PlatformImage> {
        let mut descriptor = target.clone();
        // An index in an index is allowed; deeper nesting is nobody's.
        for _ in 0..3 {
            let blob: ManifestBlob = serde_json::from_slice(&self.blob(&descriptor.digest).await?)?;
            if let Some(config) = blob.config {
                let text = self.blob(&config.digest).await?;
                let parsed: ImageConfig = serde_json::from_slice(&text).map_err(|error| {
                    ApiError::internal(format!("image configuration {}: {error}", config.digest))
                })?;
                return Ok(PlatformImage {
                    manifest: descriptor,
                    config_descriptor: config,
                    layers: blob.layers.unwrap_or_default(),
                    config: parsed,
                });
            }
            let manifests = blob.manifests.unwrap_or_default();
            descriptor = self.choose(&manifests, platform).await.ok_or_else(|| {
                ApiError::not_found(format!(
                    "no image of platform {}/{} is here",
                    platform.os, platform.architecture
                ))
            })?;
        }
        Err(ApiError::internal(format!(
            "image index {} is nested too deeply",
            target.digest
        )))
    }

    async fn choose(&self, manifests: &[Descriptor], platform: &Platform) -> Option<Descriptor> {
        let is_attestation = |descriptor: &&Descriptor| {
            descriptor
                .platform
                .as_ref()
                .is_some_and(|platform| platform.os == "unknown")
        };
        let fits = |descriptor: &&Descriptor| {
            descriptor.platform.as_ref().is_none_or(|theirs| {
                theirs.os == platform.os
                    && theirs.architecture == platform.architecture
                    && (platform.variant.is_empty() || theirs.variant == platform.variant)
            })
        };
        let real = || {
            manifests
                .iter()
                .filter(|descriptor| !is_attestation(descriptor))
        };
        for descriptor in real().filter(fits).chain(real().filter(|d| !fits(d))) {
            if self.is_here(&descriptor.digest).await {
                return Some(descriptor.clone());
            }
        }
        None
    }

    /// Whether every manifest of an index is here; true for what is no index.
    pub async fn is_complete(&self, target: &Descriptor) -> ApiResult<bool> {
        let blob: ManifestBlob = serde_json::from_slice(&self.blob(&target.digest).await?)?;
        for manifest in blob.manifests.unwrap_or_default() {
            if !self.is_here(&manifest.digest).await {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The entries of an index; none for what is no index.
    pub async fn entries(&self, target: &Descriptor) -> ApiResult<Vec<Descriptor>> {
        let blob: ManifestBlob = serde_json::from_slice(&self.blob(&target.digest).await?)?;
        Ok(blob.manifests.unwrap_or_default())
    }

    pub async fn is_here(&self, digest: &str) -> bool {
        let request = api::InfoRequest {
            digest: digest.to_owned(),
        };
        self.supervisor.content().info(request).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_follow_the_image_specification() {
        let ids = ["sha256:aa".to_owned(), "sha256:bb".to_owned()];
        let chain = chain_ids(&ids);
        assert_eq!(chain[0], "sha256:aa");
        assert_eq!(chain[1], digest_of(b"sha256:aa sha256:bb"));
        assert!(chain_ids(&[]).is_empty());
    }

    #[test]
    fn platforms_are_parsed() {
        let parse = |text| {
            let platform = Platform::parse(text).unwrap();
            (platform.os, platform.architecture, platform.variant)
        };
        assert_eq!(
            parse("linux/arm64/v8"),
            ("linux".into(), "arm64".into(), "v8".into())
        );
        assert_eq!(
            parse("x86_64"),
            ("linux".into(), "amd64".into(), String::new())
        );
        assert!(Platform::parse("a/b/c/d").is_err());
    }
}
