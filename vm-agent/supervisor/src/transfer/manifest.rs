//! Manifests, indexes and configurations, as far as a transfer must understand them.

use std::collections::HashMap;

use longshore_supervisor_api::types::{Descriptor, Platform};
use serde::{Deserialize, Serialize};

use crate::core::Labels;
use crate::digest::Digest;
use crate::error::{Error, Result};

pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_LIST)
}

pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// A descriptor in JSON (OCI image specification, "Content Descriptors").
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    #[serde(default)]
    pub size: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<HashMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<serde_json::Value>,
}

impl Link {
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest.clone(),
            size: self.size,
            annotations: self.annotations.clone().unwrap_or_default(),
        }
    }

    /// Whether this is for a platform; what does not say so is for any.
    pub fn is_for(&self, platform: &Platform) -> bool {
        let Some(own) = &self.platform else {
            return true;
        };
        let matches = |name: &str, wanted: &str| own[name].as_str().unwrap_or_default() == wanted;
        matches("os", &platform.os) && matches("architecture", &platform.architecture)
    }
}

impl From<&Descriptor> for Link {
    fn from(descriptor: &Descriptor) -> Self {
        let annotations = descriptor.annotations.clone();
        Self {
            media_type: descriptor.media_type.clone(),
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            annotations: (!annotations.is_empty()).then_some(annotations),
            platform: None,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: i64,
    #[serde(default)]
    pub media_type: String,
    pub config: Link,
    pub layers: Vec<Link>,
}

/// The kernel mounts 500 layers over each other (OVL_MAX_STACK, fs/overlayfs); one is the engine's own.
const MAX_LAYERS: usize = 499;

impl Manifest {
    /// Refuses what no container could stand on, and what could have any length, before anything is fetched.
    pub fn check(&self) -> Result<()> {
        let count = self.layers.len();
        if count > MAX_LAYERS {
            return Err(Error::InvalidArgument(format!(
                "max depth exceeded: the image has {count} layers and can have {MAX_LAYERS}"
            )));
        }
        let mut links = self.layers.iter().chain([&self.config]);
        match links.find(|link| link.size <= 0) {
            Some(link) => Err(Error::InvalidArgument(format!(
                "the manifest tells no size of {}",
                link.digest
            ))),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: i64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    pub manifests: Vec<Link>,
}

/// A manifest of either kind.
pub enum Node {
    Index(Index),
    Manifest(Manifest),
}

fn parse<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::InvalidArgument(format!("{what}: {e}")))
}

impl Node {
    /// What it is shows in the media type; without one, in the content.
    pub fn parse(media_type: &str, bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Shape {
            manifests: Option<serde::de::IgnoredAny>,
        }
        let index = is_index(media_type)
            || !is_manifest(media_type) && parse::<Shape>("manifest", bytes)?.manifests.is_some();
        if index {
            return parse("index", bytes).map(Node::Index);
        }
        parse("manifest", bytes).map(Node::Manifest)
    }

    /// Labels by which the collector finds what this refers to.
    pub fn labels(&self) -> Labels {
        let label = |name: String, link: &Link| {
            (
                format!("containerd.io/gc.ref.content.{name}"),
                link.digest.clone(),
            )
        };
        match self {
            Node::Index(index) => index
                .manifests
                .iter()
                .enumerate()
                .map(|(i, m)| label(format!("m.{i}"), m))
                .collect(),
            Node::Manifest(manifest) => {
                let layers = manifest
                    .layers
                    .iter()
                    .enumerate()
                    .map(|(i, l)| label(format!("l.{i}"), l));
                layers
                    .chain([label("config".into(), &manifest.config)])
                    .collect()
            }
        }
    }
}

impl Index {
    /// The manifest for a platform, and never an attestation.
    pub fn select(&self, platform: &Platform) -> Result<&Link> {
        let is_image = |link: &&Link| {
            let annotations = link.annotations.as_ref();
            annotations.is_none_or(|a| !a.contains_key("vnd.docker.reference.type"))
        };
        self.manifests
            .iter()
            .filter(is_image)
            .find(|link| link.is_for(platform))
            .ok_or_else(|| {
                let wanted = format!("{}/{}", platform.os, platform.architecture);
                Error::NotFound(format!("no match for platform in manifest: {wanted}"))
            })
    }
}

/// The uncompressed layers of an image, from its configuration. Empty for what is not an image.
pub fn diff_ids(config: &[u8]) -> Result<Vec<Digest>> {
    #[derive(Deserialize, Default)]
    struct RootFs {
        #[serde(default)]
        diff_ids: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        rootfs: RootFs,
    }
    let config: Config = parse("image configuration", config)?;
    config
        .rootfs
        .diff_ids
        .iter()
        .map(|id| Ok(id.parse()?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selects_the_platform_and_labels_children() {
        let json = r#"{"schemaVersion":2,"manifests":[
            {"digest":"sha256:a","size":1,"platform":{"os":"linux","architecture":"arm64"}},
            {"digest":"sha256:b","size":1,"platform":{"os":"unknown","architecture":"unknown"},
             "annotations":{"vnd.docker.reference.type":"attestation-manifest"}},
            {"digest":"sha256:c","size":1,"platform":{"os":"linux","architecture":"amd64"}}]}"#;
        let node = Node::parse("", json.as_bytes()).unwrap();
        assert_eq!(
            node.labels()["containerd.io/gc.ref.content.m.2"],
            "sha256:c"
        );
        let Node::Index(index) = node else {
            panic!("not an index")
        };
        let platform = |architecture: &str| Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            ..Platform::default()
        };
        assert_eq!(index.select(&platform("amd64")).unwrap().digest, "sha256:c");
        assert!(
            index
                .select(&platform("riscv64"))
                .unwrap_err()
                .is_not_found()
        );
    }
}
