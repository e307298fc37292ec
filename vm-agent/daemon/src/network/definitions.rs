//! Creating and removing networks.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::ipam::{self, AddressPool, IpamError, Subnet};
use super::model::{self, Ipam, IpamConfig, Labels, Network, null_default};
use super::{Networks, State};
use crate::error::{ApiError, ApiResult};
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
    #[serde(rename = "EnableIPv6", deserialize_with = "null_default")]
    pub enable_ipv6: bool,
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
        let mut added = false;
        for (name, driver) in [("none", "null"), ("host", "host"), ("bridge", "bridge")] {
            if state.networks.values().any(|network| network.name == name) {
                continue;
            }
            let mut network = blank(name, driver);
            if driver == "bridge" {
                network.ipam.config = Some(vec![self.default_bridge_subnet(&state)?]);
                network.options = Network::default_bridge_options("0.0.0.0");
            }
            state.networks.insert(network.id.clone(), network);
            added = true;
        }
        if added {
            self.inner.store.save_networks(&state.networks)?;
        }
        Ok(())
    }

    /// daemon.json's `bip`, else the first free pool.
    fn default_bridge_subnet(&self, state: &State) -> ApiResult<IpamConfig> {
        let settings = self.inner.config.settings();
        if let Some(bip) = settings.string("bip") {
            let subnet: Subnet = bip
                .parse()
                .map_err(|error: IpamError| ApiError::bad_request(error.to_string()))?;
            let gateway = bip.split('/').next().unwrap_or_default().to_owned();
            return Ok(config_of(subnet, gateway));
        }
        let subnet = ipam::free_subnet(&self.subnets_in_use(state))
            .map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(config_of(subnet, subnet.first_host().to_string()))
    }

    /// Of our networks and of the machine's own links (except our bridges, which are the former).
    fn subnets_in_use(&self, state: &State) -> Vec<Subnet> {
        let ours = state.networks.values().filter_map(Network::subnet);
        let links = self.inner.kernel.subnets_in_use().unwrap_or_default();
        // docker0 of an earlier data root is taken over, so its own subnet is no hindrance.
        let gateway = Subnet::new([172, 17, 0, 0].into(), 16);
        let links = links
            .into_iter()
            .map(|(address, prefix)| Subnet::new(address, prefix))
            .filter(|subnet| *subnet != gateway);
        ours.chain(links).collect()
    }

    /// Address pools as the networks and the endpoints of running containers have them.
    pub(super) fn fill_pools(&self) {
        let mut state = self.state();
        let pools = state.networks.values().filter_map(pool_of).collect();
        state.pools = pools;
        let taken: Vec<_> = state
            .sandboxes
            .values()
            .flat_map(|sandbox| &sandbox.endpoints)
            .filter_map(|endpoint| Some((endpoint.network_id.clone(), endpoint.address?)))
            .collect();
        for (network, address) in taken {
            if let Some(pool) = state.pools.get_mut(&network) {
                pool.mark(address);
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
            state.pools.extend(pool_of(&network));
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
        let used: Vec<Subnet> = state
            .networks
            .values()
            .filter_map(Network::subnet)
            .collect();
        let mut network = blank(&request.name, "bridge");
        let asked = request.ipam.unwrap_or_else(|| Ipam {
            options: Some(BTreeMap::new()),
            ..Ipam::default()
        });
        let config = asked.config.as_ref().and_then(|list| {
            list.iter()
                .find(|config| !config.subnet.contains(':'))
                .cloned()
        });
        let config = match config.filter(|config| !config.subnet.is_empty()) {
            Some(config) => check_config(config, &used)?,
            None => {
                let subnet = ipam::free_subnet(&self.subnets_in_use(state))
                    .map_err(|error| ApiError::forbidden(error.to_string()))?;
                config_of(subnet, subnet.first_host().to_string())
            }
        };
        network.ipam = Ipam {
            config: Some(vec![config]),
            ..asked
        };
        if network.ipam.driver.is_empty() {
            network.ipam.driver = "default".to_owned();
        }
        network.internal = request.internal;
        network.attachable = request.attachable;
        network.options = request.options;
        network.labels = request.labels;
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
        self.blocking(move |kernel| kernel.remove_network(&gone))
            .await?;
        self.publish_event("destroy", &network, None);
        Ok(())
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

fn blank(name: &str, driver: &str) -> Network {
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
    }
}

fn config_of(subnet: Subnet, gateway: String) -> IpamConfig {
    IpamConfig {
        subnet: subnet.to_string(),
        gateway,
        ..IpamConfig::default()
    }
}

fn pool_of(network: &Network) -> Option<(String, AddressPool)> {
    let mut pool = AddressPool::new(network.subnet()?, network.ip_range(), network.gateway()?);
    for address in network.auxiliary_addresses() {
        pool.mark(address);
    }
    Some((network.id.clone(), pool))
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
        "" | "default" | "bridge" => {}
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
    if request.enable_ipv4 == Some(false) && !request.enable_ipv6 {
        return Err(ApiError::bad_request("IPv4 or IPv6 must be enabled"));
    }
    check_scope(request)?;
    check_options(&request.options)?;
    if request.enable_ipv6 {
        tracing::info!(
            network = name,
            "IPv6 is not offered yet; the network has IPv4 only"
        );
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
            model::ICC | model::MASQUERADE if !is_go_boolean(value) => {
                format!("strconv.ParseBool: parsing {value:?}: invalid syntax")
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

fn is_go_boolean(text: &str) -> bool {
    matches!(
        text,
        "1" | "t" | "T" | "true" | "TRUE" | "True" | "0" | "f" | "F" | "false" | "FALSE" | "False"
    )
}

/// What the user wrote about the subnet, checked, with the gateway filled in.
fn check_config(mut config: IpamConfig, used: &[Subnet]) -> ApiResult<IpamConfig> {
    let subnet = check_words(&config)?;
    if used.iter().any(|other| other.overlaps(subnet)) {
        return Err(ApiError::forbidden(format!(
            "invalid pool request: {}",
            IpamError::Overlap
        )));
    }
    if config.gateway.is_empty() {
        config.gateway = subnet.first_host().to_string();
    }
    Ok(config)
}

/// All that is wrong with a subnet's configuration at once, as Docker lists it.
fn check_words(config: &IpamConfig) -> ApiResult<Subnet> {
    let mut wrongs = Vec::new();
    let parent = &config.subnet;
    let subnet = check_block("subnet", parent, &mut wrongs);
    if !config.ip_range.is_empty()
        && let Some(range) = check_block("ip-range", &config.ip_range, &mut wrongs)
        && subnet.is_some_and(|subnet| !range.within(subnet))
    {
        wrongs.push(format!(
            "invalid ip-range {}: parent subnet {parent} doesn't contain ip-range",
            config.ip_range
        ));
    }
    let mut check_address = |what: String, address: &str| {
        let why = match address.split('/').next().unwrap_or_default().parse() {
            Err(_) => "invalid address".to_owned(),
            Ok(address) if subnet.is_some_and(|subnet| !subnet.contains(address)) => {
                format!("parent subnet {parent} doesn't contain this address")
            }
            Ok(_) => return,
        };
        wrongs.push(format!("invalid {what}: {why}"));
    };
    if !config.gateway.is_empty() {
        check_address(format!("gateway {}", config.gateway), &config.gateway);
    }
    for (name, address) in &config.auxiliary_addresses {
        check_address(format!("auxiliary address {name}"), address);
    }
    match (wrongs.as_slice(), subnet) {
        ([], Some(subnet)) => Ok(subnet),
        ([one], _) => Err(ApiError::bad_request(format!(
            "invalid network config:\n{one}"
        ))),
        _ => Err(ApiError::bad_request(format!(
            "invalid network config:\n* {}",
            wrongs.join("\n* ")
        ))),
    }
}

/// A block of addresses, whose host bits must be zero.
fn check_block(what: &str, text: &str, wrongs: &mut Vec<String>) -> Option<Subnet> {
    let Ok(block) = text.parse::<Subnet>() else {
        wrongs.push(format!(
            "invalid {what} {text}: invalid CIDR block notation"
        ));
        return None;
    };
    if block.to_string() != text {
        wrongs.push(format!("invalid {what} {text}: it should be {block}"));
    }
    Some(block)
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
    fn subnets_are_checked_and_gateways_filled_in() {
        let config = |subnet: &str, range: &str, gateway: &str| IpamConfig {
            subnet: subnet.into(),
            ip_range: range.into(),
            gateway: gateway.into(),
            ..Default::default()
        };
        let used = ["172.17.0.0/16".parse().unwrap()];
        let good = check_config(config("10.9.0.0/24", "", ""), &used).unwrap();
        assert_eq!(good.gateway, "10.9.0.1");
        for (bad, status) in [
            (config("172.17.5.0/24", "", ""), 403),
            (config("10.9.0.0/24", "10.8.0.0/25", ""), 400),
            (config("10.9.0.0/24", "", "10.8.0.1"), 400),
            (config("nonsense", "", ""), 400),
        ] {
            assert_eq!(
                check_config(bad, &used).unwrap_err().status.as_u16(),
                status
            );
        }
    }
}
