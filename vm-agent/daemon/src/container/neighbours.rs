//! What containers ask of images, networks and volumes, in one place.

use super::Container;
use crate::error::{ApiError, ApiResult};
use crate::network::{ContainerNetworkRequest, PortBinding};
use crate::state::Daemon;
use crate::supervisor::api;
use serde::Deserialize;
use serde_json::Value;
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
    let request = api::ReadContentRequest {
        digest: digest.to_owned(),
        offset: 0,
        size: 0,
    };
    let mut stream = daemon
        .supervisor
        .content()
        .read(request)
        .await?
        .into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = stream.message().await? {
        bytes.extend(part.data);
    }
    Ok(bytes)
}

/// 404 `No such image: X` when it is not here.
pub async fn resolve_image(daemon: &Daemon, name: &str) -> ApiResult<Image> {
    let tagged = if name.contains(':') {
        name.to_owned()
    } else {
        format!("{name}:latest")
    };
    let full = format!("docker.io/library/{tagged}");
    let found = daemon
        .supervisor
        .images()
        .get(api::GetImageRequest { name: full })
        .await;
    let image = found
        .map_err(|_| ApiError::not_found(format!("No such image: {tagged}")))?
        .into_inner()
        .image;
    let target = image.and_then(|image| image.target).unwrap_or_default();
    let mut manifest: Manifest = serde_json::from_slice(&blob(daemon, &target.digest).await?)?;
    if let Some(first) = manifest.manifests.first() {
        manifest = serde_json::from_slice(&blob(daemon, &first.digest.clone()).await?)?;
    }
    let config = manifest
        .config
        .map(|config| config.digest)
        .unwrap_or_default();
    let mut value: Value = serde_json::from_slice(&blob(daemon, &config).await?)?;
    super::config::without_nulls(&mut value);
    let mut chain = String::new();
    for diff in value["rootfs"]["diff_ids"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        chain = match chain.is_empty() {
            true => diff.to_owned(),
            false => format!(
                "sha256:{}",
                hex::encode(Sha256::digest(format!("{chain} {diff}")))
            ),
        };
    }
    Ok(Image {
        id: config,
        manifest: target.digest,
        chain_id: chain,
        config: serde_json::from_value(value["config"].clone()).unwrap_or_default(),
    })
}

/// What networking needs to know of a container that starts.
pub fn network_request(container: &Container, netns: PathBuf) -> ContainerNetworkRequest {
    let (config, host) = (&container.config, &container.host_config);
    let endpoints = container
        .networking
        .endpoints_config
        .iter()
        .map(|(name, settings)| {
            let settings = serde_json::from_value(settings.clone()).unwrap_or_default();
            (name.clone(), settings)
        });
    let bindings = host.port_bindings.iter().flatten().map(|(port, bindings)| {
        let bindings = bindings.iter().flatten().map(|binding| PortBinding {
            host_ip: binding.host_ip.clone(),
            host_port: binding.host_port.clone(),
        });
        (port.clone(), Some(bindings.collect()))
    });
    ContainerNetworkRequest {
        id: container.id.clone(),
        name: container.name.clone(),
        hostname: config.hostname.clone(),
        domainname: config.domainname.clone(),
        mode: host.network_mode.clone(),
        endpoints: endpoints.collect(),
        exposed_ports: config.exposed_ports.keys().cloned().collect(),
        port_bindings: bindings.collect(),
        publish_all_ports: host.publish_all_ports,
        netns,
        dns: host.dns.clone().unwrap_or_default(),
        dns_search: host.dns_search.clone().unwrap_or_default(),
        dns_options: host.dns_options.clone().unwrap_or_default(),
        extra_hosts: host.extra_hosts.clone().unwrap_or_default(),
    }
}

/// Gives the container its network; returns the namespace to join (`None`: the guest's own).
pub async fn attach_network(daemon: &Daemon, container: &Container) -> ApiResult<Option<PathBuf>> {
    let mode = container.host_config.network_mode.as_str();
    if let Some(peer) = mode.strip_prefix("container:") {
        let peer = daemon.containers.get(peer)?;
        if !peer.running {
            return Err(ApiError::conflict(format!(
                "cannot join network of a non running container: {}",
                peer.id
            )));
        }
        copy_network_files(daemon, &peer, container)?;
        return Ok(Some(PathBuf::from(format!("/proc/{}/ns/net", peer.pid))));
    }
    let namespace = match mode {
        "host" => None,
        _ => Some(daemon.networks.create_netns(&container.id).await?),
    };
    let request = network_request(container, namespace.clone().unwrap_or_default());
    let attached = daemon.networks.attach(&request).await;
    let set = match (attached, &namespace) {
        (Ok(set), _) => set,
        (Err(error), namespace) => {
            if let Some(path) = namespace {
                daemon.networks.remove_netns(path).await;
            }
            return Err(error);
        }
    };
    let folder = daemon.containers.folder(&container.id);
    std::fs::write(
        folder.join("resolv.conf"),
        daemon.networks.resolv_conf(&request),
    )?;
    std::fs::write(folder.join("hosts"), daemon.networks.hosts(&request, &set))?;
    std::fs::write(
        folder.join("hostname"),
        format!("{}\n", container.config.hostname),
    )?;
    Ok(namespace)
}

/// A container in another's network has the other's names as well.
fn copy_network_files(daemon: &Daemon, peer: &Container, container: &Container) -> ApiResult<()> {
    let (from, to) = (
        daemon.containers.folder(&peer.id),
        daemon.containers.folder(&container.id),
    );
    for name in ["resolv.conf", "hosts", "hostname"] {
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name))?;
        }
    }
    Ok(())
}

pub async fn release_network(daemon: &Daemon, container: &Container) {
    daemon.networks.release(&container.id).await;
}

/// Makes (or finds) a volume; returns its name, and the folder that is bound.
pub async fn volume(
    _daemon: &Daemon,
    name: &str,
    _driver: &str,
    _options: &super::config::Labels,
    _labels: &super::config::Labels,
) -> ApiResult<(String, PathBuf)> {
    let name = if name.is_empty() {
        crate::identity::new_id()
    } else {
        name.to_owned()
    };
    let path = PathBuf::from("/var/lib/docker/volumes")
        .join(&name)
        .join("_data");
    std::fs::create_dir_all(&path)?;
    Ok((name, path))
}

pub async fn reference_volumes(_daemon: &Daemon, _container: &Container) -> ApiResult<()> {
    Ok(())
}

/// Lets the container's volumes go; anonymous ones are deleted when `remove`.
pub async fn release_volumes(_daemon: &Daemon, _container: &Container, _remove: bool) {}

/// Fills new volumes with what the image has at their places.
pub async fn copy_up(
    _daemon: &Daemon,
    _container: &Container,
    _rootfs: &super::rootfs::Rootfs,
) -> ApiResult<()> {
    Ok(())
}
