//! Containers on networks: attach at start, release at the end, connect and disconnect in between.

use std::path::PathBuf;

use super::driver::{format_mac, forward_of, parse_mac, random_mac};
use super::ipam::{Family, Lease};
use super::model::{
    ContainerNetworkRequest, Endpoint, EndpointSet, EndpointSettings, Network, PortBinding,
    PortMap, Sandbox,
};
use super::parent::Parented;
use super::routes::{DefaultRoute, default_routes};
use super::{Networks, State, netns};
use crate::error::{ApiError, ApiResult};
use crate::identity::{new_id, short};

/// Docker's words before whatever went wrong while a container's network was set up.
const SETTING_UP: &str = "failed to set up container networking";

impl Networks {
    /// The networks that a container is to be on, with what it asked for there.
    pub(super) fn wanted_networks(
        &self,
        request: &ContainerNetworkRequest,
    ) -> ApiResult<Vec<(Network, EndpointSettings)>> {
        let mode = match request.mode.as_str() {
            "" | "default" => "bridge",
            mode => mode,
        };
        if mode.starts_with("container:") {
            return Ok(Vec::new());
        }
        let first = self.find(mode)?;
        let mut wanted = vec![(first.clone(), EndpointSettings::default())];
        if !first.has_endpoints() {
            return Ok(wanted);
        }
        for (name, settings) in &request.endpoints {
            let network = self.find(name)?;
            if network.id == first.id {
                wanted[0].1 = settings.clone();
            } else if network.has_endpoints() {
                wanted.push((network, settings.clone()));
            }
        }
        // Docker gives a container that has left all its networks the first one again.
        if request.left_first && wanted.len() > 1 {
            wanted.remove(0);
        }
        Ok(wanted)
    }

    /// Plugs a container's namespace into its networks and publishes its ports. All or nothing.
    pub async fn attach(&self, request: &ContainerNetworkRequest) -> ApiResult<EndpointSet> {
        self.try_attach(request)
            .await
            .map_err(|error| error.context(SETTING_UP))
    }

    async fn try_attach(&self, request: &ContainerNetworkRequest) -> ApiResult<EndpointSet> {
        let wanted = self.wanted_networks(request)?;
        let Some((first, settings)) = wanted.first() else {
            return Ok(EndpointSet::default());
        };
        let mut sandbox = Sandbox {
            container_id: request.id.clone(),
            container_name: request.name.clone(),
            sandbox_id: new_id(),
            netns: request.netns.clone(),
            dns: request.dns.clone(),
            ..Sandbox::default()
        };
        if !first.has_endpoints() {
            sandbox.endpoints.push(bare_endpoint(first, settings));
            self.save_sandbox(sandbox)?;
            self.publish_event("connect", first, Some(&request.id));
            return Ok(self.endpoints(&request.id).unwrap_or_default());
        }
        self.prepared().await?;
        self.forget_leftover(&request.id).await;
        self.save_sandbox(sandbox)?;
        let done = self.attach_all(request, &wanted).await;
        if done.is_err() {
            self.unplug_all(&request.id).await;
        }
        done
    }

    async fn attach_all(
        &self,
        request: &ContainerNetworkRequest,
        wanted: &[(Network, EndpointSettings)],
    ) -> ApiResult<EndpointSet> {
        let hostname = [request.name.as_str(), &request.hostname];
        for (network, settings) in wanted {
            self.reserve_endpoint(&request.id, network, settings, &hostname)?;
        }
        let routes = self.default_routes(&request.id);
        for (network, _) in wanted {
            self.plug(&request.id, network, &routes).await?;
        }
        let outward = wanted.iter().map(|(network, _)| network);
        if let Some(network) = outward
            .clone()
            .find(|network| network.is_bridge() && !network.internal)
        {
            self.publish_ports(request, network).await?;
        }
        self.endpoints(&request.id)
            .ok_or_else(|| ApiError::internal("the container ended while it was attached"))
    }

