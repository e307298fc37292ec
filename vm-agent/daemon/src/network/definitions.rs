//! Creating and removing networks.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::default_pools::DefaultPools;
use super::ipam::{Allocation, Family, IpamError, Pools, Subnet};
use super::ipam_config::{self, Surroundings};
use super::model::{self, Ipam, IpamConfig, Labels, Network, null_default};
use super::parent::Parented;
use super::{Networks, State};
use crate::error::{ApiError, ApiResult};
use crate::filter::go_boolean;
use crate::identity::{new_id, short};

/// `POST /networks/create`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreateNetwork {
    #[serde(deserialize_with = "null_default")]
    pub name: String,
    #[serde(deserialize_with = "null_default")]
    pub driver: String,
    #[serde(deserialize_with = "null_default")]
    pub internal: bool,
    #[serde(deserialize_with = "null_default")]
    pub attachable: bool,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: Option<bool>,
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: Option<bool>,
    #[serde(deserialize_with = "null_default")]
    pub scope: String,
    #[serde(deserialize_with = "null_default")]
    pub ingress: bool,
    #[serde(deserialize_with = "null_default")]
    pub config_only: bool,
    pub config_from: Option<ConfigReference>,
    #[serde(rename = "IPAM")]
    pub ipam: Option<Ipam>,
    #[serde(deserialize_with = "null_default")]
    pub options: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_default")]
    pub labels: Labels,
}

/// `ConfigFrom`: another network, whose settings are to be taken.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConfigReference {
    #[serde(deserialize_with = "null_default")]
    pub network: String,
}

impl Networks {
    /// `none`, `host` and `bridge`, which keep their ids for the life of the data root.
    pub(super) fn define_predefined(&self) -> ApiResult<()> {
        let mut state = self.state();
        for network in state.networks.values_mut() {
            network.allocate_from_config();
        }
        let mut added = false;
        for (name, driver) in [("none", "null"), ("host", "host"), ("bridge", "bridge")] {
            if state.networks.values().any(|network| network.name == name) {
                continue;
            }
            let mut network = blank(name, driver);
            if driver == "bridge" {
                let (config, mut allocation) = self.default_bridge_subnet(&state)?;
                // Docker counts it as given: an address there is refused for the bridge's sake alone.
                allocation.configured = true;
                network.ipam.config = Some(vec![config]);
                network.allocated = vec![allocation];
                network.options = Network::default_bridge_options("0.0.0.0");
            }
            state.networks.insert(network.id.clone(), network);
            added = true;
        }
        added |= self.follow_bridge_options(&mut state)?;
        added |= self.follow_ipv6(&mut state)?;
        if added {
            self.inner.store.save_networks(&state.networks)?;
        }
        Ok(())
    }

    /// daemon.json's `bip`, else the first free pool.
    fn default_bridge_subnet(&self, state: &State) -> ApiResult<(IpamConfig, Allocation)> {
        let settings = self.inner.config.settings();
        if let Some(bip) = settings.string("bip") {
            let subnet: Subnet = bip
                .parse()
                .map_err(|error: IpamError| ApiError::bad_request(error.to_string()))?;
            let gateway = bip.split('/').next().and_then(|text| text.parse().ok());
            return Ok(ipam_config::chosen(subnet, gateway));
        }
        let in_use = self.subnets_in_use(state);
        let subnet = self.default_pools()?.free(Family::V4, &in_use);
        let subnet = subnet.map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(ipam_config::chosen(subnet, Some(subnet.first_host())))
    }

    fn default_pools(&self) -> ApiResult<DefaultPools> {
        let settings = self.inner.config.settings();
        let configured = settings.typed("default-address-pools")?;
        Ok(DefaultPools::new(&self.inner.engine_id, configured))
    }

