//! What a user says of a network's subnets: checked in Docker's words, and completed.

use std::net::IpAddr;

use super::default_pools::DefaultPools;
use super::ipam::{Allocation, Family, IpamError, Subnet};
use super::model::IpamConfig;
use crate::error::{ApiError, ApiResult};

/// What the subnets of a network that is to be created depend on.
pub struct Surroundings<'a> {
    pub pools: &'a DefaultPools,
    /// Subnets of other networks, which no subnet may meet.
    pub networks: &'a [Subnet],
    /// Those, and subnets of the machine's own links, which no subnet is chosen from.
    pub in_use: &'a [Subnet],
}

/// What a network is made with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Completed {
    /// As inspect shows it: what the user wrote, then what was chosen for the families without.
    pub shown: Vec<IpamConfig>,
    pub allocated: Vec<Allocation>,
}

/// Subnets for each of `families`: the user's, else one of the default pools. Gateways are added where `with_gateways` says so.
pub fn complete(
    asked: &[IpamConfig],
    families: &[Family],
    with_gateways: bool,
    around: &Surroundings,
) -> ApiResult<Completed> {
    let mut done = Completed::default();
    let of = |family: Family| {
        let configured = asked.iter().filter_map(|config| {
            let allocation = config.allocation()?;
            (allocation.subnet.family() == family).then_some((config, allocation))
        });
        configured.collect::<Vec<_>>()
    };
    for family in Family::BOTH {
        for (config, mut allocation) in of(family) {
            done.shown.push(config.clone());
            if !families.contains(&family) {
                continue;
            }
            let subnet = allocation.subnet;
            let own = done.allocated.iter().map(|other| other.subnet);
            if around
                .networks
                .iter()
                .copied()
                .chain(own)
                .any(|other| other.overlaps(subnet))
            {
                return Err(ApiError::forbidden(format!(
                    "invalid pool request: {}",
                    IpamError::Overlap
                )));
            }
            if with_gateways && allocation.gateway.is_none() {
                allocation.gateway = Some(subnet.first_host());
            }
            done.allocated.push(allocation);
        }
    }
    for family in families {
        if !of(*family).is_empty() {
            continue;
        }
        let subnet = around
            .pools
            .free(*family, around.in_use)
            .map_err(|error| ApiError::forbidden(error.to_string()))?;
        let (config, allocation) = chosen(subnet, with_gateways.then(|| subnet.first_host()));
        done.shown.push(config);
        done.allocated.push(allocation);
    }
    Ok(done)
}

/// A subnet that is not the user's choice.
pub fn chosen(subnet: Subnet, gateway: Option<IpAddr>) -> (IpamConfig, Allocation) {
    let config = IpamConfig {
        subnet: subnet.to_string(),
        gateway: gateway.map_or_else(String::new, |gateway| gateway.to_string()),
        ..IpamConfig::default()
    };
    let allocation = Allocation {
        subnet,
        range: None,
        gateway,
        reserved: Vec::new(),
        configured: false,
    };
    (config, allocation)
}

/// All that is wrong with the configuration at once, as Docker lists it. IPv6 subnets of a network without IPv6 are not looked at.
pub fn check(configs: &[IpamConfig], enable_ipv6: bool) -> ApiResult<()> {
    let mut wrongs = Vec::new();
    for config in configs {
        match config.subnet.parse::<Subnet>() {
            Err(_) => wrongs.push(format!(
                "invalid subnet {}: invalid CIDR block notation",
                config.subnet
            )),
            Ok(subnet) if subnet.family() == Family::V6 && !enable_ipv6 => {}
            Ok(subnet) => check_one(config, subnet, &mut wrongs),
        }
    }
    match listed(&wrongs) {
        None => Ok(()),
        Some(list) => Err(ApiError::bad_request(format!(
            "invalid network config:\n{list}"
        ))),
    }
}

/// Several errors as Docker joins them.
pub fn listed(wrongs: &[String]) -> Option<String> {
    match wrongs {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("* {}", several.join("\n* "))),
    }
}

