//! What containers ask of images, networks and volumes, in one place.

use super::config::NetworkingConfig;
use super::links;
use super::{Container, Rootfs};
use crate::config::Settings;
use crate::error::{ApiError, ApiResult};
use crate::image::Platform;
use crate::network::{
    ContainerNetworkRequest, EndpointSet, EndpointSettings, PortBinding, netns_path,
};
use crate::state::Daemon;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// An image as a container needs it.
#[derive(Debug, Clone, Default)]
pub struct Image {
    pub id: String,
    pub manifest: String,
    pub manifest_size: i64,
    pub manifest_annotations: BTreeMap<String, String>,
    /// The snapshot of its last layer; empty for an image without layers.
    pub chain_id: String,
    pub config: super::config::ContainerConfig,
}

/// 404 `No such image: X` when it is not here.
pub async fn resolve_image(daemon: &Daemon, name: &str) -> ApiResult<Image> {
    let found = daemon.images.resolve(name).await?;
    let mut config = Value::Object(found.config.config.unwrap_or_default());
    super::config::without_nulls(&mut config);
    Ok(Image {
        id: found.id,
        manifest: found.manifest.digest,
        manifest_size: found.manifest.size,
        manifest_annotations: found.manifest.annotations.unwrap_or_default(),
        chain_id: found.chain_id,
        config: serde_json::from_value(config).map_err(|error| {
            ApiError::internal(format!("the configuration of image {name}: {error}"))
        })?,
    })
}

/// Docker's refusal of an image that is here for other platforms only.
pub async fn check_platform(daemon: &Daemon, image: &str, platform: &str) -> ApiResult<()> {
    let wanted = Platform::parse(platform)?;
    let Ok(found) = daemon.images.resolve(image).await else {
        return Ok(()); // Told when it is resolved, or had for this machine.
    };
    let (os, architecture) = (&found.config.os, &found.config.architecture);
    if (os.as_str(), architecture.as_str()) == (&wanted.os, &wanted.architecture) {
        return Ok(());
    }
    let name = match crate::image::Reference::parse(image) {
        Ok(reference) => reference.or_latest().familiar(),
        Err(_) => image.to_owned(),
    };
    Err(ApiError::not_found(format!(
        "image with reference {name} was found but does not provide the specified platform ({}/{})",
        wanted.os, wanted.architecture
    )))
}

/// What the container asks for on its networks, by their names.
pub fn endpoint_settings(networking: &NetworkingConfig) -> BTreeMap<String, EndpointSettings> {
    let endpoints = networking.endpoints_config.iter();
    endpoints
        .map(|(name, settings)| {
            let settings = serde_json::from_value(settings.clone()).unwrap_or_default();
            (name.clone(), settings)
        })
        .collect()
}

/// What networking needs to know of a container that starts; its own name servers and their like before the engine's.
pub fn network_request(
    container: &Container,
    settings: &Settings,
    netns: PathBuf,
) -> ContainerNetworkRequest {
    let own_or = |own: &Option<Vec<String>>, key: &str| match own {
        Some(own) if !own.is_empty() => own.clone(),
        _ => settings.strings(key),
    };
    let (config, host) = (&container.config, &container.host_config);
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
        left_first: container.left_first_network,
        endpoints: endpoint_settings(&container.networking),
        exposed_ports: config.exposed_ports.keys().cloned().collect(),
        port_bindings: bindings.collect(),
        publish_all_ports: host.publish_all_ports,
        netns,
        dns: own_or(&host.dns, "dns"),
        dns_search: own_or(&host.dns_search, "dns-search"),
        dns_options: own_or(&host.dns_options, "dns-opts"),
        extra_hosts: host.extra_hosts.clone().unwrap_or_default(),
    }
}

/// The running container whose network this one is to share, if it is to.
fn network_peer(daemon: &Daemon, container: &Container) -> ApiResult<Option<Arc<Container>>> {
    let Some(peer) = container
        .host_config
        .network_mode
        .strip_prefix("container:")
    else {
        return Ok(None);
    };
    let peer = daemon.containers.get(peer).map_err(|error| {
        ApiError::internal(format!(
            "joining network namespace of container: {}",
            error.message
        ))
    })?;
    match peer.running {
        true => Ok(Some(peer)),
        false => Err(ApiError::conflict(format!(
            "cannot join network namespace of a non running container: container {} is {}",
            peer.name,
            peer.state.status.as_str()
        ))),
    }
}

/// Where the network namespace is that the container joins, once [`attach_network`] is done (`None`: the guest's own).
pub fn network_namespace(daemon: &Daemon, container: &Container) -> ApiResult<Option<PathBuf>> {
    if let Some(peer) = network_peer(daemon, container)? {
        return Ok(Some(PathBuf::from(format!("/proc/{}/ns/net", peer.pid))));
    }
    let own = container.host_config.network_mode != "host";
    Ok(own.then(|| netns_path(&container.id)))
}

