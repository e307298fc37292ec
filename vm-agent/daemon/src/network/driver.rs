//! The bridge driver: what networks and endpoints are in the kernel. Every call blocks.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use super::announce;
use super::link::{self, Mac, Veth};
use super::model::{Endpoint, Network, PublishedPort};
use super::netlink::{NetlinkError, Socket};
use super::netns::{self, NetnsError};
use super::nft::{Batch, BridgeRules, Forward};
use super::ports;

#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error("set {path}: {source}")]
    Sysctl { path: String, source: io::Error },
    #[error("bridge {bridge}: {source}")]
    Bridge {
        bridge: String,
        source: NetlinkError,
    },
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
            let mut batch = Batch::new();
            batch.rebuild();
            for network in networks.iter().filter(|network| network.is_bridge()) {
                make_bridge(&mut sockets.route, network)?;
                batch.add_bridge(&rules(&network.bridge_name(), network));
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
            make_bridge(&mut sockets.route, network)?;
            let mut batch = Batch::new();
            batch.add_bridge(&rules(&network.bridge_name(), network));
            batch
                .commit(&mut sockets.netfilter)
                .map_err(DriverError::Filter)
        })
    }

    pub fn remove_network(&self, network: &Network) -> Result<(), DriverError> {
        self.with(|sockets| {
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
    pub fn subnets_in_use(&self) -> Result<Vec<(Ipv4Addr, u8)>, DriverError> {
        self.with(|sockets| Ok(link::addresses(&mut sockets.route)?))
    }

    /// Plugs an endpoint into the bridge and the namespace; `default_route` sends all else through its gateway.
    pub fn plug(
        &self,
        network: &Network,
        endpoint: &Endpoint,
        namespace: &Path,
        default_route: bool,
    ) -> Result<(), DriverError> {
        let failed = |source| DriverError::Endpoint {
            link: endpoint.host_link.clone(),
            source,
        };
        let file = netns::open(namespace)?;
        self.with(|sockets| {
            let bridge = network.bridge_name();
            let index = match link::index(&mut sockets.route, &bridge).map_err(failed)? {
                Some(index) => index,
                None => make_bridge(&mut sockets.route, network)?,
            };
            let veth = Veth {
                host_name: &endpoint.host_link,
                bridge: index,
                peer_name: &endpoint.guest_link,
                peer_mac: parse_mac(&endpoint.mac).unwrap_or_else(random_mac),
                peer_netns: file.as_fd(),
                mtu: network.mtu(),
            };
            link::create_veth(&mut sockets.route, &veth).map_err(failed)
        })?;
        let endpoint = endpoint.clone();
        netns::inside(namespace, move || {
            address_endpoint(&endpoint, default_route)
        })?
    }

    /// Removes an endpoint's pair of links.
    pub fn unplug(&self, endpoint: &Endpoint) -> Result<(), DriverError> {
        self.with(|sockets| {
            link::delete(&mut sockets.route, &endpoint.host_link).map_err(|source| {
                DriverError::Endpoint {
                    link: endpoint.host_link.clone(),
                    source,
                }
            })
        })
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

fn address_endpoint(endpoint: &Endpoint, default_route: bool) -> Result<(), DriverError> {
    let failed = |source| DriverError::Endpoint {
        link: endpoint.guest_link.clone(),
        source,
    };
    let mut socket = Socket::route().map_err(failed)?;
    let index = link::index(&mut socket, &endpoint.guest_link)
        .map_err(failed)?
        .ok_or_else(|| DriverError::LinkMissing(endpoint.guest_link.clone()))?;
    link::up(&mut socket, index).map_err(failed)?;
    if let Some(address) = endpoint.address {
        link::add_address(&mut socket, index, address, endpoint.prefix).map_err(failed)?;
        if let Some(mac) = parse_mac(&endpoint.mac)
            && let Err(error) = announce::announce(index, mac, address)
        {
            tracing::warn!(%error, link = endpoint.guest_link, "announcing an address");
        }
    }
    if let (true, Some(gateway)) = (default_route, endpoint.gateway) {
        link::add_default_route(&mut socket, index, gateway).map_err(failed)?;
    }
    Ok(())
}

fn make_bridge(route: &mut Socket, network: &Network) -> Result<u32, DriverError> {
    let bridge = network.bridge_name();
    let failed = |source| DriverError::Bridge {
        bridge: bridge.clone(),
        source,
    };
    let index = link::ensure_bridge(route, &bridge, random_mac(), network.mtu()).map_err(failed)?;
    if let (Some(gateway), Some(subnet)) = (network.gateway(), network.subnet()) {
        link::add_address(route, index, gateway, subnet.prefix()).map_err(failed)?;
    }
    // Lets the guest's own 127.0.0.1 reach published ports; the filter keeps others out of it.
    sysctl(&format!("net/ipv4/conf/{bridge}/route_localnet"), "1")?;
    Ok(index)
}

fn rules<'a>(bridge: &'a str, network: &Network) -> BridgeRules<'a> {
    BridgeRules {
        name: bridge,
        masquerade: network.masquerades(),
        internal: network.internal,
        icc: network.containers_may_talk(),
    }
}

fn sysctl(name: &str, value: &str) -> Result<(), DriverError> {
    let path = format!("/proc/sys/{name}");
    // A write may cost more than a read: changing ip_forward walks every interface.
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|source| DriverError::Sysctl { path, source })
}

/// What the packet filter needs of a published port; nothing for IPv6 addresses of the host.
pub fn forward_of(port: &PublishedPort) -> Option<Forward> {
    Some(Forward {
        protocol: ports::protocol_number(&port.protocol),
        host_ip: ports::guest_address(&port.asked_host_ip)?,
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