    /// Gives the default bridge IPv6, or takes it away, as daemon.json's `ipv6` and `fixed-cidr-v6` say. Whether it changed.
    fn follow_ipv6(&self, state: &mut State) -> ApiResult<bool> {
        let settings = self.inner.config.settings();
        let wanted = match (
            settings.flag("ipv6", false),
            settings.string("fixed-cidr-v6"),
        ) {
            (false, _) => None,
            (true, Some(text)) => {
                let fixed: Result<Subnet, IpamError> = text.parse();
                Some(fixed.map_err(|error| ApiError::bad_request(error.to_string()))?)
            }
            (true, None) => {
                let others = state
                    .networks
                    .values()
                    .filter(|network| network.name != "bridge");
                let in_use: Vec<Subnet> = others.flat_map(Network::subnets).collect();
                let own = self.default_pools()?.free(Family::V6, &in_use);
                Some(own.map_err(|error| ApiError::internal(error.to_string()))?)
            }
        };
        let Some(bridge) = state
            .networks
            .values_mut()
            .find(|network| network.name == "bridge")
        else {
            return Ok(false);
        };
        let is_v6 = |subnet: &Subnet| subnet.family() == Family::V6;
        let had = bridge.subnets().find(is_v6);
        // Its own subnet stays when none is named.
        let stays = settings.string("fixed-cidr-v6").is_none() && had.is_some() && wanted.is_some();
        if had == wanted || stays {
            return Ok(false);
        }
        bridge
            .allocated
            .retain(|allocation| !is_v6(&allocation.subnet));
        let configs = bridge.ipam.config.get_or_insert_default();
        configs.retain(|config| !config.subnet.parse().is_ok_and(|subnet| is_v6(&subnet)));
        bridge.enable_ipv6 = wanted.is_some();
        if let Some(subnet) = wanted {
            let (config, mut allocation) = ipam_config::chosen(subnet, Some(subnet.first_host()));
            allocation.configured = true;
            configs.push(config);
            bridge.allocated.push(allocation);
        }
        Ok(true)
    }

    /// Of our networks and of the machine's own links (except our bridges, which are the former).
    fn subnets_in_use(&self, state: &State) -> Vec<Subnet> {
        let ours = state.networks.values().flat_map(Network::subnets);
        let links = self.inner.kernel.subnets_in_use().unwrap_or_default();
        // docker0 of an earlier data root is taken over, so its own subnet is no hindrance.
        let first = Subnet::new(std::net::IpAddr::from([172, 17, 0, 0]), 16);
        let links = links
            .into_iter()
            .map(|(address, prefix)| Subnet::new(address, prefix))
            .filter(|subnet| *subnet != first);
        ours.chain(links).collect()
    }

    /// Address pools as the networks and the endpoints of running containers have them.
    pub(super) fn fill_pools(&self) {
        let mut state = self.state();
        let networks = state.networks.values();
        let pools = networks.map(|network| (network.id.clone(), Pools::new(&network.allocated)));
        state.pools = pools.collect();
        let endpoints = state
            .sandboxes
            .values()
            .flat_map(|sandbox| &sandbox.endpoints);
        let taken: Vec<_> = endpoints
            .flat_map(|end| {
                end.addresses()
                    .map(|address| (end.network_id.clone(), address))
            })
            .collect();
        for (network, address) in taken {
            if let Some(pools) = state.pools.get_mut(&network) {
                pools.mark(address);
            }
        }
    }

    pub(super) async fn create(&self, request: CreateNetwork) -> ApiResult<Network> {
        check_request(&request)?;
        self.prepared().await?;
        let network = {
            let mut state = self.state();
            if state
                .networks
                .values()
                .any(|network| network.name == request.name)
            {
                let name = request.name;
                return Err(ApiError::conflict(format!(
                    "network with name {name} already exists"
                )));
            }
            let network = self.define(&state, request)?;
            let pools = Pools::new(&network.allocated);
            state.pools.insert(network.id.clone(), pools);
            state.networks.insert(network.id.clone(), network.clone());
            self.inner.store.save_networks(&state.networks)?;
            network
        };
        let made = network.clone();
        if let Err(error) = self
            .blocking(move |kernel| kernel.create_network(&made))
            .await
        {
            self.forget(&network)?;
            return Err(error);
        }
        self.publish_event("create", &network, None);
        Ok(network)
    }