    /// Addresses and names of an endpoint, recorded before the kernel has it.
    fn reserve_endpoint(
        &self,
        container_id: &str,
        network: &Network,
        settings: &EndpointSettings,
        names: &[&str],
    ) -> ApiResult<()> {
        let mut state = self.state();
        let endpoint = new_endpoint(&mut state, container_id, network, settings, names)?;
        let sandbox = state
            .sandboxes
            .get_mut(container_id)
            .ok_or_else(|| ApiError::conflict("the container is not running"))?;
        sandbox.endpoints.push(endpoint);
        Ok(self.inner.store.save_sandbox(sandbox)?)
    }

    /// Makes a reserved endpoint in the kernel, with those of `routes` that lead through it; takes it back when that fails.
    async fn plug(
        &self,
        container_id: &str,
        network: &Network,
        routes: &[DefaultRoute],
    ) -> ApiResult<()> {
        let Some((endpoint, namespace)) = self.endpoint_on(container_id, network) else {
            return Err(ApiError::conflict("the container is not running"));
        };
        let through = routes
            .iter()
            .filter(|route| route.link == endpoint.guest_link);
        let (on, through) = (network.clone(), through.cloned().collect());
        let path = namespace.clone();
        let done = self
            .blocking(move |kernel| kernel.plug(&on, &endpoint, &path, through))
            .await;
        if let Err(error) = done {
            self.forget_endpoint(container_id, &network.id);
            return Err(error);
        }
        if network.has_name_service() {
            self.start_name_service(container_id, &namespace).await;
        }
        self.publish_event("connect", network, Some(container_id));
        Ok(())
    }

    fn endpoint_on(&self, container_id: &str, network: &Network) -> Option<(Endpoint, PathBuf)> {
        let state = self.state();
        let sandbox = state.sandboxes.get(container_id)?;
        let mut ends = sandbox.endpoints.iter();
        let endpoint = ends.find(|end| end.network_id == network.id)?;
        Some((endpoint.clone(), sandbox.netns.clone()))
    }

    /// What the container's default routes are to be.
    fn default_routes(&self, container_id: &str) -> Vec<DefaultRoute> {
        let state = self.state();
        let sandbox = state.sandboxes.get(container_id);
        let ends = sandbox.iter().flat_map(|sandbox| &sandbox.endpoints);
        default_routes(ends.filter_map(|end| Some((state.networks.get(&end.network_id)?, end))))
    }

    /// Moves the default routes of a running container whose networks have changed. What the container changed itself stays, unless
    /// another network is to be the way out.
    async fn move_default_routes(
        &self,
        container_id: &str,
        before: &[DefaultRoute],
    ) -> ApiResult<()> {
        let after = self.default_routes(container_id);
        let netns = self
            .state()
            .sandboxes
            .get(container_id)
            .map(|sandbox| sandbox.netns.clone());
        let Some(netns) = netns.filter(|_| after != before) else {
            return Ok(());
        };
        let changed = after
            .iter()
            .filter(|route| !before.contains(route))
            .cloned()
            .collect();
        let gone = before.iter().map(|route| route.family);
        let gone = gone.filter(|family| after.iter().all(|route| route.family != *family));
        let gone = gone.collect();
        self.blocking(move |kernel| kernel.set_default_routes(&netns, changed, gone))
            .await
    }

    /// What an attachment that a crash cut short left behind, except for the namespace, which is new by now.
    async fn forget_leftover(&self, id: &str) {
        if let Some(sandbox) = self.state().sandboxes.get_mut(id) {
            sandbox.netns.clear();
        }
        self.unplug_all(id).await;
    }

    fn save_sandbox(&self, sandbox: Sandbox) -> ApiResult<()> {
        self.inner.store.save_sandbox(&sandbox)?;
        self.state()
            .sandboxes
            .insert(sandbox.container_id.clone(), sandbox);
        Ok(())
    }

