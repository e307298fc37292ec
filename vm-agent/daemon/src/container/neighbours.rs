//! What containers ask of images, networks and volumes, in one place.

use crate::error::{ApiError, ApiResult};
use crate::state::Daemon;
use crate::supervisor::api;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// An image as a container needs it.
#[derive(Debug, Clone, Default)]
pub struct Image {
    pub id: String,
    pub manifest: String,
    /// The snapshot of its last layer; empty for an image without layers.
    pub chain_id: String,
    pub config: super::config::ContainerConfig,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

async fn blob(daemon: &Daemon, digest: &str) -> ApiResult<Vec<u8>> {
    let request = api::ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
    let mut stream = daemon.supervisor.content().read(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = stream.message().await? {
        bytes.extend(part.data);
    }
    Ok(bytes)
}

/// 404 `No such image: X` when it is not here.
pub async fn resolve_image(daemon: &Daemon, name: &str) -> ApiResult<Image> {
    let tagged = if name.contains(':') { name.to_owned() } else { format!("{name}:latest") };
    let full = format!("docker.io/library/{tagged}");
    let found = daemon.supervisor.images().get(api::GetImageRequest { name: full }).await;
    let image = found.map_err(|_| ApiError::not_found(format!("No such image: {tagged}")))?.into_inner().image;
    let target = image.and_then(|image| image.target).unwrap_or_default();
    let mut manifest: Manifest = serde_json::from_slice(&blob(daemon, &target.digest).await?)?;
    if let Some(first) = manifest.manifests.first() {
        manifest = serde_json::from_slice(&blob(daemon, &first.digest.clone()).await?)?;
    }
    let config = manifest.config.map(|config| config.digest).unwrap_or_default();
    let mut value: Value = serde_json::from_slice(&blob(daemon, &config).await?)?;
    super::config::without_nulls(&mut value);
    let mut chain = String::new();
    for diff in value["rootfs"]["diff_ids"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        chain = match chain.is_empty() {
            true => diff.to_owned(),
            false => format!("sha256:{}", hex::encode(Sha256::digest(format!("{chain} {diff}")))),
        };
    }
    Ok(Image {
        id: config,
        manifest: target.digest,
        chain_id: chain,
        config: serde_json::from_value(value["config"].clone()).unwrap_or_default(),
    })
}

/// A container's place in the network.
#[derive(Debug, Default)]
pub struct Attached {
    /// `None`: the guest's own network.
    pub namespace: Option<PathBuf>,
    /// Members of `NetworkSettings`.
    pub settings: Map<String, Value>,
}

pub async fn attach_network(_daemon: &Daemon, container: &super::Container) -> ApiResult<Attached> {
    Ok(match container.host_config.network_mode.as_str() {
        "host" => Attached::default(),
        _ => Attached { namespace: Some(PathBuf::new()), settings: Map::new() },
    })
}

pub async fn release_network(_daemon: &Daemon, _container: &super::Container) {}

/// Makes (or finds) a volume; returns its name, and the folder that is bound.
pub async fn volume(
    _daemon: &Daemon,
    name: &str,
    _driver: &str,
    _options: &super::config::Labels,
    _labels: &super::config::Labels,
) -> ApiResult<(String, PathBuf)> {
    let name = if name.is_empty() { crate::identity::new_id() } else { name.to_owned() };
    let path = PathBuf::from("/var/lib/docker/volumes").join(&name).join("_data");
    std::fs::create_dir_all(&path)?;
    Ok((name, path))
}

pub async fn reference_volumes(_daemon: &Daemon, _container: &super::Container) -> ApiResult<()> {
    Ok(())
}

/// Lets the container's volumes go; anonymous ones are deleted when `remove`.
pub async fn release_volumes(_daemon: &Daemon, _container: &super::Container, _remove: bool) {}