    fn define(&self, state: &State, request: CreateNetwork) -> ApiResult<Network> {
        let families = families(&request)?;
        let driver = match request.driver.as_str() {
            "" | "default" => "bridge",
            driver => driver,
        };
        let mut network = blank(&request.name, driver);
        network.enable_ipv4 = families.contains(&Family::V4);
        network.enable_ipv6 = families.contains(&Family::V6);
        network.internal = request.internal;
        network.attachable = request.attachable;
        network.options = request.options;
        network.labels = request.labels;
        let parented = Parented::of(&network)
            .transpose()
            .map_err(ApiError::internal)?;
        if let Some(parented) = &parented {
            check_passthru(state, parented)?;
        }
        let with_gateways = parented
            .is_none_or(|parented| !parented.is_internal(&network) && !parented.is_routed());
        let asked = request.ipam.unwrap_or_default();
        let others: Vec<Subnet> = state.networks.values().flat_map(Network::subnets).collect();
        let around = Surroundings {
            pools: &self.default_pools()?,
            networks: &others,
            in_use: &self.subnets_in_use(state),
        };
        let configs = asked.config.as_deref().unwrap_or_default();
        let done = ipam_config::complete(configs, &families, with_gateways, &around)?;
        network.allocated = done.allocated;
        if network.is_bridge() {
            check_one_subnet_each(&network)?;
        }
        network.ipam = Ipam {
            config: Some(done.shown),
            ..asked
        };
        if network.ipam.driver.is_empty() {
            network.ipam.driver = "default".to_owned();
        }
        Ok(network)
    }

    fn forget(&self, network: &Network) -> ApiResult<()> {
        let mut state = self.state();
        state.networks.remove(&network.id);
        state.pools.remove(&network.id);
        Ok(self.inner.store.save_networks(&state.networks)?)
    }

    /// Removes a network that no running container is on.
    pub(super) async fn remove(&self, name: &str) -> ApiResult<()> {
        let network = self.find(name)?;
        if network.is_predefined() {
            return Err(ApiError::forbidden(format!(
                "{} is a pre-defined network and cannot be removed",
                network.name
            )));
        }
        let busy = self.active_endpoints(&network);
        if !busy.is_empty() {
            return Err(ApiError::forbidden(format!(
                "error while removing network: network {} has active endpoints ({})",
                network.name,
                busy.join(", ")
            )));
        }
        self.prepared().await?;
        self.forget(&network)?;
        let gone = network.clone();
        let shared = self.shares_parent(&network);
        self.blocking(move |kernel| kernel.remove_network(&gone, shared))
            .await?;
        self.publish_event("destroy", &network, None);
        Ok(())
    }

    /// Whether another network stands on the same link of the machine.
    fn shares_parent(&self, network: &Network) -> bool {
        let parent = |network: &Network| Some(Parented::of(network)?.ok()?.parent);
        let (own, state) = (parent(network), self.state());
        let mut others = state.networks.values();
        own.is_some() && others.any(|other| other.id != network.id && parent(other) == own)
    }

    /// `name:"c2" id:"5f84088117c6"` for each container on the network.
    fn active_endpoints(&self, network: &Network) -> Vec<String> {
        let state = self.state();
        let mut busy = Vec::new();
        for sandbox in state.sandboxes.values() {
            let ends = sandbox
                .endpoints
                .iter()
                .filter(|end| end.network_id == network.id);
            busy.extend(ends.map(|end| {
                format!(
                    "name:{:?} id:{:?}",
                    sandbox.container_name,
                    short(&end.endpoint_id)
                )
            }));
        }
        busy.sort();
        busy
    }

    pub(super) fn is_used(&self, network: &Network) -> bool {
        !self.active_endpoints(network).is_empty()
    }
}

pub(super) fn blank(name: &str, driver: &str) -> Network {
    Network {
        name: name.to_owned(),
        id: new_id(),
        created: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true),
        scope: "local".to_owned(),
        driver: driver.to_owned(),
        enable_ipv4: true,
        enable_ipv6: false,
        ipam: Ipam::default(),
        internal: false,
        attachable: false,
        ingress: false,
        options: BTreeMap::new(),
        labels: Labels::new(),
        allocated: Vec::new(),
    }
}

