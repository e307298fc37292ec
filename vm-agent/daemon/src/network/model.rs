//! Networks and endpoints as the Docker API writes them and as they are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::ipam::{Allocation, Family, Lease, Subnet};

pub type Labels = BTreeMap<String, String>;
/// `80/tcp` → where it is published; `null` for a port that is exposed only.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

/// Go clients send `null` for empty maps and lists.
pub fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortBinding {
    #[serde(deserialize_with = "null_default")]
    pub host_ip: String,
    #[serde(deserialize_with = "null_default")]
    pub host_port: String,
}

/// `IPAMConfig` of an endpoint: the addresses that the user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointIpam {
    #[serde(rename = "IPv4Address", skip_serializing_if = "String::is_empty")]
    pub ipv4_address: String,
    #[serde(rename = "IPv6Address", skip_serializing_if = "String::is_empty")]
    pub ipv6_address: String,
    #[serde(rename = "LinkLocalIPs", skip_serializing_if = "Vec::is_empty")]
    #[serde(deserialize_with = "null_default")]
    pub link_local_ips: Vec<String>,
}

/// A container's end on a network: what was asked for, and what it got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSettings {
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: Option<EndpointIpam>,
    #[serde(rename = "Links")]
    pub links: Option<Vec<String>>,
    #[serde(rename = "Aliases")]
    pub aliases: Option<Vec<String>>,
    #[serde(rename = "MacAddress", deserialize_with = "null_default")]
    pub mac_address: String,
    #[serde(rename = "DriverOpts")]
    pub driver_opts: Option<BTreeMap<String, String>>,
    #[serde(rename = "GwPriority", deserialize_with = "null_default")]
    pub gw_priority: i64,
    #[serde(rename = "NetworkID", deserialize_with = "null_default")]
    pub network_id: String,
    #[serde(rename = "EndpointID", deserialize_with = "null_default")]
    pub endpoint_id: String,
    #[serde(rename = "Gateway", deserialize_with = "null_default")]
    pub gateway: String,
    #[serde(rename = "IPAddress", deserialize_with = "null_default")]
    pub ip_address: String,
    #[serde(rename = "IPPrefixLen", deserialize_with = "null_default")]
    pub ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway", deserialize_with = "null_default")]
    pub ipv6_gateway: String,
    #[serde(rename = "GlobalIPv6Address", deserialize_with = "null_default")]
    pub global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen", deserialize_with = "null_default")]
    pub global_ipv6_prefix_len: u8,
    #[serde(rename = "DNSNames")]
    pub dns_names: Option<Vec<String>>,
}

/// The endpoint option that names the container's link.
const LINK_NAME: &str = "com.docker.network.endpoint.ifname";

impl EndpointSettings {
    /// The name that the container's link is to have.
    pub fn link_name(&self) -> Option<&str> {
        let options = self.driver_opts.as_ref()?;
        options.get(LINK_NAME).map(String::as_str)
    }
}

/// Everything that networking needs to know of a container that starts.
#[derive(Clone, Debug, Default)]
pub struct ContainerNetworkRequest {
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    pub hostname: String,
    pub domainname: String,
    /// `HostConfig.NetworkMode`: `default`, `bridge`, `none`, `host`, `container:ID` or a network's name or id.
    pub mode: String,
    /// Disconnected from the network of the mode.
    pub left_first: bool,
    /// `NetworkingConfig.EndpointsConfig`, by network name or id.
    pub endpoints: BTreeMap<String, EndpointSettings>,
    /// `ExposedPorts` of image and container: `80/tcp`.
    pub exposed_ports: BTreeSet<String>,
    pub port_bindings: PortMap,
    pub publish_all_ports: bool,
    /// From [`super::Networks::create_netns`]; empty in the modes `host` and `container:ID`.
    pub netns: PathBuf,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    /// `HostConfig.ExtraHosts`: `name:address`.
    pub extra_hosts: Vec<String>,
}

/// A container's networks as `NetworkSettings` of inspect wants them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSet {
    pub sandbox_id: String,
    pub sandbox_key: String,
    pub networks: BTreeMap<String, EndpointSettings>,
    pub ports: PortMap,
}

/// One subnet of a network, as kept and as shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamConfig {
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_default"
    )]
    pub subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    #[serde(deserialize_with = "null_default")]
    pub ip_range: String,
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_default"
    )]
    pub gateway: String,
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_default"
    )]
    #[serde(alias = "AuxAddress")]
    pub auxiliary_addresses: BTreeMap<String, String>,
}

