//! IPv4 address management: subnets out of the default pools, addresses out of a subnet.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 subnet in canonical form (host bits zero).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    base: u32,
    prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    #[error("invalid CIDR address: {0}")]
    BadSubnet(String),
    #[error("Pool overlaps with other one on this address space")]
    Overlap,
    #[error("all predefined address pools have been fully subnetted")]
    PoolsExhausted,
    #[error("no available IPv4 addresses on this network's address pools: {0}")]
    NetworkFull(String),
    #[error("Address already in use")]
    InUse,
    #[error("no configured subnet contains IP address {0}")]
    OutOfRange(Ipv4Addr),
}

impl Subnet {
    pub const fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let bits = address.to_bits();
        let base = if prefix == 0 {
            0
        } else {
            bits & (u32::MAX << (32 - prefix as u32))
        };
        Self { base, prefix }
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    fn last(self) -> u32 {
        self.base | u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0)
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.base..=self.last()).contains(&address.to_bits())
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.base <= other.last() && other.base <= self.last()
    }

    pub fn within(self, other: Self) -> bool {
        other.base <= self.base && self.last() <= other.last()
    }

    /// The first host address, Docker's choice of gateway.
    pub fn first_host(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + u32::from(self.prefix < 31))
    }

    /// Addresses that an endpoint may have: neither the network's own nor the broadcast address.
    fn hosts(self) -> std::ops::RangeInclusive<u32> {
        match self.prefix {
            31.. => self.base..=self.last(),
            _ => self.base + 1..=self.last() - 1,
        }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.base), self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = IpamError;

    fn from_str(text: &str) -> Result<Self, IpamError> {
        let bad = || IpamError::BadSubnet(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address = address.parse().map_err(|_| bad())?;
        let prefix = prefix
            .parse()
            .ok()
            .filter(|prefix| *prefix <= 32)
            .ok_or_else(bad)?;
        Ok(Self::new(address, prefix))
    }
}

/// Docker's local default pools: 172.17 to 172.31 as /16, then 192.168 in /20 steps.
fn default_pools() -> impl Iterator<Item = Subnet> {
    let large = (17..=31).map(|second| Subnet::new(Ipv4Addr::new(172, second, 0, 0), 16));
    let small = (0..16).map(|step| Subnet::new(Ipv4Addr::new(192, 168, step * 16, 0), 20));
    large.chain(small)
}

/// The first default pool that meets none of the subnets in use.
pub fn free_subnet(in_use: &[Subnet]) -> Result<Subnet, IpamError> {
    default_pools()
        .find(|pool| !in_use.iter().any(|used| used.overlaps(*pool)))
        .ok_or(IpamError::PoolsExhausted)
}

/// The addresses of one network; the lowest free one is handed out, as Docker does.
#[derive(Clone, Debug)]
pub struct AddressPool {
    subnet: Subnet,
    range: Subnet,
    used: BTreeSet<u32>,
}

impl AddressPool {
    pub fn new(subnet: Subnet, range: Option<Subnet>, gateway: Ipv4Addr) -> Self {
        let used = BTreeSet::from([gateway.to_bits()]);
        Self {
            subnet,
            range: range.unwrap_or(subnet),
            used,
        }
    }

    /// Marks an address as taken, whether or not it was.
    pub fn mark(&mut self, address: Ipv4Addr) {
        self.used.insert(address.to_bits());
    }

    pub fn take(&mut self, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, IpamError> {
        if let Some(address) = wanted {
            if !self.subnet.contains(address) {
                return Err(IpamError::OutOfRange(address));
            }
            if !self.used.insert(address.to_bits()) {
                return Err(IpamError::InUse);
            }
            return Ok(address);
        }
        let hosts = self.subnet.hosts();
        let first = self.range.base.max(*hosts.start());
        let last = self.range.last().min(*hosts.end());
        let free = (first..=last)
            .find(|bits| !self.used.contains(bits))
            .ok_or_else(|| IpamError::NetworkFull(self.subnet.to_string()))?;
        self.used.insert(free);
        Ok(Ipv4Addr::from_bits(free))
    }

    pub fn release(&mut self, address: Ipv4Addr) {
        self.used.remove(&address.to_bits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_parse_and_print_canonically() {
        for (text, canonical) in [
            ("10.1.2.3/24", "10.1.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("1.2.3.4/32", "1.2.3.4/32"),
        ] {
            assert_eq!(subnet(text).to_string(), canonical);
        }
        for bad in ["10.0.0.0", "10.0.0.0/33", "a/8", "", "10.0.0/8"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn pools_skip_what_is_in_use() {
        for (used, expected) in [
            (vec![], "172.17.0.0/16"),
            (vec!["172.17.0.0/16"], "172.18.0.0/16"),
            (vec!["172.16.0.0/12"], "192.168.0.0/20"),
            (vec!["172.17.0.0/16", "172.18.5.0/24"], "172.19.0.0/16"),
        ] {
            let used: Vec<_> = used.into_iter().map(subnet).collect();
            assert_eq!(free_subnet(&used).unwrap().to_string(), expected);
        }
        assert_eq!(
            free_subnet(&[subnet("0.0.0.0/0")]),
            Err(IpamError::PoolsExhausted)
        );
    }

    #[test]
    fn addresses_are_unique_and_bounded() {
        let mut pool = AddressPool::new(subnet("10.0.0.0/29"), None, Ipv4Addr::new(10, 0, 0, 1));
        let all: Vec<_> = (0..5)
            .map(|_| pool.take(None).unwrap().octets()[3])
            .collect();
        assert_eq!(all, [2, 3, 4, 5, 6]);
        assert_eq!(
            pool.take(None),
            Err(IpamError::NetworkFull("10.0.0.0/29".into()))
        );
        pool.release(Ipv4Addr::new(10, 0, 0, 4));
        assert_eq!(pool.take(None).unwrap(), Ipv4Addr::new(10, 0, 0, 4));
    }

    #[test]
    fn wanted_addresses_and_ranges_are_honoured() {
        let gateway = Ipv4Addr::new(10, 0, 0, 1);
        let range = Some(subnet("10.0.0.128/25"));
        let mut pool = AddressPool::new(subnet("10.0.0.0/24"), range, gateway);
        assert_eq!(pool.take(None).unwrap(), Ipv4Addr::new(10, 0, 0, 128));
        let wanted = Ipv4Addr::new(10, 0, 0, 7);
        assert_eq!(pool.take(Some(wanted)).unwrap(), wanted);
        assert_eq!(pool.take(Some(wanted)), Err(IpamError::InUse));
        assert_eq!(pool.take(Some(gateway)), Err(IpamError::InUse));
        let outside = Ipv4Addr::new(10, 1, 0, 7);
        assert_eq!(
            pool.take(Some(outside)),
            Err(IpamError::OutOfRange(outside))
        );
    }
}
