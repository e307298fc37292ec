//! What networks and endpoints are in the kernel. Every call blocks.

use std::fs;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use super::announce;
use super::ipam::Family;
use super::link::{self, Child, Mac, Veth};
use super::link_sysctl::{self, OptionError};
use super::model::{Endpoint, Network, PublishedPort};
use super::netlink::{NetlinkError, Socket};
use super::netns::{self, NetnsError};
use super::nft::{Batch, BridgeRules, Forward};
use super::parent::{self, Kind, Origin, Parented};
use super::ports;
use super::routes::DefaultRoute;

#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error("set {path}: {source}")]
    Sysctl { path: String, source: io::Error },
    #[error("bridge {bridge}: {source}")]
    Bridge {
        bridge: String,
        source: NetlinkError,
    },
    /// In Docker's words.
    #[error("{0}")]
    Parent(String),
    #[error("parent link {link}: {source}")]
    ParentLink { link: String, source: NetlinkError },
    /// As Docker's driver tells it, the system's words included.
    #[error("failed to create the {driver} port: {}", in_small_letters(.source))]
    Child {
        driver: String,
        source: NetlinkError,
    },
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error("packet filter: {0}")]
    Filter(#[source] NetlinkError),
    #[error("endpoint {link}: {source}")]
    Endpoint { link: String, source: NetlinkError },
    #[error("the link {0} did not appear in its namespace")]
    LinkMissing(String),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error("netlink: {0}")]
    Socket(#[from] NetlinkError),
}