fn check_one(config: &IpamConfig, subnet: Subnet, wrongs: &mut Vec<String>) {
    if subnet.to_string() != config.subnet.to_ascii_lowercase() {
        wrongs.push(format!(
            "invalid subnet {}: it should be {subnet}",
            config.subnet
        ));
    }
    if !config.ip_range.is_empty() {
        check_range(config, subnet, wrongs);
    }
    let mut check_address = |what: String, address: &str| {
        let parsed: Result<IpAddr, _> = address.split('/').next().unwrap_or_default().parse();
        let why = match parsed {
            Err(_) => "invalid address".to_owned(),
            Ok(address) if Family::of(address) != subnet.family() => {
                format!("parent subnet is an {} block", subnet.family())
            }
            Ok(address) if !subnet.contains(address) => {
                format!(
                    "parent subnet {} doesn't contain this address",
                    config.subnet
                )
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
}

fn check_range(config: &IpamConfig, subnet: Subnet, wrongs: &mut Vec<String>) {
    let text = &config.ip_range;
    let mut wrong = |why: String| wrongs.push(format!("invalid ip-range {text}: {why}"));
    let Ok(range) = text.parse::<Subnet>() else {
        return wrong("invalid CIDR block notation".to_owned());
    };
    if range.family() != subnet.family() {
        return wrong(format!("parent subnet is an {} block", subnet.family()));
    }
    if range.prefix() < subnet.prefix() {
        wrong(format!(
            "CIDR block is bigger than its parent subnet {}",
            config.subnet
        ));
    }
    if range.to_string() != text.to_ascii_lowercase() {
        wrong(format!("it should be {range}"));
    }
    if !range.overlaps(subnet) {
        wrong(format!(
            "parent subnet {} doesn't contain ip-range",
            config.subnet
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(subnet: &str, range: &str, gateway: &str) -> IpamConfig {
        IpamConfig {
            subnet: subnet.into(),
            ip_range: range.into(),
            gateway: gateway.into(),
            ..Default::default()
        }
    }

    fn completed(asked: &[IpamConfig], families: &[Family]) -> ApiResult<Completed> {
        let networks = ["172.17.0.0/16".parse().unwrap()];
        let around = Surroundings {
            pools: &DefaultPools::new("id", Vec::new()),
            networks: &networks,
            in_use: &networks,
        };
        complete(asked, families, true, &around)
    }

    #[test]
    fn what_is_wrong_is_told_as_docker_tells_it() {
        for (wrong, message) in [
            (
                config("nonsense", "", ""),
                "invalid subnet nonsense: invalid CIDR block notation",
            ),
            (
                config("", "", "fd00::1"),
                "invalid subnet : invalid CIDR block notation",
            ),
            (
                config("10.9.0.0/24", "10.8.0.0/25", ""),
                "invalid ip-range 10.8.0.0/25: parent subnet 10.9.0.0/24 doesn't contain ip-range",
            ),
            (
                config("10.9.0.0/24", "", "10.8.0.1"),
                "invalid gateway 10.8.0.1: parent subnet 10.9.0.0/24 doesn't contain this address",
            ),
            (
                config("fd00:6::1/64", "", ""),
                "invalid subnet fd00:6::1/64: it should be fd00:6::/64",
            ),
            (
                config("fd00:6::/64", "fd00:6::/48", ""),
                "invalid ip-range fd00:6::/48: CIDR block is bigger than its parent subnet fd00:6::/64",
            ),
            (
                config("fd00:6::/64", "10.0.0.0/24", ""),
                "invalid ip-range 10.0.0.0/24: parent subnet is an IPv6 block",
            ),
            (
                config("fd00:6::/64", "", "10.0.0.1"),
                "invalid gateway 10.0.0.1: parent subnet is an IPv6 block",
            ),
            (
                config("10.9.0.0/24", "", "fd00::1"),
                "invalid gateway fd00::1: parent subnet is an IPv4 block",
            ),
        ] {
            let error = check(std::slice::from_ref(&wrong), true).unwrap_err();
            assert_eq!(error.message, format!("invalid network config:\n{message}"));
            assert_eq!(error.status.as_u16(), 400);
        }
        let several = [config("10.77.0.5/24", "10.79.0.0/25", "10.78.0.1")];
        assert_eq!(
            check(&several, false).unwrap_err().message,
            "invalid network config:\n* invalid subnet 10.77.0.5/24: it should be 10.77.0.0/24\n* invalid ip-range \
             10.79.0.0/25: parent subnet 10.77.0.5/24 doesn't contain ip-range\n* invalid gateway 10.78.0.1: parent subnet \
             10.77.0.5/24 doesn't contain this address"
        );
        // Without IPv6 nobody looks at it.
        assert!(check(&[config("fd00:6::1/64", "", "")], false).is_ok());
    }

    #[test]
    fn gateways_are_chosen_and_not_shown_where_the_subnet_is_the_users() {
        let asked = [config("10.9.0.0/24", "", "")];
        let done = completed(&asked, &[Family::V4]).unwrap();
        assert_eq!(done.shown, asked);
        assert_eq!(done.allocated[0].gateway, "10.9.0.1".parse().ok());
        assert!(done.allocated[0].configured);
        let chosen = completed(&[], &[Family::V4]).unwrap();
        assert_eq!(chosen.shown, [config("172.18.0.0/16", "", "172.18.0.1")]);
        assert!(!chosen.allocated[0].configured);
    }

    #[test]
    fn each_family_has_its_subnets_the_users_first() {
        let asked = [config("fd00:6::/64", "", "fd00:6::99")];
        let done = completed(&asked, &Family::BOTH).unwrap();
        let subnets: Vec<_> = done.shown.iter().map(|c| c.subnet.as_str()).collect();
        assert_eq!(subnets, ["fd00:6::/64", "172.18.0.0/16"]);
        // What a network without IPv6 says of IPv6 is kept, and has no effect.
        let without = completed(&asked, &[Family::V4]).unwrap();
        assert_eq!(without.shown.len(), 2);
        assert_eq!(without.allocated.len(), 1);
        let only = completed(&[], &[Family::V6]).unwrap();
        assert!(only.shown[0].subnet.starts_with("fd"), "{:?}", only.shown);
    }

    #[test]
    fn subnets_of_other_networks_are_refused() {
        for asked in [
            vec![config("172.17.5.0/24", "", "")],
            vec![config("fd00:6::/64", "", ""), config("fd00:6::/80", "", "")],
        ] {
            let error = completed(&asked, &Family::BOTH).unwrap_err();
            assert_eq!(error.status.as_u16(), 403);
            assert_eq!(
                error.message,
                "invalid pool request: Pool overlaps with other one on this address space"
            );
        }
    }
}