/// A link that one macvlan network has whole is no other's.
fn check_passthru(state: &State, wanted: &Parented) -> ApiResult<()> {
    for network in state.networks.values() {
        let Some(Ok(other)) = Parented::of(network) else {
            continue;
        };
        if other.parent != wanted.parent || network.driver != "macvlan" || !wanted.has_own_mac() {
            continue;
        }
        let (id, parent) = (&network.id, &wanted.parent);
        if wanted.is_passthru() {
            return Err(ApiError::internal(format!(
                "cannot use mode passthru, macvlan network {id} is already using parent interface {parent}"
            )));
        }
        if other.is_passthru() {
            return Err(ApiError::internal(format!(
                "macvlan network {id} is already using parent interface {parent} in mode passthru"
            )));
        }
    }
    Ok(())
}

/// A bridge has one address of each family.
fn check_one_subnet_each(network: &Network) -> ApiResult<()> {
    let too_many = Family::BOTH.iter().any(|family| {
        let of_family = network
            .subnets()
            .filter(|subnet| subnet.family() == *family);
        of_family.count() > 1
    });
    if too_many {
        return Err(ApiError::forbidden(
            "bridge driver doesn't support multiple subnets",
        ));
    }
    Ok(())
}

/// The families that a network is to have: as the request says, else as its options do.
fn families(request: &CreateNetwork) -> ApiResult<Vec<Family>> {
    let wanted = |told: Option<bool>, key: &str, usual: bool| {
        let option = request.options.get(key);
        match (told, option) {
            (Some(told), _) => Ok(told),
            (None, None) => Ok(usual),
            (None, Some(text)) => go_boolean(text).ok_or_else(|| {
                ApiError::bad_request(format!("driver-opt {key:?} is not a valid bool"))
            }),
        }
    };
    let mut families = Vec::new();
    if wanted(request.enable_ipv4, model::ENABLE_IPV4, true)? {
        families.push(Family::V4);
    }
    if wanted(request.enable_ipv6, model::ENABLE_IPV6, false)? {
        families.push(Family::V6);
    }
    if families.is_empty() {
        return Err(ApiError::bad_request("IPv4 or IPv6 must be enabled"));
    }
    Ok(families)
}

fn check_request(request: &CreateNetwork) -> ApiResult<()> {
    let name = request.name.as_str();
    // Any other name will do: Docker has no rule for them.
    if name.trim().is_empty() {
        return Err(ApiError::bad_request("invalid name: name is empty"));
    }
    if matches!(name, "bridge" | "host" | "none" | "default") {
        return Err(ApiError::forbidden(format!(
            "operation is not permitted on predefined {name} network "
        )));
    }
    match request.driver.as_str() {
        "" | "default" | "bridge" | "macvlan" | "ipvlan" => {}
        "overlay" => return Err(ApiError::forbidden(crate::system::NO_SWARM)),
        only @ ("host" | "null") => {
            return Err(ApiError::forbidden(format!(
                "only one instance of {only:?} network is allowed"
            )));
        }
        other => return Err(ApiError::not_found(format!("plugin {other:?} not found"))),
    }
    let ipam = request.ipam.as_ref().map_or("", |ipam| &ipam.driver);
    if !matches!(ipam, "" | "default") {
        return Err(ApiError::not_found(format!("plugin {ipam:?} not found")));
    }
    let families = families(request)?;
    let configs = request
        .ipam
        .as_ref()
        .and_then(|ipam| ipam.config.as_deref());
    ipam_config::check(configs.unwrap_or_default(), families.contains(&Family::V6))?;
    check_scope(request)?;
    if matches!(request.driver.as_str(), "" | "default" | "bridge") {
        check_options(&request.options)?;
    }
    Ok(())
}

