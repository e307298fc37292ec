//! macvlan and ipvlan networks: their options, and the link of the machine that they stand on.

use super::model::Network;
use crate::identity::short;

pub const PARENT: &str = "parent";
const MACVLAN_MODE: &str = "macvlan_mode";
const IPVLAN_MODE: &str = "ipvlan_mode";
const IPVLAN_FLAG: &str = "ipvlan_flag";

/// What a container's link on such a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `MACVLAN_MODE_…` of `linux/if_link.h`.
    Macvlan { mode: u32 },
    /// `IPVLAN_MODE_…` and `IPVLAN_F_…` of the same.
    Ipvlan { mode: u16, flags: u16 },
}

const MACVLAN_BRIDGE: u32 = 4;
const MACVLAN_PASSTHRU: u32 = 8;
const IPVLAN_L2: u16 = 0;

/// How a network's parent comes to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A link that leads nowhere, of the network's own.
    Dummy,
    /// A link of the machine, which is there already, or a VLAN of one, which is made when it is missing.
    Link,
}

/// The options of one macvlan or ipvlan network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parented {
    pub kind: Kind,
    pub parent: String,
    pub origin: Origin,
}

/// `eth0.10`: link and VLAN id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlan {
    pub link: String,
    pub id: u16,
}

impl Parented {
    /// The options, or what Docker says of them; `None` for networks of other drivers.
    pub fn of(network: &Network) -> Option<Result<Self, String>> {
        let kind = match network.driver.as_str() {
            "macvlan" => macvlan(network),
            "ipvlan" => ipvlan(network),
            _ => return None,
        };
        Some(kind.and_then(|kind| Self::with_kind(network, kind)))
    }

    fn with_kind(network: &Network, kind: Kind) -> Result<Self, String> {
        let (parent, origin) = match option(network, PARENT) {
            // Docker's names; an interface's has at most 15 characters.
            "" => {
                let prefix = if network.driver == "macvlan" {
                    "dm"
                } else {
                    "di"
                };
                (format!("{prefix}-{}", short(&network.id)), Origin::Dummy)
            }
            "lo" => {
                return Err(format!(
                    "loopback interface is not a valid {} parent link",
                    network.driver
                ));
            }
            parent => (parent.to_owned(), Origin::Link),
        };
        Ok(Self {
            kind,
            parent,
            origin,
        })
    }

    /// Nothing beyond the network's own links can be reached.
    pub fn is_internal(&self, network: &Network) -> bool {
        network.internal || self.origin == Origin::Dummy
    }

    /// Routed by the kernel instead of bridged: default routes name the link, and there is no gateway.
    pub fn is_routed(&self) -> bool {
        matches!(self.kind, Kind::Ipvlan { mode, .. } if mode != IPVLAN_L2)
    }

    /// Whether an endpoint may choose its hardware address.
    pub fn has_own_mac(&self) -> bool {
        matches!(self.kind, Kind::Macvlan { .. })
    }

    pub fn is_passthru(&self) -> bool {
        matches!(
            self.kind,
            Kind::Macvlan {
                mode: MACVLAN_PASSTHRU
            }
        )
    }
}

fn option<'a>(network: &'a Network, key: &str) -> &'a str {
    network.options.get(key).map_or("", String::as_str)
}

fn macvlan(network: &Network) -> Result<Kind, String> {
    let mode = match option(network, MACVLAN_MODE) {
        "" | "bridge" => MACVLAN_BRIDGE,
        "private" => 1,
        "vepa" => 2,
        "passthru" => MACVLAN_PASSTHRU,
        other => {
            return Err(format!(
                "requested macvlan mode '{other}' is not valid, 'bridge' mode is the macvlan driver default"
            ));
        }
    };
    Ok(Kind::Macvlan { mode })
}