impl IpamConfig {
    /// What it asks for; nothing when its subnet is none. The gateway stays open when it is not told.
    pub fn allocation(&self) -> Option<Allocation> {
        let address = |text: &str| text.split('/').next()?.parse().ok();
        let reserved = self.auxiliary_addresses.values();
        Some(Allocation {
            subnet: self.subnet.parse().ok()?,
            range: self.ip_range.parse().ok(),
            gateway: address(&self.gateway),
            reserved: reserved.filter_map(|text| address(text)).collect(),
            configured: true,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ipam {
    #[serde(deserialize_with = "null_default")]
    pub driver: String,
    pub options: Option<BTreeMap<String, String>>,
    pub config: Option<Vec<IpamConfig>>,
}

impl Default for Ipam {
    fn default() -> Self {
        Self {
            driver: "default".into(),
            options: None,
            config: None,
        }
    }
}

/// A network, in the shape of Docker's inspect, without its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    pub name: String,
    pub id: String,
    pub created: String,
    pub scope: String,
    pub driver: String,
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub options: BTreeMap<String, String>,
    pub labels: Labels,
    /// The subnets in effect, which inspect does not show.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allocated: Vec<Allocation>,
}

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
pub(super) const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
pub(super) const ICC: &str = "com.docker.network.bridge.enable_icc";
pub(super) const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
pub(super) const MTU: &str = "com.docker.network.driver.mtu";
pub(super) const GATEWAY_MODE_IPV4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
pub(super) const GATEWAY_MODE_IPV6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
pub(super) const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
pub(super) const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";
const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";

impl Network {
    pub fn is_bridge(&self) -> bool {
        self.driver == "bridge"
    }

    /// Whether containers get a link and addresses of their own here: all but `host` and `none`.
    pub fn has_endpoints(&self) -> bool {
        matches!(self.driver.as_str(), "bridge" | "macvlan" | "ipvlan")
    }

    /// `bridge`, `host` and `none`, which exist always.
    pub fn is_predefined(&self) -> bool {
        matches!(self.name.as_str(), "bridge" | "host" | "none")
    }

    /// `moment` in nanoseconds of the epoch.
    pub fn created_before(&self, moment: i64) -> bool {
        let created = chrono::DateTime::parse_from_rfc3339(&self.created);
        let created = created.ok().and_then(|time| time.timestamp_nanos_opt());
        created.is_none_or(|created| created < moment)
    }

    /// Docker's default bridge has no name service.
    pub fn has_name_service(&self) -> bool {
        self.has_endpoints() && self.name != "bridge"
    }

    pub fn bridge_name(&self) -> String {
        self.options
            .get(BRIDGE_NAME)
            .filter(|name| !name.is_empty())
            .cloned()
            .unwrap_or_else(|| format!("br-{}", crate::identity::short(&self.id)))
    }

    fn flag(&self, key: &str) -> bool {
        self.options.get(key).is_none_or(|value| value != "false")
    }

    pub fn masquerades(&self) -> bool {
        self.flag(MASQUERADE)
    }

    pub fn containers_may_talk(&self) -> bool {
        self.flag(ICC)
    }

    pub fn mtu(&self) -> Option<u32> {
        self.options.get(MTU)?.parse().ok().filter(|mtu| *mtu > 0)
    }

    /// The address that ports are published on when the user names none.
    pub fn host_binding(&self) -> Option<&str> {
        self.options
            .get(HOST_BINDING)
            .map(String::as_str)
            .filter(|ip| !ip.is_empty())
    }

    /// Fills in [`Self::allocated`] of a network that was kept before there was such a thing.
    pub fn allocate_from_config(&mut self) {
        if !self.allocated.is_empty() {
            return;
        }
        let configs = self.ipam.config.iter().flatten();
        self.allocated = configs.filter_map(IpamConfig::allocation).collect();
    }

    pub fn subnets(&self) -> impl Iterator<Item = Subnet> {
        self.allocated.iter().map(|allocation| allocation.subnet)
    }

    /// The gateway's address and its prefix length in bits, of the first subnet of the family.
    pub fn gateway(&self, family: Family) -> Option<(IpAddr, u8)> {
        let mut all = self.allocated.iter();
        let first = all.find(|allocation| allocation.subnet.family() == family)?;
        Some((first.gateway?, first.subnet.prefix()))
    }

    /// Docker's options of the default bridge.
    pub fn default_bridge_options(host_binding: &str) -> BTreeMap<String, String> {
        [
            (DEFAULT_BRIDGE, "true"),
            (ICC, "true"),
            (MASQUERADE, "true"),
            (HOST_BINDING, host_binding),
            (BRIDGE_NAME, "docker0"),
            (MTU, "1500"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }
}

/// An endpoint as the daemon keeps it for as long as its container runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    pub network_id: String,
    pub endpoint_id: String,
    pub host_link: String,
    pub guest_link: String,
    /// Without a gateway where the network leads nowhere else.
    pub v4: Option<Lease>,
    pub v6: Option<Lease>,
    /// All addresses are behind the link, without a gateway.
    pub routed: bool,
    /// Empty where the link has its parent's.
    pub mac: String,
    /// Container name, short id, aliases, host name: what the name service answers to.
    pub names: Vec<String>,
    pub asked: EndpointSettings,
}

impl Endpoint {
    pub fn lease(&self, family: Family) -> Option<Lease> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4
            .into_iter()
            .chain(self.v6)
            .map(|lease| lease.address)
    }
}

/// A port that is published now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The publication's key at the agent.
    pub key: String,
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// As Docker shows it.
    pub host_ip: String,
    pub host_port: u16,
    /// As the user wrote it; the host is asked for this again after a restart.
    pub asked_host_ip: String,
    /// The container's address that connections from the host go to.
    pub target: IpAddr,
}

/// What a running container has of the network; kept on tmpfs, for it ends with the boot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sandbox {
    pub container_id: String,
    pub container_name: String,
    pub sandbox_id: String,
    pub netns: PathBuf,
    pub endpoints: Vec<Endpoint>,
    pub ports: Vec<PublishedPort>,
    /// Ports that are exposed and not published.
    pub exposed_only: Vec<String>,
    pub next_link: u32,
    /// Upstream name servers of this container's own, `--dns`.
    pub dns: Vec<String>,
}