    fn forget_endpoint(&self, container_id: &str, network_id: &str) -> Option<Endpoint> {
        let mut state = self.state();
        let sandbox = state.sandboxes.get_mut(container_id)?;
        let at = sandbox
            .endpoints
            .iter()
            .position(|end| end.network_id == network_id)?;
        let endpoint = sandbox.endpoints.remove(at);
        let _ = self.inner.store.save_sandbox(sandbox);
        release_addresses(&mut state, &endpoint);
        Some(endpoint)
    }

    /// Takes a container off its networks and lets its namespace go. Does nothing for one that has none.
    pub async fn release(&self, id: &str) {
        let Some(sandbox) = self.unplug_all(id).await else {
            return;
        };
        tracing::debug!(container = id, "network released");
        drop(sandbox);
    }

    /// Ends everything a container has; returns what it was.
    async fn unplug_all(&self, id: &str) -> Option<Sandbox> {
        let sandbox = {
            let mut state = self.state();
            state.name_services.remove(id);
            state.sandboxes.remove(id)?
        };
        self.withdraw_ports(&sandbox).await;
        let forwards: Vec<_> = sandbox.ports.iter().filter_map(forward_of).collect();
        let namespace = sandbox.netns.clone();
        // The links end with the namespace, asynchronously, which is much quicker than deleting them one by one.
        let done = self
            .blocking(move |kernel| {
                kernel.unforward(&forwards);
                if !namespace.as_os_str().is_empty() {
                    netns::remove(&namespace);
                }
                Ok(())
            })
            .await;
        if let Err(error) = done {
            tracing::warn!(%error, container = id, "releasing the network");
        }
        let networks: Vec<Network> = {
            let mut state = self.state();
            for endpoint in &sandbox.endpoints {
                release_addresses(&mut state, endpoint);
            }
            let on = sandbox
                .endpoints
                .iter()
                .map(|endpoint| &endpoint.network_id);
            on.filter_map(|id| state.networks.get(id).cloned())
                .collect()
        };
        for network in &networks {
            self.publish_event("disconnect", network, Some(id));
        }
        self.inner.store.forget_sandbox(id);
        Some(sandbox)
    }

    /// Adds a running container to a network.
    pub async fn connect(
        &self,
        container_id: &str,
        names: &[&str],
        network: &Network,
        settings: &EndpointSettings,
    ) -> ApiResult<EndpointSet> {
        {
            let state = self.state();
            let sandbox = state.sandboxes.get(container_id).ok_or_else(|| {
                ApiError::conflict(format!("container {container_id} is not running"))
            })?;
            let mut ends = sandbox.endpoints.iter();
            if ends.any(|end| end.network_id == network.id) {
                return Err(ApiError::forbidden(format!(
                    "endpoint with name {} already exists in network {}",
                    sandbox.container_name, network.name
                )));
            }
        }
        let before = self.default_routes(container_id);
        self.reserve_endpoint(container_id, network, settings, names)?;
        self.plug(container_id, network, &[]).await?;
        if let Err(error) = self.move_default_routes(container_id, &before).await {
            // All or nothing: the caller does not record a network that was refused.
            if let Err(other) = self.disconnect(container_id, network).await {
                tracing::warn!(error = %other, container_id, "taking a network back");
            }
            return Err(error);
        }
        self.endpoints(container_id)
            .ok_or_else(|| ApiError::conflict("the container has ended"))
    }

    /// Takes a running container off one network.
    pub async fn disconnect(&self, container_id: &str, network: &Network) -> ApiResult<()> {
        let missing = || {
            ApiError::internal(format!(
                "container {container_id} is not connected to network {}",
                network.name
            ))
        };
        let before = self.default_routes(container_id);
        let (_, netns) = self
            .endpoint_on(container_id, network)
            .ok_or_else(missing)?;
        let endpoint = self
            .forget_endpoint(container_id, &network.id)
            .ok_or_else(missing)?;
        let on = network.clone();
        self.blocking(move |kernel| kernel.unplug(&on, &endpoint, &netns))
            .await?;
        self.move_default_routes(container_id, &before).await?;
        self.publish_event("disconnect", network, Some(container_id));
        Ok(())
    }