/// What only a swarm has, and configuration networks.
fn check_scope(request: &CreateNetwork) -> ApiResult<()> {
    if request.scope == "swarm" {
        return Err(ApiError::forbidden(
            "cannot create a swarm scoped network when swarm is not active",
        ));
    }
    if request.ingress {
        return Err(ApiError::forbidden(
            "Ingress network can only be global scope network",
        ));
    }
    let from = request
        .config_from
        .as_ref()
        .map_or("", |from| &from.network);
    match (from, request.config_only) {
        ("", false) => Ok(()),
        ("", true) => Err(ApiError::not_implemented(
            "this engine has no configuration networks",
        )),
        (_, true) => Err(ApiError::forbidden(
            "a configuration network cannot depend on another configuration network",
        )),
        (from, false) => Err(ApiError::not_found(format!(
            "configuration network {from:?} does not exist"
        ))),
    }
}

/// The bridge driver's options, in the words of Go's parsers.
fn check_options(options: &BTreeMap<String, String>) -> ApiResult<()> {
    for (key, value) in options {
        let wrong = match key.as_str() {
            model::MTU if value.parse::<u32>().is_err() => {
                format!("strconv.Atoi: parsing {value:?}: invalid syntax")
            }
            model::ICC | model::MASQUERADE if go_boolean(value).is_none() => {
                format!("strconv.ParseBool: parsing {value:?}: invalid syntax")
            }
            model::GATEWAY_MODE_IPV4 | model::GATEWAY_MODE_IPV6 if !is_gateway_mode(value) => {
                format!("unknown gateway mode {value}")
            }
            model::HOST_BINDING if value.parse::<std::net::IpAddr>().is_err() => {
                "nil ip".to_owned()
            }
            _ => continue,
        };
        return Err(ApiError::bad_request(format!(
            "failed to parse {key} value: {value} ({wrong})"
        )));
    }
    Ok(())
}

/// Docker's gateway modes. All of them are `nat` here: the host carries connections, so nothing outside routes to a bridge.
fn is_gateway_mode(text: &str) -> bool {
    matches!(text, "nat" | "nat-unprotected" | "routed" | "isolated")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_drivers_are_checked_in_dockers_words() {
        for (name, driver, message) in [
            (
                "bridge",
                "",
                "operation is not permitted on predefined bridge network ",
            ),
            ("n", "foo", "plugin \"foo\" not found"),
            (
                "n",
                "host",
                "only one instance of \"host\" network is allowed",
            ),
        ] {
            let request = CreateNetwork {
                name: name.into(),
                driver: driver.into(),
                ..Default::default()
            };
            assert_eq!(check_request(&request).unwrap_err().message, message);
        }
        let fine = CreateNetwork {
            name: "my_net.1".into(),
            ..Default::default()
        };
        assert!(check_request(&fine).is_ok());
    }

    #[test]
    fn options_are_checked_in_dockers_words() {
        let told = |key: &str, value: &str| {
            let options = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            check_options(&options).map_err(|error| error.message)
        };
        assert!(told(model::GATEWAY_MODE_IPV6, "routed").is_ok());
        assert_eq!(
            told(model::GATEWAY_MODE_IPV6, "nonsense"),
            Err(
                "failed to parse com.docker.network.bridge.gateway_mode_ipv6 value: nonsense (unknown gateway mode nonsense)"
                    .to_owned()
            )
        );
        assert!(told(model::ICC, "perhaps").is_err());
    }

    #[test]
    fn families_are_the_requests_then_the_options() {
        let of = |ipv4, ipv6, option: &str| {
            let mut request = CreateNetwork {
                enable_ipv4: ipv4,
                enable_ipv6: ipv6,
                ..Default::default()
            };
            if !option.is_empty() {
                request.options = [(model::ENABLE_IPV6.to_owned(), option.to_owned())].into();
            }
            families(&request).map_err(|error| error.message)
        };
        assert_eq!(of(None, None, ""), Ok(vec![Family::V4]));
        assert_eq!(of(None, Some(true), ""), Ok(Family::BOTH.to_vec()));
        assert_eq!(of(Some(false), Some(true), ""), Ok(vec![Family::V6]));
        assert_eq!(of(None, None, "true"), Ok(Family::BOTH.to_vec()));
        assert_eq!(of(None, Some(false), "true"), Ok(vec![Family::V4]));
        let neither = of(Some(false), None, "").unwrap_err();
        assert_eq!(neither, "IPv4 or IPv6 must be enabled");
        assert!(of(None, None, "perhaps").is_err());
    }
}
