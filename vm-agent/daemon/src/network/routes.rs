//! Which of a container's networks its default routes lead through.

use std::cmp::Reverse;
use std::net::IpAddr;

use super::ipam::Family;
use super::model::{Endpoint, Network};

/// A default route of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    pub family: Family,
    /// By its name inside the container.
    pub link: String,
    /// `None`: every address is behind the link itself.
    pub gateway: Option<IpAddr>,
}

fn route_through(endpoint: &Endpoint, family: Family) -> Option<DefaultRoute> {
    let lease = endpoint.lease(family)?;
    let leads_out = lease.gateway.is_some() || endpoint.routed;
    leads_out.then(|| DefaultRoute {
        family,
        link: endpoint.guest_link.clone(),
        gateway: lease.gateway,
    })
}

/// For each family the route through the first network that has one: by priority, then those with both families, then by name.
pub fn default_routes<'a>(
    ends: impl Iterator<Item = (&'a Network, &'a Endpoint)>,
) -> Vec<DefaultRoute> {
    let ways = |endpoint| {
        let families = Family::BOTH.iter();
        families
            .filter(|family| route_through(endpoint, **family).is_some())
            .count()
    };
    let mut ends: Vec<_> = ends.collect();
    ends.sort_by_key(|(network, endpoint)| {
        let priority = Reverse(endpoint.asked.gw_priority);
        (priority, Reverse(ways(endpoint)), network.name.as_str())
    });
    let first = |family: &Family| {
        ends.iter()
            .find_map(|(_, endpoint)| route_through(endpoint, *family))
    };
    Family::BOTH.iter().filter_map(first).collect()
}

#[cfg(test)]
mod tests {
    use super::super::definitions::blank;
    use super::super::ipam::Lease;
    use super::super::model::EndpointSettings;
    use super::*;

    fn lease(address: &str, gateway: &str) -> Option<Lease> {
        Some(Lease {
            address: address.parse().ok()?,
            prefix: 24,
            gateway: gateway.parse().ok(),
        })
    }

    fn end(name: &str, link: &str, priority: i64) -> (Network, Endpoint) {
        let endpoint = Endpoint {
            guest_link: link.into(),
            v4: lease("10.0.0.2", "10.0.0.1"),
            asked: EndpointSettings {
                gw_priority: priority,
                ..Default::default()
            },
            ..Default::default()
        };
        (blank(name, "bridge"), endpoint)
    }

    fn links(ends: &[(Network, Endpoint)]) -> Vec<(Family, String)> {
        let routes = default_routes(ends.iter().map(|(network, end)| (network, end)));
        routes
            .into_iter()
            .map(|route| (route.family, route.link))
            .collect()
    }

    #[test]
    fn the_first_name_wins_and_a_priority_before_it() {
        let mut ends = vec![end("b", "eth0", 0), end("a", "eth1", 0)];
        assert_eq!(links(&ends), [(Family::V4, "eth1".into())]);
        ends[0].1.asked.gw_priority = 1;
        assert_eq!(links(&ends), [(Family::V4, "eth0".into())]);
    }

    #[test]
    fn both_families_go_before_one() {
        let mut ends = vec![end("a", "eth0", 0), end("b", "eth1", 0)];
        ends[1].1.v6 = lease("fd00::2", "fd00::1");
        let both = [(Family::V4, "eth1".into()), (Family::V6, "eth1".into())];
        assert_eq!(links(&ends), both);
    }

    #[test]
    fn internal_networks_lead_nowhere_and_routed_ones_through_their_link() {
        let mut ends = vec![end("a", "eth0", 0)];
        ends[0].1.v4 = lease("10.0.0.2", "");
        assert!(links(&ends).is_empty());
        ends[0].1.routed = true;
        assert_eq!(links(&ends), [(Family::V4, "eth0".into())]);
    }
}