    /// What a container has now; `None` when it is on no network of its own.
    pub fn endpoints(&self, container_id: &str) -> Option<EndpointSet> {
        let state = self.state();
        let sandbox = state.sandboxes.get(container_id)?;
        let networks = sandbox.endpoints.iter().filter_map(|endpoint| {
            let network = state.networks.get(&endpoint.network_id)?;
            Some((network.name.clone(), shown(endpoint, network)))
        });
        Some(EndpointSet {
            sandbox_id: sandbox.sandbox_id.clone(),
            sandbox_key: sandbox_key(sandbox),
            networks: networks.collect(),
            ports: shown_ports(sandbox),
        })
    }

    /// Follows `docker rename`: the name service answers to the new name.
    pub fn rename(&self, container_id: &str, name: &str) {
        let mut state = self.state();
        let Some(sandbox) = state.sandboxes.get_mut(container_id) else {
            return;
        };
        let old = std::mem::replace(&mut sandbox.container_name, name.to_owned());
        for known in sandbox
            .endpoints
            .iter_mut()
            .flat_map(|endpoint| &mut endpoint.names)
        {
            if *known == old {
                name.clone_into(known);
            }
        }
        let _ = self.inner.store.save_sandbox(sandbox);
    }
}

fn release_addresses(state: &mut State, endpoint: &Endpoint) {
    if let Some(pools) = state.pools.get_mut(&endpoint.network_id) {
        for address in endpoint.addresses() {
            pools.release(address);
        }
    }
}

fn new_endpoint(
    state: &mut State,
    container_id: &str,
    network: &Network,
    settings: &EndpointSettings,
    names: &[&str],
) -> ApiResult<Endpoint> {
    let parented = Parented::of(network)
        .transpose()
        .map_err(ApiError::internal)?;
    let own_mac = parented.as_ref().is_none_or(Parented::has_own_mac);
    let mac = match settings.mac_address.as_str() {
        "" if own_mac => format_mac(random_mac()),
        "" => String::new(),
        text if own_mac => parse_mac(text)
            .map(format_mac)
            .ok_or_else(|| ApiError::bad_request(format!("invalid MAC address: {text}")))?,
        _ => {
            return Err(ApiError::internal(format!(
                "failed to create endpoint {} on network {}: {} interfaces do not support custom mac address assignment",
                names.first().unwrap_or(&container_id),
                network.name,
                network.driver
            )));
        }
    };
    let internal = match &parented {
        Some(parented) => parented.is_internal(network),
        None => network.internal,
    };
    let (v4, v6) = take_addresses(state, network, settings, internal)?;
    let link = state.sandboxes.get_mut(container_id).map_or(0, |sandbox| {
        sandbox.next_link += 1;
        sandbox.next_link - 1
    });
    let endpoint_id = new_id();
    Ok(Endpoint {
        network_id: network.id.clone(),
        host_link: format!("veth{}", &endpoint_id[..7]),
        guest_link: settings
            .link_name()
            .map_or_else(|| format!("eth{link}"), str::to_owned),
        endpoint_id,
        v4,
        v6,
        routed: !internal && parented.is_some_and(|parented| parented.is_routed()),
        mac,
        names: dns_names(container_id, settings, names),
        asked: settings.clone(),
    })
}

