//! Where the subnets of networks come from when the user names none.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::ipam::{Family, IpamError, Subnet};

/// One of daemon.json's `default-address-pools`: a block that is cut into subnets of `size` bits.
#[derive(Clone, Debug, Deserialize)]
pub struct ConfiguredPool {
    base: Subnet,
    size: u8,
}

/// The configured pools; for a family without, Docker's own.
#[derive(Clone, Debug)]
pub struct DefaultPools {
    engine_id: String,
    configured: Vec<ConfiguredPool>,
}

impl DefaultPools {
    pub fn new(engine_id: &str, configured: Vec<ConfiguredPool>) -> Self {
        Self {
            engine_id: engine_id.to_owned(),
            configured,
        }
    }

    /// The first subnet of the family that meets none of those in use.
    pub fn free(&self, family: Family, in_use: &[Subnet]) -> Result<Subnet, IpamError> {
        let is_free = |subnet: &Subnet| !in_use.iter().any(|used| used.overlaps(*subnet));
        let configured = self.configured.iter();
        let mut configured = configured
            .filter(|pool| pool.base.family() == family)
            .peekable();
        let found = match (configured.peek().is_some(), family) {
            (true, _) => configured
                .flat_map(|pool| pool.base.parts(pool.size))
                .find(is_free),
            (false, Family::V4) => dockers_pools().find(is_free),
            (false, Family::V6) => local_pools(&self.engine_id).find(is_free),
        };
        found.ok_or(IpamError::PoolsExhausted)
    }
}

/// Docker's local default pools: 172.17 to 172.31 as /16, then 192.168 in /20 steps.
fn dockers_pools() -> impl Iterator<Item = Subnet> {
    let large = Subnet::new(Ipv4Addr::new(172, 16, 0, 0).into(), 12).parts(16);
    let small = Subnet::new(Ipv4Addr::new(192, 168, 0, 0).into(), 16).parts(20);
    large.skip(1).chain(small)
}

/// This engine's unique local addresses (RFC 4193): `fd` and 40 bits of a digest of its id (those that Docker takes), as a /48 of
/// 65536 /64s.
fn local_pools(engine_id: &str) -> impl Iterator<Item = Subnet> {
    let digest = Sha256::digest(engine_id.as_bytes());
    let global = digest[3..8]
        .iter()
        .fold(0xfd, |bits, byte| bits << 8 | u128::from(*byte));
    Subnet::new(Ipv6Addr::from_bits(global << 80).into(), 48).parts(64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn configured_pools_take_the_place_of_dockers() {
        let pools = serde_json::from_str(
            r#"[{"base": "10.9.0.0/23", "size": 24}, {"base": "fd09::/48", "size": 64}, {"base": "10.8.0.0/24", "size": 20}]"#,
        );
        let pools = DefaultPools::new("id", pools.unwrap());
        let free = |family, used: &[&str]| {
            let used: Vec<Subnet> = used.iter().map(|text| subnet(text)).collect();
            pools.free(family, &used).map(|found| found.to_string())
        };
        assert_eq!(free(Family::V4, &[]).unwrap(), "10.9.0.0/24");
        assert_eq!(free(Family::V4, &["10.9.0.0/24"]).unwrap(), "10.9.1.0/24");
        assert_eq!(
            free(Family::V4, &["10.9.0.0/23"]),
            Err(IpamError::PoolsExhausted)
        );
        assert_eq!(free(Family::V6, &["fd09::/64"]).unwrap(), "fd09:0:0:1::/64");
    }

    #[test]
    fn pools_skip_what_is_in_use() {
        let free = |used: &[Subnet]| DefaultPools::new("id", Vec::new()).free(Family::V4, used);
        for (used, expected) in [
            (vec![], "172.17.0.0/16"),
            (vec!["172.17.0.0/16"], "172.18.0.0/16"),
            (vec!["172.16.0.0/12"], "192.168.0.0/20"),
            (vec!["172.17.0.0/16", "172.18.5.0/24"], "172.19.0.0/16"),
            (vec!["::/0"], "172.17.0.0/16"),
        ] {
            let used: Vec<_> = used.into_iter().map(subnet).collect();
            assert_eq!(free(&used).unwrap().to_string(), expected);
        }
        assert_eq!(free(&[subnet("0.0.0.0/0")]), Err(IpamError::PoolsExhausted));
    }

    #[test]
    fn local_pools_are_the_engines_own() {
        let free = |id, used: &[Subnet]| {
            DefaultPools::new(id, Vec::new())
                .free(Family::V6, used)
                .unwrap()
        };
        // As Docker's engine of this id was seen to choose.
        let id = "4ffad558-5a47-4a8e-b07f-6c86be5e99c1";
        let first = free(id, &[]);
        assert_eq!(first.to_string(), "fd4a:6a98:d803::/64");
        assert_eq!(free(id, &[first]).to_string(), "fd4a:6a98:d803:1::/64");
        assert_ne!(first, free("another", &[]));
    }
}
