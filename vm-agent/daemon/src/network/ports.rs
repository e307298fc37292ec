//! Which ports a container wants published, and the guest's own share of publishing them.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

use super::model::PortMap;
use crate::error::{ApiError, ApiResult};

/// One binding that the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRequest {
    pub container_port: u16,
    pub protocol: String,
    pub host_ip: String,
    /// `None`: any free port.
    pub host_ports: Option<RangeInclusive<u16>>,
}

/// What a container publishes, and what it only exposes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortRequests {
    pub published: Vec<PortRequest>,
    pub exposed_only: Vec<String>,
}

/// The ports that Linux (and Docker) hand out: `ip_local_port_range`.
pub const EPHEMERAL: RangeInclusive<u16> = 32768..=60999;

pub fn requests(
    exposed: &BTreeSet<String>,
    bindings: &PortMap,
    publish_all: bool,
) -> ApiResult<PortRequests> {
    let mut requests = PortRequests::default();
    let ports: BTreeSet<&String> = exposed.iter().chain(bindings.keys()).collect();
    for port in ports {
        let (container_port, protocol) = parse_port(port)?;
        let asked = bindings
            .get(port)
            .and_then(Option::as_ref)
            .filter(|list| !list.is_empty());
        let mut push = |host_ip: &str, host_ports| {
            requests.published.push(PortRequest {
                container_port,
                protocol: protocol.clone(),
                host_ip: host_ip.to_owned(),
                host_ports,
            });
        };
        match asked {
            Some(list) => {
                for binding in list {
                    push(&binding.host_ip, parse_host_ports(&binding.host_port)?);
                }
            }
            None if publish_all => push("", None),
            None => requests.exposed_only.push(port.clone()),
        }
    }
    Ok(requests)
}

/// `80/tcp`, or `80`.
pub fn parse_port(text: &str) -> ApiResult<(u16, String)> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let bad = || ApiError::bad_request(format!("invalid port specification: {text:?}"));
    let number = number.parse().map_err(|_| bad())?;
    match protocol.to_ascii_lowercase().as_str() {
        protocol @ ("tcp" | "udp" | "sctp") => Ok((number, protocol.to_owned())),
        _ => Err(bad()),
    }
}

/// `8080`, `8000-8010`, or nothing.
fn parse_host_ports(text: &str) -> ApiResult<Option<RangeInclusive<u16>>> {
    let bad = || ApiError::bad_request(format!("invalid port specification: {text:?}"));
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first: u16 = first.parse().map_err(|_| bad())?;
    let last: u16 = last.parse().map_err(|_| bad())?;
    if first > last || first == 0 {
        return Err(bad());
    }
    Ok(Some(first..=last))
}

pub fn protocol_number(protocol: &str) -> u8 {
    match protocol {
        "udp" => libc::IPPROTO_UDP as u8,
        "sctp" => libc::IPPROTO_SCTP as u8,
        _ => libc::IPPROTO_TCP as u8,
    }
}

/// An address as users write it, brackets or none.
pub fn parse_host_ip(text: &str) -> Option<IpAddr> {
    let text = text.strip_prefix('[').unwrap_or(text);
    text.strip_suffix(']').unwrap_or(text).parse().ok()
}

/// The address to match inside the guest for connections that are to reach `target`; `None` where the guest has no part in it: a host
/// address of the other family, and IPv6's loopback, which the kernel does not let leave it.
pub fn guest_address(host_ip: &str, target: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match target {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    if host_ip.is_empty() {
        return Some(any);
    }
    parse_host_ip(host_ip)
        .filter(|ip| ip.is_ipv4() == target.is_ipv4() && !(ip.is_ipv6() && ip.is_loopback()))
}

/// Holds a port of the guest, so that nothing else there can listen on it while it is forwarded.
#[derive(Debug)]
pub struct Reservation(
    #[expect(dead_code, reason = "closing it is what ends the reservation")] OwnedFd,
);

pub fn reserve(protocol: &str, address: IpAddr, port: u16) -> io::Result<Option<Reservation>> {
    let kind = match protocol {
        "tcp" => SockType::Stream,
        "udp" => SockType::Datagram,
        _ => return Ok(None),
    };
    let family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    let to = SockaddrStorage::from(SocketAddr::from((address, port)));
    match bind(fd.as_raw_fd(), &to) {
        Ok(()) => Ok(Some(Reservation(fd))),
        // An address of the host's, which the guest does not have.
        Err(nix::Error::EADDRNOTAVAIL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::PortBinding;
    use super::*;

    fn binding(ip: &str, port: &str) -> PortBinding {
        PortBinding {
            host_ip: ip.into(),
            host_port: port.into(),
        }
    }

    #[test]
    fn bindings_win_over_exposed_ports() {
        let exposed = ["80/tcp", "443/tcp"].map(str::to_owned).into();
        let bindings = PortMap::from([
            (
                "80/tcp".into(),
                Some(vec![binding("127.0.0.1", "8080"), binding("", "")]),
            ),
            ("53/udp".into(), Some(vec![binding("", "5300-5310")])),
        ]);
        let got = requests(&exposed, &bindings, false).unwrap();
        assert_eq!(got.exposed_only, ["443/tcp"]);
        let flat: Vec<_> = got
            .published
            .iter()
            .map(|r| {
                (
                    r.container_port,
                    r.protocol.as_str(),
                    r.host_ip.as_str(),
                    r.host_ports.clone(),
                )
            })
            .collect();
        assert_eq!(
            flat,
            [
                (53, "udp", "", Some(5300..=5310)),
                (80, "tcp", "127.0.0.1", Some(8080..=8080)),
                (80, "tcp", "", None),
            ]
        );
        let all = requests(&exposed, &PortMap::new(), true).unwrap();
        assert_eq!((all.published.len(), all.exposed_only.len()), (2, 0));
    }

    #[test]
    fn nonsense_ports_are_refused() {
        for port in ["x/tcp", "80/icmp", "70000", ""] {
            assert!(parse_port(port).is_err(), "{port}");
        }
        for host in ["x", "10-5", "0-3", "70000"] {
            assert!(parse_host_ports(host).is_err(), "{host}");
        }
    }

    #[test]
    fn the_guest_has_no_part_in_the_other_family() {
        let v4: IpAddr = [172, 17, 0, 2].into();
        let v6: IpAddr = "fd00::2".parse().unwrap();
        let shown = |host_ip, target| guest_address(host_ip, target).map(|ip| ip.to_string());
        for (host_ip, of_v4, of_v6) in [
            ("", Some("0.0.0.0"), Some("::")),
            ("127.0.0.1", Some("127.0.0.1"), None),
            ("[::]", None, Some("::")),
            ("fd00::1", None, Some("fd00::1")),
            ("::1", None, None),
            ("nonsense", None, None),
        ] {
            assert_eq!(shown(host_ip, v4).as_deref(), of_v4, "{host_ip}");
            assert_eq!(shown(host_ip, v6).as_deref(), of_v6, "{host_ip}");
        }
    }

    #[test]
    fn a_reserved_port_is_taken() {
        const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let first = (42000..42100)
            .find_map(|port| Some((port, reserve("udp", LOCALHOST, port).ok()??)))
            .unwrap();
        let again = reserve("udp", LOCALHOST, first.0).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    }
}