/// An address of each family that the network has: the wanted one, or any. All or none.
fn take_addresses(
    state: &mut State,
    network: &Network,
    settings: &EndpointSettings,
    internal: bool,
) -> ApiResult<(Option<Lease>, Option<Lease>)> {
    let asked = settings.ipam_config.clone().unwrap_or_default();
    let pools = state
        .pools
        .get_mut(&network.id)
        .ok_or_else(|| ApiError::not_found(format!("network {} not found", network.name)))?;
    let mut take = |family: Family, text: &str| {
        let wanted = match text {
            "" => None,
            text => {
                let address: Option<std::net::IpAddr> = text.parse().ok();
                let address = address.filter(|address| Family::of(*address) == family);
                Some(address.ok_or_else(|| {
                    ApiError::bad_request(format!("invalid {family} address: {text}"))
                })?)
            }
        };
        let lease = pools
            .take(family, wanted)
            .map_err(|error| ApiError::forbidden(error.to_string()))?;
        Ok::<_, ApiError>(lease.map(|lease| Lease {
            gateway: lease.gateway.filter(|_| !internal),
            ..lease
        }))
    };
    let v4 = take(Family::V4, &asked.ipv4_address)?;
    match take(Family::V6, &asked.ipv6_address) {
        Ok(v6) => Ok((v4, v6)),
        Err(error) => {
            if let Some(lease) = v4 {
                pools.release(lease.address);
            }
            Err(error)
        }
    }
}

/// Docker's order: container name, aliases, short id, host name; each once.
fn dns_names(container_id: &str, settings: &EndpointSettings, names: &[&str]) -> Vec<String> {
    let (name, rest) = names
        .split_first()
        .map_or(("", [].as_slice()), |(n, r)| (*n, r));
    let aliases = settings.aliases.iter().flatten().map(String::as_str);
    let all = std::iter::once(name)
        .chain(aliases)
        .chain(std::iter::once(short(container_id)))
        .chain(rest.iter().copied());
    let mut unique: Vec<String> = Vec::new();
    for name in all.filter(|name| !name.is_empty()) {
        if !unique.iter().any(|known| known == name) {
            unique.push(name.to_owned());
        }
    }
    unique
}

fn shown(endpoint: &Endpoint, network: &Network) -> EndpointSettings {
    let text = |address: Option<std::net::IpAddr>| {
        address.map_or_else(String::new, |address| address.to_string())
    };
    let (v4, v6) = (endpoint.v4, endpoint.v6);
    EndpointSettings {
        mac_address: endpoint.mac.clone(),
        network_id: network.id.clone(),
        endpoint_id: endpoint.endpoint_id.clone(),
        gateway: text(v4.and_then(|lease| lease.gateway)),
        ip_address: text(v4.map(|lease| lease.address)),
        ip_prefix_len: v4.map_or(0, |lease| lease.prefix),
        ipv6_gateway: text(v6.and_then(|lease| lease.gateway)),
        global_ipv6_address: text(v6.map(|lease| lease.address)),
        global_ipv6_prefix_len: v6.map_or(0, |lease| lease.prefix),
        dns_names: network.has_name_service().then(|| endpoint.names.clone()),
        ..endpoint.asked.clone()
    }
}

/// Containers on the guest's own network share one key.
fn sandbox_key(sandbox: &Sandbox) -> String {
    match sandbox.netns.as_os_str().is_empty() {
        true => netns::path("default").to_string_lossy().into_owned(),
        false => sandbox.netns.to_string_lossy().into_owned(),
    }
}

fn shown_ports(sandbox: &Sandbox) -> PortMap {
    let mut shown: PortMap = sandbox
        .exposed_only
        .iter()
        .map(|port| (port.clone(), None))
        .collect();
    for port in &sandbox.ports {
        let key = format!("{}/{}", port.container_port, port.protocol);
        shown
            .entry(key)
            .or_default()
            .get_or_insert_default()
            .push(PortBinding {
                host_ip: port.host_ip.clone(),
                host_port: port.host_port.to_string(),
            });
    }
    shown
}

/// The end of a container on `none` or `host`: there to be shown.
fn bare_endpoint(network: &Network, settings: &EndpointSettings) -> Endpoint {
    Endpoint {
        network_id: network.id.clone(),
        endpoint_id: new_id(),
        asked: settings.clone(),
        ..Endpoint::default()
    }
}
