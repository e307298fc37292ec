//! Address management: subnets, and addresses out of them, for both families.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bits of an address.
    fn width(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    fn address(self, bits: u128) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from_bits(bits as u32).into(),
            Self::V6 => Ipv6Addr::from_bits(bits).into(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// A subnet in canonical form (host bits zero); `address/prefix` where it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Subnet {
    family: Family,
    base: u128,
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
    #[error("no available {0} addresses on this network's address pools: {1}")]
    NetworkFull(Family, String),
    #[error("Address already in use")]
    InUse,
    #[error("no configured subnet contains IP address {0}")]
    OutOfRange(IpAddr),
}

impl Subnet {
    /// `prefix` in bits; more than the family has counts as all.
    pub fn new(address: IpAddr, prefix: u8) -> Self {
        let family = Family::of(address);
        let prefix = prefix.min(family.width());
        let subnet = Self {
            family,
            base: 0,
            prefix,
        };
        Self {
            base: bits(address) & !subnet.host_mask(),
            ..subnet
        }
    }

    pub fn family(self) -> Family {
        self.family
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Its parts of `prefix` bits, in order; none when it is smaller.
    pub fn parts(self, prefix: u8) -> impl Iterator<Item = Self> {
        let width = self.family.width();
        let fits = (self.prefix..=width).contains(&prefix);
        let step = 1u128.checked_shl(u32::from(width.saturating_sub(prefix)));
        let first = fits.then_some(self.base);
        let next = move |base: &u128| base.checked_add(step?).filter(|base| *base <= self.last());
        std::iter::successors(first, next).map(move |base| Self {
            base,
            prefix,
            ..self
        })
    }

    fn host_mask(self) -> u128 {
        let host_bits = u32::from(self.family.width() - self.prefix);
        1u128.checked_shl(host_bits).unwrap_or(0).wrapping_sub(1)
    }

    fn last(self) -> u128 {
        self.base | self.host_mask()
    }

    pub fn contains(self, address: IpAddr) -> bool {
        Family::of(address) == self.family && (self.base..=self.last()).contains(&bits(address))
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.family == other.family && self.base <= other.last() && other.base <= self.last()
    }

    /// The first host address, Docker's choice of gateway.
    pub fn first_host(self) -> IpAddr {
        self.family.address(*self.hosts().start())
    }

    /// Addresses that an endpoint may have: not the network's own (in IPv6 that of its routers, RFC 4291 2.6.1), and in IPv4
    /// not the broadcast address.
    fn hosts(self) -> std::ops::RangeInclusive<u128> {
        match (self.family, self.family.width() - self.prefix) {
            (_, 0 | 1) => self.base..=self.last(),
            (Family::V4, _) => self.base + 1..=self.last() - 1,
            (Family::V6, _) => self.base + 1..=self.last(),
        }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.family.address(self.base), self.prefix)
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl TryFrom<String> for Subnet {
    type Error = IpamError;

    fn try_from(text: String) -> Result<Self, IpamError> {
        text.parse()
    }
}

impl FromStr for Subnet {
    type Err = IpamError;

    fn from_str(text: &str) -> Result<Self, IpamError> {
        let bad = || IpamError::BadSubnet(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix = prefix
            .parse()
            .ok()
            .filter(|prefix| *prefix <= Family::of(address).width())
            .ok_or_else(bad)?;
        Ok(Self::new(address, prefix))
    }
}

/// One subnet of a network, as it is in effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    pub subnet: Subnet,
    /// Where addresses are chosen from; all of the subnet when not told.
    #[serde(default)]
    pub range: Option<Subnet>,
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Addresses that others have.
    #[serde(default)]
    pub reserved: Vec<IpAddr>,
    /// Chosen by the user, who may then choose endpoints' addresses too.
    #[serde(default)]
    pub configured: bool,
}

/// The addresses of one subnet of a network; the lowest free one is handed out, as Docker does.
#[derive(Clone, Debug)]
struct AddressPool {
    subnet: Subnet,
    range: Subnet,
    gateway: Option<IpAddr>,
    used: BTreeSet<u128>,
}

/// What an endpoint gets of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub address: IpAddr,
    /// Of the subnet, in bits.
    pub prefix: u8,
    pub gateway: Option<IpAddr>,
}

impl AddressPool {
    fn new(allocation: &Allocation) -> Self {
        let taken = allocation.gateway.iter().chain(&allocation.reserved);
        Self {
            subnet: allocation.subnet,
            range: allocation.range.unwrap_or(allocation.subnet),
            gateway: allocation.gateway,
            used: taken.map(|address| bits(*address)).collect(),
        }
    }

    fn take(&mut self, wanted: Option<IpAddr>) -> Result<IpAddr, IpamError> {
        if let Some(address) = wanted {
            if !self.subnet.contains(address) {
                return Err(IpamError::OutOfRange(address));
            }
            if !self.used.insert(bits(address)) {
                return Err(IpamError::InUse);
            }
            return Ok(address);
        }
        let hosts = self.subnet.hosts();
        let first = self.range.base.max(*hosts.start());
        let last = self.range.last().min(*hosts.end());
        let free = (first..=last)
            .find(|bits| !self.used.contains(bits))
            .ok_or_else(|| IpamError::NetworkFull(self.subnet.family, self.subnet.to_string()))?;
        self.used.insert(free);
        Ok(self.subnet.family.address(free))
    }
}

/// All subnets of one network.
#[derive(Clone, Debug, Default)]
pub struct Pools(Vec<AddressPool>);

impl Pools {
    pub fn new(allocations: &[Allocation]) -> Self {
        Self(allocations.iter().map(AddressPool::new).collect())
    }

    fn of(&mut self, family: Family) -> impl Iterator<Item = &mut AddressPool> {
        self.0
            .iter_mut()
            .filter(move |pool| pool.subnet.family == family)
    }

    /// Marks an address as taken, whether or not it was.
    pub fn mark(&mut self, address: IpAddr) {
        for pool in self.of(Family::of(address)) {
            if pool.subnet.contains(address) {
                pool.used.insert(bits(address));
            }
        }
    }

    pub fn release(&mut self, address: IpAddr) {
        for pool in self.of(Family::of(address)) {
            pool.used.remove(&bits(address));
        }
    }

    /// An address of the family, from the first subnet that has it; nothing when the network has no such subnet.
    pub fn take(
        &mut self,
        family: Family,
        wanted: Option<IpAddr>,
    ) -> Result<Option<Lease>, IpamError> {
        let mut failed = None;
        for pool in self.of(family) {
            match pool.take(wanted) {
                Ok(address) => {
                    return Ok(Some(Lease {
                        address,
                        prefix: pool.subnet.prefix,
                        gateway: pool.gateway,
                    }));
                }
                // In use is the last word: no other subnet has that address.
                Err(IpamError::InUse) => return Err(IpamError::InUse),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(None), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn pool(text: &str, range: Option<&str>, gateway: Option<&str>) -> Allocation {
        Allocation {
            subnet: subnet(text),
            range: range.map(subnet),
            gateway: gateway.map(ip),
            reserved: Vec::new(),
            configured: true,
        }
    }

    #[test]
    fn subnets_parse_and_print_canonically() {
        for (text, canonical) in [
            ("10.1.2.3/24", "10.1.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("1.2.3.4/32", "1.2.3.4/32"),
            ("fd00:0:0:1::5/64", "fd00:0:0:1::/64"),
            ("::/0", "::/0"),
            ("2001:DB8::1/128", "2001:db8::1/128"),
        ] {
            assert_eq!(subnet(text).to_string(), canonical);
        }
        for bad in [
            "10.0.0.0",
            "10.0.0.0/33",
            "a/8",
            "",
            "10.0.0/8",
            "fd00::/129",
            "fd00::",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn families_never_meet() {
        assert!(!subnet("::/0").overlaps(subnet("0.0.0.0/0")));
        assert!(!subnet("::/0").contains(ip("10.0.0.1")));
        assert!(subnet("fd00::/8").overlaps(subnet("fd12::/64")));
        assert!(subnet("fd00::/64").contains(ip("fd00::ffff:ffff:ffff:ffff")));
        assert!(!subnet("fd00::/64").contains(ip("fd00:0:0:1::")));
    }

    #[test]
    fn addresses_are_unique_and_bounded() {
        let mut pools = Pools::new(&[pool("10.0.0.0/29", None, Some("10.0.0.1"))]);
        let take = |pools: &mut Pools| pools.take(Family::V4, None);
        let all: Vec<_> = (0..5)
            .map(|_| take(&mut pools).unwrap().unwrap().address.to_string())
            .collect();
        let expected = [2, 3, 4, 5, 6].map(|last| format!("10.0.0.{last}"));
        assert_eq!(all, expected);
        assert_eq!(
            take(&mut pools),
            Err(IpamError::NetworkFull(Family::V4, "10.0.0.0/29".into()))
        );
        pools.release(ip("10.0.0.4"));
        assert_eq!(take(&mut pools).unwrap().unwrap().address, ip("10.0.0.4"));
        assert_eq!(pools.take(Family::V6, None), Ok(None));
    }

    #[test]
    fn ipv6_addresses_begin_after_the_gateway() {
        let mut pools = Pools::new(&[pool("fd00:1::/64", None, Some("fd00:1::1"))]);
        let lease = pools.take(Family::V6, None).unwrap().unwrap();
        assert_eq!(
            (lease.address, lease.prefix, lease.gateway),
            (ip("fd00:1::2"), 64, Some(ip("fd00:1::1")))
        );
        // The whole space of a subnet can be had, far away addresses too.
        let far = ip("fd00:1::ffff:ffff:ffff:ffff");
        let lease = pools.take(Family::V6, Some(far)).unwrap().unwrap();
        assert_eq!(lease.address, far);
        assert_eq!(subnet("fd00::/127").first_host(), ip("fd00::"));
        assert_eq!(subnet("fd00::/64").first_host(), ip("fd00::1"));
    }

    #[test]
    fn wanted_addresses_and_ranges_are_honoured() {
        let mut pools = Pools::new(&[pool("10.0.0.0/24", Some("10.0.0.128/25"), Some("10.0.0.1"))]);
        let mut take = |wanted: Option<&str>| {
            let lease = pools.take(Family::V4, wanted.map(ip))?;
            Ok(lease.unwrap().address)
        };
        assert_eq!(take(None), Ok(ip("10.0.0.128")));
        assert_eq!(take(Some("10.0.0.7")), Ok(ip("10.0.0.7")));
        assert_eq!(take(Some("10.0.0.7")), Err(IpamError::InUse));
        assert_eq!(take(Some("10.0.0.1")), Err(IpamError::InUse));
        assert_eq!(
            take(Some("10.1.0.7")),
            Err(IpamError::OutOfRange(ip("10.1.0.7")))
        );
    }

    #[test]
    fn a_second_subnet_is_used_when_the_first_is_full() {
        let mut pools = Pools::new(&[
            pool("10.0.0.0/30", None, Some("10.0.0.1")),
            pool("10.0.1.0/24", None, Some("10.0.1.1")),
        ]);
        let mut take = |wanted| pools.take(Family::V4, wanted).unwrap().unwrap();
        assert_eq!(take(None).address, ip("10.0.0.2"));
        let other = take(None);
        assert_eq!(other.address, ip("10.0.1.2"));
        assert_eq!(other.gateway, Some(ip("10.0.1.1")));
        assert_eq!(take(Some(ip("10.0.1.9"))).address, ip("10.0.1.9"));
    }
}