/// Gives the container its network.
pub async fn attach_network(daemon: &Daemon, container: &Container) -> ApiResult<()> {
    if let Some(peer) = network_peer(daemon, container)? {
        return copy_network_files(daemon, &peer, container);
    }
    let namespace = match container.host_config.network_mode.as_str() {
        "host" => None,
        _ => Some(daemon.networks.create_netns(&container.id).await?),
    };
    let request = network_request(
        container,
        &daemon.config.settings(),
        namespace.clone().unwrap_or_default(),
    );
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
    let linked = links::host_lines(daemon, container);
    let hosts = daemon.networks.hosts(&request, &linked, &set);
    std::fs::write(folder.join("hosts"), hosts)?;
    std::fs::write(
        folder.join("hostname"),
        format!("{}\n", container.config.hostname),
    )?;
    Ok(())
}

/// Follows a change of a running container's networks in the files that it has of them. They are bind-mounted, so they are written in
/// place; `resolv.conf` only when the container has left it as it was.
pub fn update_network_files(
    daemon: &Daemon,
    before: (&Container, &EndpointSet),
    after: (&Container, &EndpointSet),
) -> ApiResult<()> {
    let folder = daemon.containers.folder(&after.0.id);
    let settings = daemon.config.settings();
    let request = network_request(after.0, &settings, PathBuf::new());
    let path = folder.join("hosts");
    let hosts = std::fs::read_to_string(&path)?;
    let updated = daemon
        .networks
        .updated_hosts(&hosts, &request, before.1, after.1);
    std::fs::write(path, updated)?;
    let path = folder.join("resolv.conf");
    let was = network_request(before.0, &settings, PathBuf::new());
    let (was, is) = (
        daemon.networks.resolv_conf(&was),
        daemon.networks.resolv_conf(&request),
    );
    if was != is && std::fs::read_to_string(&path)? == was {
        std::fs::write(path, is)?;
    }
    Ok(())
}

/// A container in another's network has the other's names as well.
fn copy_network_files(daemon: &Daemon, peer: &Container, container: &Container) -> ApiResult<()> {
    let (from, to) = (
        daemon.containers.folder(&peer.id),
        daemon.containers.folder(&container.id),
    );
    for name in ["resolv.conf", "hosts", "hostname"] {
        std::fs::copy(from.join(name), to.join(name))?;
    }
    Ok(())
}

pub async fn release_network(daemon: &Daemon, container: &Container) {
    daemon.networks.release(&container.id).await;
}

/// Mounts the container's volumes that are mounts, and says so.
pub async fn mount_volumes(daemon: &Daemon, container: &Container) -> ApiResult<()> {
    for point in volumes(container) {
        let attributes = [
            ("container", container.id.as_str()),
            ("destination", &point.destination),
            ("driver", &point.driver),
            ("propagation", &point.propagation),
            ("read/write", if point.rw { "true" } else { "false" }),
        ];
        daemon
            .volumes
            .mount(&point.name, &container.id, &attributes)
            .await?;
    }
    Ok(())
}

/// The other way round, at the container's end.
pub async fn unmount_volumes(daemon: &Daemon, container: &Container) {
    for point in volumes(container) {
        daemon.volumes.unmount(&point.name, &container.id).await;
    }
}

/// Of a container that was found running.
pub async fn hold_volumes(daemon: &Daemon, container: &Container) {
    for point in volumes(container) {
        daemon.volumes.holds(&point.name, &container.id).await;
    }
}

/// Makes (or finds) a volume; returns its name, and the folder that is bound.
pub async fn volume(
    daemon: &Daemon,
    name: &str,
    driver: &str,
    options: &super::config::Labels,
    labels: &super::config::Labels,
) -> ApiResult<(String, PathBuf)> {
    let volume = daemon
        .volumes
        .get_or_create(name, driver, options, labels)
        .await?;
    Ok((volume.name, volume.mountpoint))
}

fn volumes(container: &Container) -> impl Iterator<Item = &super::MountPoint> {
    container
        .mounts
        .iter()
        .filter(|point| point.kind == "volume")
}

/// Keeps the container's volumes from being removed.
pub fn reference_volumes(daemon: &Daemon, container: &Container) {
    for point in volumes(container) {
        daemon.volumes.reference(&point.name, &container.id);
    }
}

/// Lets the container's volumes go; anonymous ones that nobody else has are deleted when `remove`.
pub async fn release_volumes(daemon: &Daemon, container: &Container, remove: bool) {
    for point in volumes(container) {
        let unused = daemon.volumes.unreference(&point.name, &container.id);
        let anonymous = daemon
            .volumes
            .get(&point.name)
            .is_ok_and(|volume| volume.is_anonymous());
        if unused && remove && anonymous {
            let _ = daemon.volumes.remove(&point.name, true).await;
        }
    }
}

/// Fills new volumes with what the image has at their places.
pub async fn copy_up(daemon: &Daemon, container: &Container, rootfs: &Rootfs) -> ApiResult<()> {
    for point in volumes(container).filter(|point| point.copy_up) {
        daemon
            .volumes
            .copy_up(&point.name, &rootfs.path, &point.destination)
            .await?;
    }
    Ok(())
}
