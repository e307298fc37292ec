//! The engine's one nf_tables table: fixed rules over sets and maps, changed over netlink.
//!
//! Rules never change while containers come and go; a bridge or a published port is a set element.
//! The whole table is (re)built in a single transaction, so after a crash of any kind it is whole.
//!
//! The table is of the family `inet`: one rule for IPv4 and IPv6 alike wherever no address is looked at.
//!
//! ```text
//! raw (prerouting, -300):  iifname @bridges, ip daddr 127.0.0.0/8     drop
//! pre (prerouting, dstnat) / out (output, dstnat):
//!                          fib daddr type local                      → jump ports
//! ports:                   ip daddr . l4proto . dport @ports_addr     dnat ip
//!                          ipv4, l4proto . dport @ports_any           dnat ip
//!                          ip6 daddr . l4proto . dport @ports6_addr   dnat ip6
//!                          ipv6, l4proto . dport @ports6_any          dnat ip6
//! fwd (forward, 0):        ct state established,related              accept
//!                          ct status dnat                            accept
//!                          iifname . oifname @pairs                  accept
//!                          oifname @bridges                          drop
//!                          iifname @internal                         drop
//! post (postrouting, srcnat):
//!                          iifname @masq, oifname != @bridges        masquerade
//!                          oifname @bridges, ct status dnat, ip saddr 127.0.0.0/8  masquerade
//!                          iifname @masq, oifname @bridges, ct status dnat         masquerade
//! ```

use std::net::IpAddr;

use super::ipam::Family;
use super::netlink::{Message, NLM_F_APPEND, NLM_F_CREATE, NetlinkError, Socket};

const TABLE: &str = "longshore";
const SUBSYSTEM: u16 = 10 << 8; // NFNL_SUBSYS_NFTABLES
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
// linux/netfilter/nf_tables.h
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;

const REG_VERDICT: u32 = 0;
/// The 32-bit registers from `NFT_REG32_00`; an interface name fills four of them.
const REG: u32 = 8;

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NFT_JUMP: u32 = -3i32 as u32;

const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CT_ESTABLISHED_OR_RELATED: u32 = 0b110;
const IPS_DST_NAT: u32 = 1 << 5;
const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_F_DADDR: u32 = 2;
const RTN_LOCAL: u32 = 2;
/// Of an IPv4 header.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
const IFNAMSIZ: usize = 16;

/// Sets of bridge names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BridgeSet {
    /// Every bridge of ours.
    Bridges,
    /// Bridges whose traffic leaves under the guest's address.
    Masquerade,
    /// Bridges that may not reach outside.
    Internal,
}

impl BridgeSet {
    const ALL: [Self; 3] = [Self::Bridges, Self::Masquerade, Self::Internal];

    fn name(self) -> &'static str {
        match self {
            Self::Bridges => "bridges",
            Self::Masquerade => "masq",
            Self::Internal => "internal",
        }
    }
}

/// What one bridge may do.
#[derive(Clone, Debug)]
pub struct BridgeRules<'a> {
    pub name: &'a str,
    pub masquerade: bool,
    pub internal: bool,
    pub icc: bool,
}

/// A published port inside the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    pub protocol: u8,
    /// `0.0.0.0` or `::` stands for every address of the guest; of the same family as the container's.
    pub host_ip: IpAddr,
    pub host_port: u16,
    pub container_ip: IpAddr,
    pub container_port: u16,
}

/// The maps of published ports of one family, and where its header has the destination.
struct PortMap {
    family: Family,
    any: &'static str,
    one: &'static str,
    /// nft's number of the address's type.
    address_type: u32,
    /// In bytes.
    address_len: u32,
    /// Offset in the header, in bytes.
    destination: u32,
}