fn ipvlan(network: &Network) -> Result<Kind, String> {
    let mode = match option(network, IPVLAN_MODE) {
        "" | "l2" => IPVLAN_L2,
        "l3" => 1,
        "l3s" => 2,
        other => {
            return Err(format!(
                "requested ipvlan mode '{other}' is not valid, 'l2' mode is the ipvlan driver default"
            ));
        }
    };
    let flags = match option(network, IPVLAN_FLAG) {
        "" | "bridge" => 0,
        "private" => 1,
        "vepa" => 2,
        other => {
            return Err(format!(
                "requested ipvlan flag '{other}' is not valid, 'bridge' is the ipvlan driver default"
            ));
        }
    };
    Ok(Kind::Ipvlan { mode, flags })
}

/// Reads the name of a VLAN link, in Docker's words when it is none.
pub fn vlan_of(parent: &str) -> Result<Vlan, String> {
    let parts: Vec<&str> = parent.split('.').collect();
    let [link, id] = parts.as_slice() else {
        return Err(format!(
            "invalid subinterface vlan name {parent}, example formatting is eth0.10"
        ));
    };
    let id: i64 = id.parse().map_err(|_| {
        format!("unable to parse a valid vlan id from: {id} (ex. eth0.10 for vlan 10)")
    })?;
    let id = u16::try_from(id)
        .ok()
        .filter(|id| (1..=4094).contains(id))
        .ok_or_else(|| format!("vlan id must be between 1-4094, received: {id}"))?;
    Ok(Vlan {
        link: (*link).to_owned(),
        id,
    })
}

#[cfg(test)]
mod tests {
    use super::super::definitions::blank;
    use super::*;

    fn network(driver: &str, options: &[(&str, &str)]) -> Network {
        let mut network = blank("n", driver);
        let options = options.iter();
        network.options = options
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        network
    }

    #[test]
    fn options_are_read() {
        let of = |driver, options: &[_]| Parented::of(&network(driver, options));
        assert_eq!(of("bridge", &[]), None);
        let plain = of("macvlan", &[("parent", "eth0")]).unwrap().unwrap();
        assert_eq!(plain.kind, Kind::Macvlan { mode: 4 });
        assert_eq!(
            (plain.parent.as_str(), plain.origin),
            ("eth0", Origin::Link)
        );
        let routed = of("ipvlan", &[("parent", "eth0"), ("ipvlan_mode", "l3s")]);
        assert!(routed.unwrap().unwrap().is_routed());
        let alone = network("ipvlan", &[]);
        let parented = Parented::of(&alone).unwrap().unwrap();
        assert_eq!(parented.parent, format!("di-{}", &alone.id[..12]));
        assert!(parented.is_internal(&alone));
    }

    #[test]
    fn nonsense_is_refused_in_dockers_words() {
        for (driver, key, value, message) in [
            (
                "macvlan",
                "macvlan_mode",
                "x",
                "requested macvlan mode 'x' is not valid, 'bridge' mode is the macvlan driver default",
            ),
            (
                "ipvlan",
                "ipvlan_mode",
                "x",
                "requested ipvlan mode 'x' is not valid, 'l2' mode is the ipvlan driver default",
            ),
            (
                "ipvlan",
                "ipvlan_flag",
                "x",
                "requested ipvlan flag 'x' is not valid, 'bridge' is the ipvlan driver default",
            ),
            (
                "macvlan",
                "parent",
                "lo",
                "loopback interface is not a valid macvlan parent link",
            ),
        ] {
            let refused = Parented::of(&network(driver, &[(key, value)])).unwrap();
            assert_eq!(refused.unwrap_err(), message);
        }
    }

    #[test]
    fn vlan_names_are_read() {
        let expected = Vlan {
            link: "eth0".into(),
            id: 10,
        };
        assert_eq!(vlan_of("eth0.10"), Ok(expected));
        for (name, message) in [
            (
                "nonsense",
                "invalid subinterface vlan name nonsense, example formatting is eth0.10",
            ),
            (
                "eth0.x",
                "unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)",
            ),
            (
                "eth0.5000",
                "vlan id must be between 1-4094, received: 5000",
            ),
            ("eth0.0", "vlan id must be between 1-4094, received: 0"),
        ] {
            assert_eq!(vlan_of(name).unwrap_err(), message);
        }
    }
}
