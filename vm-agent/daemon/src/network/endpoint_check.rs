//! What a user says of a container's end on a network, checked before anything is made of it.

use std::net::IpAddr;

use super::driver::parse_mac;
use super::ipam::Family;
use super::ipam_config::listed;
use super::link_sysctl;
use super::model::{EndpointIpam, EndpointSettings, Network};

/// What is wrong, in Docker's words. `name` is the network as the user named it, which need not exist yet.
pub fn check(
    name: &str,
    network: Option<&Network>,
    settings: &EndpointSettings,
) -> Result<(), String> {
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let mut wrongs = Vec::new();
    if !is_user_defined(name) {
        if !ipam.ipv4_address.is_empty() || !ipam.ipv6_address.is_empty() {
            wrongs.push(
                "user specified IP address is supported on user defined networks only".into(),
            );
        }
        if settings
            .aliases
            .as_ref()
            .is_some_and(|aliases| !aliases.is_empty())
        {
            wrongs.push(
                "network-scoped alias is supported only for containers in user defined networks"
                    .into(),
            );
        }
    }
    check_words(&ipam, &mut wrongs);
    if let Some(network) = network {
        check_subnets(&ipam, network, &mut wrongs);
    }
    if let Err(wrong) = link_sysctl::of(settings, "eth0") {
        wrongs.push(wrong.to_string());
    }
    if let Some(link) = settings.link_name().filter(|link| !is_link_name(link)) {
        wrongs.push(format!("invalid interface name: {link}"));
    }
    if let Some(list) = listed(&wrongs) {
        return Err(format!("invalid endpoint settings:\n{list}"));
    }
    let mac = settings.mac_address.as_str();
    if !mac.is_empty() && parse_mac(mac).is_none() {
        return Err(format!("invalid MAC address {mac}"));
    }
    Ok(())
}

/// What the kernel takes (dev_valid_name): 15 bytes without slash, colon and spaces.
fn is_link_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
    (1..=15).contains(&name.len())
        && !matches!(name, "." | ".." | "lo")
        && name.bytes().all(allowed)
}

fn is_user_defined(name: &str) -> bool {
    !matches!(name, "" | "default" | "bridge" | "host" | "none") && !name.starts_with("container:")
}

fn of_families(ipam: &EndpointIpam) -> [(Family, &str); 2] {
    [
        (Family::V4, ipam.ipv4_address.as_str()),
        (Family::V6, ipam.ipv6_address.as_str()),
    ]
}

fn check_words(ipam: &EndpointIpam, wrongs: &mut Vec<String>) {
    for (family, text) in of_families(ipam) {
        let fits = |ip: &IpAddr| Family::of(*ip) == family && !ip.is_unspecified();
        if !text.is_empty() && !text.parse().is_ok_and(|ip| fits(&ip)) {
            wrongs.push(format!("invalid {family} address: {text}"));
        }
    }
    for text in &ipam.link_local_ips {
        if !text.parse::<IpAddr>().is_ok_and(|ip| !ip.is_unspecified()) {
            wrongs.push(format!("invalid link-local IP address: {text}"));
        }
    }
}

fn check_subnets(ipam: &EndpointIpam, network: &Network, wrongs: &mut Vec<String>) {
    for (family, text) in of_families(ipam) {
        if text.is_empty() {
            continue;
        }
        let address: Option<IpAddr> = text.parse().ok();
        let mut configured = network
            .allocated
            .iter()
            .filter(|allocation| allocation.configured && allocation.subnet.family() == family)
            .peekable();
        if configured.peek().is_none() {
            wrongs.push(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
                    .to_owned(),
            );
        } else if !configured
            .any(|allocation| address.is_some_and(|address| allocation.subnet.contains(address)))
        {
            wrongs.push(format!(
                "no configured subnet or ip-range contain the IP address {text}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::definitions::blank;
    use super::super::ipam::Allocation;
    use super::*;

    fn network(subnets: &[(&str, bool)]) -> Network {
        let mut network = blank("n", "bridge");
        let allocation = |(subnet, configured): &(&str, bool)| Allocation {
            subnet: subnet.parse().unwrap(),
            range: None,
            gateway: None,
            reserved: Vec::new(),
            configured: *configured,
        };
        network.allocated = subnets.iter().map(allocation).collect();
        network
    }

    fn asks(v4: &str, v6: &str) -> EndpointSettings {
        EndpointSettings {
            ipam_config: Some(EndpointIpam {
                ipv4_address: v4.into(),
                ipv6_address: v6.into(),
                link_local_ips: Vec::new(),
            }),
            ..Default::default()
        }
    }

    #[test]
    fn addresses_are_checked_in_dockers_words() {
        let own = network(&[("10.0.0.0/24", false), ("fd00:6::/64", true)]);
        let told = |settings| check("n", Some(&own), &settings);
        const NOT_CONFIGURED: &str = "user specified IP address is supported only when connecting to networks with user configured subnets";
        for (v4, v6, expected) in [
            ("", "", None),
            ("", "fd00:6::abcd", None),
            ("10.0.0.9", "", Some(NOT_CONFIGURED.to_owned())),
            ("", "fd00:9::1", Some("no configured subnet or ip-range contain the IP address fd00:9::1".into())),
            ("", "nonsense", Some("* invalid IPv6 address: nonsense\n* no configured subnet or ip-range contain the IP address nonsense".into())),
        ] {
            let expected = expected.map(|words| format!("invalid endpoint settings:\n{words}"));
            assert_eq!(told(asks(v4, v6)).err(), expected);
        }
        assert_eq!(
            check(
                "bridge",
                Some(&network(&[("172.17.0.0/16", false)])),
                &asks("", "fd00::2")
            ),
            Err(format!(
                "invalid endpoint settings:\n* user specified IP address is supported on user defined networks only\n* {NOT_CONFIGURED}"
            ))
        );
        let bad_mac = EndpointSettings {
            mac_address: "nonsense".into(),
            ..Default::default()
        };
        assert_eq!(told(bad_mac), Err("invalid MAC address nonsense".into()));
        // A network that does not exist yet: only the words can be looked at.
        assert!(check("later", None, &asks("10.0.0.9", "")).is_ok());
    }
}