impl PortMap {
    fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self {
                family,
                any: "ports_any",
                one: "ports_addr",
                address_type: 7,
                address_len: 4,
                destination: DESTINATION,
            },
            Family::V6 => Self {
                family,
                any: "ports6_any",
                one: "ports6_addr",
                address_type: 8,
                address_len: 16,
                destination: 24,
            },
        }
    }

    fn nfproto(&self) -> i32 {
        match self.family {
            Family::V4 => libc::NFPROTO_IPV4,
            Family::V6 => libc::NFPROTO_IPV6,
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An nf_tables transaction.
pub struct Batch {
    parts: Vec<(&'static str, Message, bool)>,
    next_set: u32,
}

/// `struct nfgenmsg`.
fn nfgen(family: i32, resource: u16) -> [u8; 4] {
    let id = resource.to_be_bytes();
    [family as u8, 0, id[0], id[1]]
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    pub fn new() -> Self {
        let begin = Message::new(BATCH_BEGIN, 0, &nfgen(libc::AF_UNSPEC, 10));
        Self {
            parts: vec![("begin nf_tables transaction", begin, false)],
            next_set: 0,
        }
    }

    fn push(&mut self, what: &'static str, kind: u16, flags: u16, fill: impl FnOnce(&mut Message)) {
        let mut message = Message::new(SUBSYSTEM | kind, flags, &nfgen(libc::NFPROTO_INET, 0));
        fill(&mut message);
        self.parts.push((what, message, true));
    }

    /// Applies everything or nothing.
    pub fn commit(mut self, socket: &mut Socket) -> Result<(), NetlinkError> {
        let end = Message::new(BATCH_END, 0, &nfgen(libc::AF_UNSPEC, 10));
        self.parts.push(("end nf_tables transaction", end, false));
        socket.transact(&self.parts)
    }

    /// Replaces the table by an empty one with its sets, chains and rules.
    pub fn rebuild(&mut self) -> &mut Self {
        // Created first so that the deletion never meets a missing table.
        self.table(NEWTABLE).table(DELTABLE).table(NEWTABLE);
        for set in BridgeSet::ALL {
            self.set(set.name(), IFNAMSIZ, 41, None);
        }
        self.set("pairs", IFNAMSIZ * 2, (41 << 6) | 41, None);
        for family in Family::BOTH {
            let map = PortMap::of(family);
            // The address's type, inet_proto (12), inet_service (13); data is address . inet_service.
            let data = Some((map.address_len + 4, (map.address_type << 6) | 13));
            self.set(map.any, 8, (12 << 6) | 13, data);
            let key = (map.address_type << 12) | (12 << 6) | 13;
            self.set(map.one, map.address_len as usize + 8, key, data);
        }
        self.chain("raw", Some(("filter", libc::NF_INET_PRE_ROUTING, -300)));
        self.chain("pre", Some(("nat", libc::NF_INET_PRE_ROUTING, -100)));
        self.chain("out", Some(("nat", libc::NF_INET_LOCAL_OUT, -100)));
        self.chain("ports", None);
        self.chain("fwd", Some(("filter", libc::NF_INET_FORWARD, 0)));
        self.chain("post", Some(("nat", libc::NF_INET_POST_ROUTING, 100)));
        self.rules();
        self
    }

    fn rules(&mut self) {
        self.rule("raw", |r| {
            r.in_set(META_IIFNAME, "bridges", false);
            r.ipv4_loopback(DESTINATION);
            r.verdict(NF_DROP, None);
        });
        for chain in ["pre", "out"] {
            self.rule(chain, |r| {
                r.fib_local();
                r.verdict(NFT_JUMP, Some("ports"));
            });
        }
        for family in Family::BOTH {
            self.port_rules(&PortMap::of(family));
        }
        self.rule("fwd", |r| {
            r.ct_bits(CT_STATE, CT_ESTABLISHED_OR_RELATED);
            r.verdict(NF_ACCEPT, None);
        });
        self.rule("fwd", |r| {
            r.ct_bits(CT_STATUS, IPS_DST_NAT);
            r.verdict(NF_ACCEPT, None);
        });
        self.rule("fwd", |r| {
            r.meta(META_IIFNAME, REG);
            r.meta(META_OIFNAME, REG + 4);
            r.lookup("pairs", REG, false);
            r.verdict(NF_ACCEPT, None);
        });
        self.rule("fwd", |r| {
            r.in_set(META_OIFNAME, "bridges", false);
            r.verdict(NF_DROP, None);
        });
        self.rule("fwd", |r| {
            r.in_set(META_IIFNAME, "internal", false);
            r.verdict(NF_DROP, None);
        });
        self.rule("post", |r| {
            r.in_set(META_IIFNAME, "masq", false);
            r.in_set(META_OIFNAME, "bridges", true);
            r.masquerade();
        });
        self.rule("post", |r| {
            r.in_set(META_OIFNAME, "bridges", false);
            r.ct_bits(CT_STATUS, IPS_DST_NAT);
            r.ipv4_loopback(SOURCE);
            r.masquerade();
        });
        self.rule("post", |r| {
            r.in_set(META_IIFNAME, "masq", false);
            r.in_set(META_OIFNAME, "bridges", false);
            r.ct_bits(CT_STATUS, IPS_DST_NAT);
            r.masquerade();
        });
    }

    fn port_rules(&mut self, map: &PortMap) {
        let words = map.address_len / 4;
        self.rule("ports", |r| {
            r.of_family(map);
            r.payload_network(map.destination, map.address_len, REG);
            r.meta(META_L4PROTO, REG + words);
            r.payload_transport(2, 2, REG + words + 1);
            r.map(map.one, REG, REG);
            r.dnat(map, REG, REG + words);
        });
        self.rule("ports", |r| {
            r.of_family(map);
            r.meta(META_L4PROTO, REG);
            r.payload_transport(2, 2, REG + 1);
            r.map(map.any, REG, REG);
            r.dnat(map, REG, REG + words);
        });
    }

    pub fn add_bridge(&mut self, bridge: &BridgeRules) -> &mut Self {
        self.change_bridge(NEWSETELEM, bridge)
    }

    pub fn remove_bridge(&mut self, bridge: &BridgeRules) -> &mut Self {
        self.change_bridge(DELSETELEM, bridge)
    }

    fn change_bridge(&mut self, kind: u16, bridge: &BridgeRules) -> &mut Self {
        let name = ifname(bridge.name);
        self.element(kind, BridgeSet::Bridges.name(), &name, None);
        if bridge.masquerade && !bridge.internal {
            self.element(kind, BridgeSet::Masquerade.name(), &name, None);
        }
        if bridge.internal {
            self.element(kind, BridgeSet::Internal.name(), &name, None);
        }
        if bridge.icc {
            self.element(kind, "pairs", &[name, name].concat(), None);
        }
        self
    }

    pub fn add_forward(&mut self, forward: &Forward) -> &mut Self {
        self.change_forward(NEWSETELEM, forward, true)
    }

    pub fn remove_forward(&mut self, forward: &Forward) -> &mut Self {
        self.change_forward(DELSETELEM, forward, false)
    }

    fn change_forward(&mut self, kind: u16, forward: &Forward, with_data: bool) -> &mut Self {
        let mut key = Vec::with_capacity(24);
        let any = forward.host_ip.is_unspecified();
        if !any {
            key.extend_from_slice(&octets(forward.host_ip));
        }
        // Concatenations fill whole registers: one byte or two, then zeroes.
        key.extend_from_slice(&[forward.protocol, 0, 0, 0]);
        key.extend_from_slice(&forward.host_port.to_be_bytes());
        key.extend_from_slice(&[0, 0]);
        let mut data = octets(forward.container_ip);
        data.extend_from_slice(&forward.container_port.to_be_bytes());
        data.extend_from_slice(&[0, 0]);
        let map = PortMap::of(Family::of(forward.container_ip));
        let name = if any { map.any } else { map.one };
        self.element(kind, name, &key, with_data.then_some(&data));
        self
    }

    fn table(&mut self, kind: u16) -> &mut Self {
        let flags = if kind == NEWTABLE { NLM_F_CREATE } else { 0 };
        self.push("change nf_tables table", kind, flags, |m| {
            m.text(1, TABLE).be32(2, 0);
        });
        self
    }

    fn set(&mut self, name: &str, key_len: usize, key_type: u32, data: Option<(u32, u32)>) {
        self.next_set += 1;
        let id = self.next_set;
        self.push("create nf_tables set", NEWSET, NLM_F_CREATE, |m| {
            // NFT_SET_MAP. The flag for concatenations is only for those with intervals.
            let flags = if data.is_some() { 8 } else { 0 };
            m.text(1, TABLE).text(2, name).be32(3, flags);
            m.be32(4, key_type).be32(5, key_len as u32);
            if let Some((len, kind)) = data {
                m.be32(6, kind).be32(7, len);
            }
            m.be32(10, id);
            // For people who list the table: nft prints names right when told the key's byte order.
            m.attr(13, &[0, 4, 1, 0, 0, 0]);
        });
    }

    fn chain(&mut self, name: &str, base: Option<(&str, i32, i32)>) {
        self.push("create nf_tables chain", NEWCHAIN, NLM_F_CREATE, |m| {
            m.text(1, TABLE).text(3, name);
            if let Some((kind, hook, priority)) = base {
                m.nest(4, |m| {
                    m.be32(1, hook as u32).be32(2, priority as u32);
                });
                m.be32(5, NF_ACCEPT).text(7, kind);
            }
        });
    }

    fn rule(&mut self, chain: &str, fill: impl FnOnce(&mut Expressions)) {
        self.push(
            "create nf_tables rule",
            NEWRULE,
            NLM_F_CREATE | NLM_F_APPEND,
            |m| {
                m.text(1, TABLE).text(2, chain);
                m.nest(4, |m| fill(&mut Expressions(m)));
            },
        );
    }

    fn element(&mut self, kind: u16, set: &str, key: &[u8], data: Option<&[u8]>) {
        let (what, flags) = if kind == NEWSETELEM {
            ("add nf_tables element", NLM_F_CREATE)
        } else {
            ("delete nf_tables element", 0)
        };
        self.push(what, kind, flags, |m| {
            m.text(1, TABLE).text(2, set);
            m.nest(3, |m| {
                m.nest(1, |m| {
                    m.nest(1, |m| {
                        m.attr(1, key);
                    });
                    if let Some(data) = data {
                        m.nest(2, |m| {
                            m.attr(1, data);
                        });
                    }
                });
            });
        });
    }
}

fn ifname(name: &str) -> [u8; IFNAMSIZ] {
    let mut padded = [0; IFNAMSIZ];
    let len = name.len().min(IFNAMSIZ - 1);
    padded[..len].copy_from_slice(&name.as_bytes()[..len]);
    padded
}

/// The expressions of one rule (attribute numbers from `linux/netfilter/nf_tables.h`).
struct Expressions<'a>(&'a mut Message);

impl Expressions<'_> {
    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Message)) {
        self.0.nest(1, |m| {
            m.text(1, name).nest(2, fill);
        });
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.expression("meta", |m| {
            m.be32(1, register).be32(2, key);
        });
    }

    fn lookup(&mut self, set: &str, register: u32, inverted: bool) {
        self.expression("lookup", |m| {
            m.text(1, set).be32(2, register);
            if inverted {
                m.be32(5, 1);
            }
        });
    }

    fn in_set(&mut self, key: u32, set: &str, inverted: bool) {
        self.meta(key, REG);
        self.lookup(set, REG, inverted);
    }

    fn map(&mut self, map: &str, key: u32, to: u32) {
        self.expression("lookup", |m| {
            m.text(1, map).be32(2, key).be32(3, to);
        });
    }

    fn payload(&mut self, base: u32, offset: u32, len: u32, register: u32) {
        self.expression("payload", |m| {
            m.be32(1, register)
                .be32(2, base)
                .be32(3, offset)
                .be32(4, len);
        });
    }

    fn payload_network(&mut self, offset: u32, len: u32, register: u32) {
        self.payload(1, offset, len, register);
    }

    fn payload_transport(&mut self, offset: u32, len: u32, register: u32) {
        self.payload(2, offset, len, register);
    }

    fn compare(&mut self, register: u32, operation: u32, value: &[u8]) {
        self.expression("cmp", |m| {
            m.be32(1, register).be32(2, operation).nest(3, |m| {
                m.attr(1, value);
            });
        });
    }

    fn of_family(&mut self, map: &PortMap) {
        self.meta(META_NFPROTO, REG);
        self.compare(REG, CMP_EQ, &[map.nfproto() as u8]);
    }

    /// An IPv4 packet whose address at `offset` is in 127.0.0.0/8.
    fn ipv4_loopback(&mut self, offset: u32) {
        self.of_family(&PortMap::of(Family::V4));
        self.payload_network(offset, 1, REG);
        self.compare(REG, CMP_EQ, &[127]);
    }

    /// True when any of `bits` is set.
    fn ct_bits(&mut self, key: u32, bits: u32) {
        self.expression("ct", |m| {
            m.be32(1, REG).be32(2, key);
        });
        self.expression("bitwise", |m| {
            m.be32(1, REG).be32(2, REG).be32(3, 4);
            m.nest(4, |m| {
                m.attr(1, &bits.to_ne_bytes());
            });
            m.nest(5, |m| {
                m.attr(1, &[0; 4]);
            });
        });
        self.compare(REG, CMP_NEQ, &[0; 4]);
    }

    fn fib_local(&mut self) {
        self.expression("fib", |m| {
            m.be32(1, REG)
                .be32(2, FIB_RESULT_ADDRTYPE)
                .be32(3, FIB_F_DADDR);
        });
        self.compare(REG, CMP_EQ, &RTN_LOCAL.to_ne_bytes());
    }

    fn dnat(&mut self, map: &PortMap, address: u32, port: u32) {
        self.expression("nat", |m| {
            m.be32(1, 1)
                .be32(2, map.nfproto() as u32)
                .be32(3, address)
                .be32(5, port);
        });
    }

    fn masquerade(&mut self) {
        self.expression("masq", |_| {});
    }

    fn verdict(&mut self, code: u32, chain: Option<&str>) {
        self.expression("immediate", |m| {
            m.be32(1, REG_VERDICT).nest(2, |m| {
                m.nest(2, |m| {
                    m.be32(1, code);
                    if let Some(chain) = chain {
                        m.text(2, chain);
                    }
                });
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::netlink::attributes;
    use super::*;

    fn element_of(batch: &Batch) -> (String, Vec<u8>, Option<Vec<u8>>) {
        let bytes = batch.parts[1].1.finish(1, true);
        let top = attributes(&bytes[20..]);
        let set = String::from_utf8_lossy(top[1].1)
            .trim_end_matches('\0')
            .to_owned();
        let element = attributes(attributes(top[2].1)[0].1);
        let value = |nested: &[u8]| attributes(nested)[0].1.to_vec();
        (
            set,
            value(element[0].1),
            element.get(1).map(|(_, nested)| value(nested)),
        )
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ipv6_ports_have_maps_of_their_own() {
        let forward = Forward {
            protocol: 17,
            host_ip: ip("::"),
            host_port: 53,
            container_ip: ip("fd00:1::2"),
            container_port: 5353,
        };
        let mut batch = Batch::new();
        batch.add_forward(&forward);
        let (set, key, data) = element_of(&batch);
        assert_eq!(set, "ports6_any");
        assert_eq!(key, [17, 0, 0, 0, 0, 53, 0, 0]);
        let mut expected = octets(ip("fd00:1::2"));
        expected.extend([0x14, 0xe9, 0, 0]);
        assert_eq!(data.unwrap(), expected);

        let mut batch = Batch::new();
        batch.add_forward(&Forward {
            host_ip: ip("fd00:2::1"),
            ..forward
        });
        let (set, key, _) = element_of(&batch);
        assert_eq!((set.as_str(), key.len()), ("ports6_addr", 24));
    }

    #[test]
    fn published_ports_become_map_elements() {
        let forward = Forward {
            protocol: 6,
            host_ip: ip("0.0.0.0"),
            host_port: 8080,
            container_ip: ip("172.17.0.2"),
            container_port: 80,
        };
        let mut batch = Batch::new();
        batch.add_forward(&forward);
        let (set, key, data) = element_of(&batch);
        assert_eq!(set, "ports_any");
        assert_eq!(key, [6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
        assert_eq!(data.unwrap(), [172, 17, 0, 2, 0, 80, 0, 0]);

        let mut batch = Batch::new();
        batch.remove_forward(&Forward {
            host_ip: ip("127.0.0.1"),
            ..forward
        });
        let (set, key, data) = element_of(&batch);
        assert_eq!((set.as_str(), data), ("ports_addr", None));
        assert_eq!(key, [127, 0, 0, 1, 6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
    }

    #[test]
    fn an_internal_bridge_is_never_masqueraded() {
        let sets = |internal| {
            let mut batch = Batch::new();
            batch.add_bridge(&BridgeRules {
                name: "br-1",
                masquerade: true,
                internal,
                icc: true,
            });
            batch.parts[1..]
                .iter()
                .map(|(_, message, _)| {
                    let bytes = message.finish(1, true);
                    String::from_utf8_lossy(attributes(&bytes[20..])[1].1)
                        .trim_end_matches('\0')
                        .to_owned()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(sets(false), ["bridges", "masq", "pairs"]);
        assert_eq!(sets(true), ["bridges", "internal", "pairs"]);
    }
}