fn in_small_letters(error: &NetlinkError) -> String {
    match error.errno() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

struct Sockets {
    route: Socket,
    netfilter: Socket,
}

/// The kernel's side of networking; one change at a time.
#[derive(Default)]
pub struct Kernel {
    sockets: Mutex<Option<Sockets>>,
}

impl Kernel {
    fn with<T>(
        &self,
        work: impl FnOnce(&mut Sockets) -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        let mut guard: MutexGuard<Option<Sockets>> = self
            .sockets
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        let mut sockets = match guard.take() {
            Some(sockets) => sockets,
            None => Sockets {
                route: Socket::route()?,
                netfilter: Socket::netfilter()?,
            },
        };
        let done = work(&mut sockets);
        // After an error answers may still be under way: the next call opens fresh sockets.
        if done.is_ok() {
            *guard = Some(sockets);
        }
        done
    }

    /// Makes forwarding, bridges and the whole filter table as they should be, whatever was there before.
    pub fn prepare(&self, networks: &[Network], forwards: &[Forward]) -> Result<(), DriverError> {
        sysctl("net/ipv4/ip_forward", "1")?;
        self.with(|sockets| {
            remove_strays(&mut sockets.route, networks);
            let mut batch = Batch::new();
            batch.rebuild();
            for network in networks {
                if network.is_bridge() {
                    make_bridge(&mut sockets.route, network)?;
                    batch.add_bridge(&rules(&network.bridge_name(), network));
                } else if let Err(error) = make_parent(&mut sockets.route, network) {
                    // A link that has gone: only this network's containers cannot start.
                    tracing::warn!(%error, network = network.name, "making a network's parent link");
                }
            }
            for forward in forwards {
                batch.add_forward(forward);
            }
            batch
                .commit(&mut sockets.netfilter)
                .map_err(DriverError::Filter)
        })
    }

    pub fn create_network(&self, network: &Network) -> Result<(), DriverError> {
        self.with(|sockets| {
            if !network.is_bridge() {
                return make_parent(&mut sockets.route, network).map(drop);
            }
            make_bridge(&mut sockets.route, network)?;
            let mut batch = Batch::new();
            batch.add_bridge(&rules(&network.bridge_name(), network));
            batch
                .commit(&mut sockets.netfilter)
                .map_err(DriverError::Filter)
        })
    }

    /// `parent_is_shared`: another network stands on the same link.
    pub fn remove_network(
        &self,
        network: &Network,
        parent_is_shared: bool,
    ) -> Result<(), DriverError> {
        self.with(|sockets| {
            if !network.is_bridge() {
                return match parent_is_shared {
                    true => Ok(()),
                    false => remove_parent(&mut sockets.route, network),
                };
            }
            let bridge = network.bridge_name();
            link::delete(&mut sockets.route, &bridge).map_err(|source| DriverError::Bridge {
                bridge: bridge.clone(),
                source,
            })?;
            let mut batch = Batch::new();
            batch.remove_bridge(&rules(&bridge, network));
            batch
                .commit(&mut sockets.netfilter)
                .map_err(DriverError::Filter)
        })
    }

    /// Subnets that this machine's links have now.
    pub fn subnets_in_use(&self) -> Result<Vec<(IpAddr, u8)>, DriverError> {
        self.with(|sockets| Ok(link::addresses(&mut sockets.route)?))
    }

    /// Gives a namespace its link on the network, with addresses and, for `default_routes`, the way to all else.
    pub fn plug(
        &self,
        network: &Network,
        endpoint: &Endpoint,
        namespace: &Path,
        default_routes: Vec<DefaultRoute>,
    ) -> Result<(), DriverError> {
        let file = netns::open(namespace)?;
        self.with(|sockets| match parented(network)? {
            None => plug_bridge(&mut sockets.route, network, endpoint, &file),
            Some(on) => plug_parented(&mut sockets.route, network, &on, endpoint, &file),
        })?;
        let endpoint = endpoint.clone();
        netns::inside(namespace, move || {
            let failed = |source| DriverError::Endpoint {
                link: endpoint.guest_link.clone(),
                source,
            };
            let mut socket = Socket::route().map_err(failed)?;
            address_endpoint(&mut socket, &endpoint)?;
            set_default_routes(&mut socket, &default_routes, &[])
        })?
    }

    /// Makes default routes as told, and removes those of the families in `without`.
    pub fn set_default_routes(
        &self,
        namespace: &Path,
        routes: Vec<DefaultRoute>,
        without: Vec<Family>,
    ) -> Result<(), DriverError> {
        netns::inside(namespace, move || {
            let mut socket = Socket::route()?;
            set_default_routes(&mut socket, &routes, &without)
        })?
    }

    /// Removes an endpoint's link. A bridge's has an end out here, which takes the other with it.
    pub fn unplug(
        &self,
        network: &Network,
        endpoint: &Endpoint,
        namespace: &Path,
    ) -> Result<(), DriverError> {
        let failed = |link: &str| {
            let link = link.to_owned();
            move |source| DriverError::Endpoint { link, source }
        };
        if network.is_bridge() {
            return self.with(|sockets| {
                link::delete(&mut sockets.route, &endpoint.host_link)
                    .map_err(failed(&endpoint.host_link))
            });
        }
        let name = endpoint.guest_link.clone();
        netns::inside(namespace, move || {
            let mut socket = Socket::route()?;
            link::delete(&mut socket, &name).map_err(failed(&name))
        })?
    }

    pub fn forward(&self, forward: &Forward) -> Result<(), DriverError> {
        self.with(|sockets| {
            let mut batch = Batch::new();
            batch.add_forward(forward);
            batch
                .commit(&mut sockets.netfilter)
                .map_err(DriverError::Filter)
        })
    }

    /// Takes forwards out one by one, since one that is gone already would undo the whole transaction.
    pub fn unforward(&self, forwards: &[Forward]) {
        for forward in forwards {
            let done = self.with(|sockets| {
                let mut batch = Batch::new();
                batch.remove_forward(forward);
                batch
                    .commit(&mut sockets.netfilter)
                    .map_err(DriverError::Filter)
            });
            if let Err(error) = done {
                tracing::warn!(%error, ?forward, "taking a published port out of the packet filter");
            }
        }
    }
}

fn plug_bridge(
    route: &mut Socket,
    network: &Network,
    endpoint: &Endpoint,
    namespace: &File,
) -> Result<(), DriverError> {
    let failed = |source| DriverError::Endpoint {
        link: endpoint.host_link.clone(),
        source,
    };
    let bridge = network.bridge_name();
    let index = match link::index(route, &bridge).map_err(failed)? {
        Some(index) => index,
        None => make_bridge(route, network)?,
    };
    let veth = Veth {
        host_name: &endpoint.host_link,
        bridge: index,
        peer_name: &endpoint.guest_link,
        peer_mac: parse_mac(&endpoint.mac).unwrap_or_else(random_mac),
        peer_netns: namespace.as_fd(),
        mtu: network.mtu(),
    };
    link::create_veth(route, &veth).map_err(failed)?;
    if !network.containers_may_talk() {
        // What stays on the bridge never meets the packet filter.
        link::isolate_port(route, &endpoint.host_link).map_err(failed)?;
    }
    Ok(())
}

fn plug_parented(
    route: &mut Socket,
    network: &Network,
    on: &Parented,
    endpoint: &Endpoint,
    namespace: &File,
) -> Result<(), DriverError> {
    let child = Child {
        name: &endpoint.host_link,
        parent: make_parent(route, network)?,
        kind: on.kind,
        mac: match on.kind {
            Kind::Macvlan { .. } => parse_mac(&endpoint.mac),
            Kind::Ipvlan { .. } => None,
        },
        netns: namespace.as_fd(),
        mtu: network.mtu(),
    };
    link::create_child(route, &child).map_err(|source| DriverError::Child {
        driver: network.driver.clone(),
        source,
    })
}

fn parented(network: &Network) -> Result<Option<Parented>, DriverError> {
    Parented::of(network)
        .transpose()
        .map_err(DriverError::Parent)
}

/// Finds or makes the link that a macvlan or ipvlan network stands on; its index, or 0 for networks without.
fn make_parent(route: &mut Socket, network: &Network) -> Result<u32, DriverError> {
    let Some(on) = parented(network)? else {
        return Ok(0);
    };
    let failed = |source| DriverError::ParentLink {
        link: on.parent.clone(),
        source,
    };
    // A longer name is no link's, and the kernel would not look for it.
    if on.parent.len() < libc::IFNAMSIZ
        && let Some(index) = link::index(route, &on.parent).map_err(failed)?
    {
        return Ok(index);
    }
    if on.origin == Origin::Dummy {
        return link::ensure_parent(route, &on.parent, None).map_err(failed);
    }
    let vlan = parent::vlan_of(&on.parent).map_err(DriverError::Parent)?;
    let below = link::index(route, &vlan.link).map_err(failed)?;
    let below = below.ok_or_else(|| {
        DriverError::Parent(format!(
            "-o parent interface was not found on the host: {}",
            vlan.link
        ))
    })?;
    link::ensure_parent(route, &on.parent, Some((below, vlan.id))).map_err(failed)
}

/// Removes what [`make_parent`] makes: a dummy, or a VLAN, which in this machine nobody else makes.
fn remove_parent(route: &mut Socket, network: &Network) -> Result<(), DriverError> {
    let Some(on) = parented(network)? else {
        return Ok(());
    };
    if on.origin == Origin::Link && parent::vlan_of(&on.parent).is_err() {
        return Ok(());
    }
    link::delete(route, &on.parent).map_err(|source| DriverError::ParentLink {
        link: on.parent.clone(),
        source,
    })
}

/// Inside the namespace: names the link, brings it up and gives it its addresses.
fn address_endpoint(socket: &mut Socket, endpoint: &Endpoint) -> Result<(), DriverError> {
    let failed = |source| DriverError::Endpoint {
        link: endpoint.guest_link.clone(),
        source,
    };
    let name = &endpoint.guest_link;
    let index = match link::index(socket, name).map_err(failed)? {
        Some(index) => index,
        None => {
            let made = link::index(socket, &endpoint.host_link).map_err(failed)?;
            let index = made.ok_or_else(|| DriverError::LinkMissing(name.clone()))?;
            link::rename(socket, index, name).map_err(failed)?;
            index
        }
    };
    if endpoint.v6.is_none() {
        // Else the link would still join IPv6's multicast groups, and believe neighbours' advertisements.
        sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
    }
    for (key, value) in link_sysctl::of(&endpoint.asked, name)? {
        sysctl(&key, &value)?;
    }
    link::up(socket, index).map_err(failed)?;
    for lease in endpoint.v4.iter().chain(&endpoint.v6) {
        link::add_address(socket, index, lease.address, lease.prefix).map_err(failed)?;
        if let Some(mac) = parse_mac(&endpoint.mac)
            && let Err(error) = announce::announce(index, mac, lease.address)
        {
            tracing::warn!(%error, link = endpoint.guest_link, "announcing an address");
        }
    }
    Ok(())
}

fn set_default_routes(
    socket: &mut Socket,
    routes: &[DefaultRoute],
    without: &[Family],
) -> Result<(), DriverError> {
    for family in without {
        link::delete_default_route(socket, *family)?;
    }
    for route in routes {
        let failed = |source| DriverError::Endpoint {
            link: route.link.clone(),
            source,
        };
        let index = link::index(socket, &route.link)
            .map_err(failed)?
            .ok_or_else(|| DriverError::LinkMissing(route.link.clone()))?;
        link::set_default_route(socket, index, route.family, route.gateway).map_err(failed)?;
    }
    Ok(())
}

/// What a bridge's alias begins with, before its network's id.
const ALIAS: &str = "longshore network ";

/// Documentation/ABI/testing/sysfs-class-net.
fn alias_file(link: &str) -> PathBuf {
    Path::new("/sys/class/net").join(link).join("ifalias")
}

/// Removes the bridges of networks that are no more: a daemon may die between forgetting a network and deleting its bridge.
fn remove_strays(route: &mut Socket, networks: &[Network]) {
    let links = fs::read_dir("/sys/class/net").into_iter().flatten();
    for link in links.flatten() {
        let name = link.file_name().to_string_lossy().into_owned();
        let alias = fs::read_to_string(alias_file(&name)).unwrap_or_default();
        let Some(id) = alias.trim_end().strip_prefix(ALIAS) else {
            continue;
        };
        if !networks.iter().any(|network| network.id == id)
            && let Err(error) = link::delete(route, &name)
        {
            tracing::warn!(%error, name, "removing the bridge of a network that is no more");
        }
    }
}

fn make_bridge(route: &mut Socket, network: &Network) -> Result<u32, DriverError> {
    let bridge = network.bridge_name();
    let failed = |source| DriverError::Bridge {
        bridge: bridge.clone(),
        source,
    };
    let index = link::ensure_bridge(route, &bridge, random_mac(), network.mtu()).map_err(failed)?;
    // Whose it is, for people (`ip link`), and for a later life of the daemon. Not every kernel keeps it.
    let _ = fs::write(alias_file(&bridge), format!("{ALIAS}{}", network.id));
    if network.enable_ipv6 {
        forward_ipv6()?;
    }
    for (address, prefix) in Family::BOTH.iter().filter_map(|f| network.gateway(*f)) {
        link::add_address(route, index, address, prefix).map_err(failed)?;
    }
    // Lets the guest's own 127.0.0.1 reach published ports; the filter keeps others out of it.
    sysctl(&format!("net/ipv4/conf/{bridge}/route_localnet"), "1")?;
    Ok(index)
}

/// A machine that forwards IPv6 ignores router advertisements, unless told to go on (`accept_ra` 2): its own way out is from them.
fn forward_ipv6() -> Result<(), DriverError> {
    const FORWARDING: &str = "net/ipv6/conf/all/forwarding";
    if is_set(FORWARDING, "1") {
        return Ok(());
    }
    for link in fs::read_dir("/proc/sys/net/ipv6/conf")
        .into_iter()
        .flatten()
    {
        let name = link.map(|link| link.file_name()).unwrap_or_default();
        let key = format!("net/ipv6/conf/{}/accept_ra", name.to_string_lossy());
        if is_set(&key, "1") {
            sysctl(&key, "2")?;
        }
    }
    sysctl("net/ipv6/conf/default/forwarding", "1")?;
    sysctl(FORWARDING, "1")
}

fn rules<'a>(bridge: &'a str, network: &Network) -> BridgeRules<'a> {
    BridgeRules {
        name: bridge,
        masquerade: network.masquerades(),
        internal: network.internal,
        icc: network.containers_may_talk(),
    }
}

fn is_set(name: &str, value: &str) -> bool {
    fs::read_to_string(format!("/proc/sys/{name}")).is_ok_and(|now| now.trim() == value)
}

fn sysctl(name: &str, value: &str) -> Result<(), DriverError> {
    // A write may cost more than a read: changing ip_forward walks every interface.
    if is_set(name, value) {
        return Ok(());
    }
    let path = format!("/proc/sys/{name}");
    fs::write(&path, value).map_err(|source| DriverError::Sysctl { path, source })
}

/// What the packet filter needs of a published port; nothing for addresses that the guest has no part in.
pub fn forward_of(port: &PublishedPort) -> Option<Forward> {
    Some(Forward {
        protocol: ports::protocol_number(&port.protocol),
        host_ip: ports::guest_address(&port.asked_host_ip, port.target)?,
        host_port: port.host_port,
        container_ip: port.target,
        container_port: port.container_port,
    })
}

/// A random, locally administered unicast address.
pub fn random_mac() -> Mac {
    let mut mac: Mac = rand::random();
    mac[0] = (mac[0] & 0xfe) | 0x02;
    mac
}

pub fn format_mac(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

pub fn parse_mac(text: &str) -> Option<Mac> {
    let bytes: Vec<u8> = text
        .split([':', '-'])
        .map(|part| u8::from_str_radix(part, 16).ok())
        .collect::<Option<_>>()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_round_trip() {
        let mac = random_mac();
        assert_eq!(mac[0] & 3, 2);
        assert_eq!(parse_mac(&format_mac(mac)), Some(mac));
        for bad in ["", "02:42", "02:42:ac:11:00:zz", "02:42:ac:11:00:02:03"] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }
}
