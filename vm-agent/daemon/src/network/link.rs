//! Links, addresses and routes through rtnetlink.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::ipam::Family;
use super::netlink::{
    Message, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NetlinkError, Socket, attributes,
};
use super::parent::Kind;

// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
// linux/if_link.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_FLAGS: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
// linux/if_addr.h
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
/// No duplicate address detection: the address is ours, and of use at once.
const IFA_F_NODAD: u8 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const IFF_UP: u32 = libc::IFF_UP as u32;

pub type Mac = [u8; 6];

/// `struct ifinfomsg`.
fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// The index of the link called `name`, if there is one.
pub fn index(socket: &mut Socket, name: &str) -> Result<Option<u32>, NetlinkError> {
    let mut message = Message::new(RTM_GETLINK, 0, &ifinfo(0, 0, 0));
    message.text(IFLA_IFNAME, name);
    match socket.get("look up link", &message) {
        Ok(Some(reply)) if reply.body.len() >= 16 => Ok(Some(u32::from_ne_bytes(
            reply.body[4..8]
                .try_into()
                .map_err(|_| NetlinkError::Malformed)?,
        ))),
        Ok(_) => Err(NetlinkError::Malformed),
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates a bridge that is up; one that exists already is brought up and kept.
pub fn ensure_bridge(
    socket: &mut Socket,
    name: &str,
    mac: Mac,
    mtu: Option<u32>,
) -> Result<u32, NetlinkError> {
    let mut message = Message::new(
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        &ifinfo(0, IFF_UP, IFF_UP),
    );
    message.text(IFLA_IFNAME, name).attr(IFLA_ADDRESS, &mac);
    if let Some(mtu) = mtu {
        message.u32(IFLA_MTU, mtu);
    }
    message.nest(IFLA_LINKINFO, |m| {
        m.text(IFLA_INFO_KIND, "bridge").nest(IFLA_INFO_DATA, |m| {
            // Without STP a port may forward at once; the default is 15 s of learning.
            m.u32(IFLA_BR_FORWARD_DELAY, 0);
        });
    });
    match socket.request("create bridge", &message) {
        Err(error) if error.errno() != Some(libc::EEXIST) => return Err(error),
        _ => {}
    }
    let index = index(socket, name)?.ok_or(NetlinkError::Malformed)?;
    up(socket, index)?;
    Ok(index)
}

pub fn up(socket: &mut Socket, index: u32) -> Result<(), NetlinkError> {
    socket.request(
        "bring link up",
        &Message::new(RTM_NEWLINK, 0, &ifinfo(index, IFF_UP, IFF_UP)),
    )
}

/// Deletes a link by name; a missing one is fine.
pub fn delete(socket: &mut Socket, name: &str) -> Result<(), NetlinkError> {
    let mut message = Message::new(RTM_DELLINK, 0, &ifinfo(0, 0, 0));
    message.text(IFLA_IFNAME, name);
    match socket.request("delete link", &message) {
        Err(error) if error.errno() != Some(libc::ENODEV) => Err(error),
        _ => Ok(()),
    }
}

/// A veth pair to be: one end on a bridge here, the other inside a container's namespace.
pub struct Veth<'a> {
    pub host_name: &'a str,
    pub bridge: u32,
    pub peer_name: &'a str,
    pub peer_mac: Mac,
    pub peer_netns: BorrowedFd<'a>,
    pub mtu: Option<u32>,
}

/// Creates the pair with a single request, our end up. The peer cannot be yet: `veth_open` wants the pair complete.
pub fn create_veth(socket: &mut Socket, veth: &Veth) -> Result<(), NetlinkError> {
    let mut message = Message::new(
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        &ifinfo(0, IFF_UP, IFF_UP),
    );
    message
        .text(IFLA_IFNAME, veth.host_name)
        .u32(IFLA_MASTER, veth.bridge);
    if let Some(mtu) = veth.mtu {
        message.u32(IFLA_MTU, mtu);
    }
    message.nest(IFLA_LINKINFO, |m| {
        m.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |m| {
            m.nest(VETH_INFO_PEER, |m| {
                m.raw(&ifinfo(0, 0, 0))
                    .text(IFLA_IFNAME, veth.peer_name)
                    .attr(IFLA_ADDRESS, &veth.peer_mac)
                    .u32(IFLA_NET_NS_FD, veth.peer_netns.as_raw_fd() as u32);
                if let Some(mtu) = veth.mtu {
                    m.u32(IFLA_MTU, mtu);
                }
            });
        });
    });
    socket.request("create veth pair", &message)
}

/// Keeps a bridge's port apart from other such ports: only the bridge itself, and what is routed through it, is left to it.
pub fn isolate_port(socket: &mut Socket, name: &str) -> Result<(), NetlinkError> {
    let index = index(socket, name)?.ok_or(NetlinkError::Malformed)?;
    let mut header = ifinfo(index, 0, 0);
    header[0] = libc::AF_BRIDGE as u8;
    let mut message = Message::new(RTM_SETLINK, 0, &header);
    message.nest(IFLA_PROTINFO, |m| {
        m.attr(IFLA_BRPORT_ISOLATED, &[1]);
    });
    socket.request("isolate bridge port", &message)
}

/// A dummy link or a VLAN of another link, up; one that exists already is brought up and kept.
pub fn ensure_parent(
    socket: &mut Socket,
    name: &str,
    vlan: Option<(u32, u16)>,
) -> Result<u32, NetlinkError> {
    let mut message = Message::new(
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        &ifinfo(0, IFF_UP, IFF_UP),
    );
    message.text(IFLA_IFNAME, name);
    match vlan {
        None => message.nest(IFLA_LINKINFO, |m| {
            m.text(IFLA_INFO_KIND, "dummy");
        }),
        Some((link, id)) => message.u32(IFLA_LINK, link).nest(IFLA_LINKINFO, |m| {
            m.text(IFLA_INFO_KIND, "vlan").nest(IFLA_INFO_DATA, |m| {
                m.attr(IFLA_VLAN_ID, &id.to_ne_bytes());
            });
        }),
    };
    match socket.request("create parent link", &message) {
        Err(error) if error.errno() != Some(libc::EEXIST) => return Err(error),
        _ => {}
    }
    let index = index(socket, name)?.ok_or(NetlinkError::Malformed)?;
    up(socket, index)?;
    Ok(index)
}

/// A macvlan or ipvlan link to be, inside a container's namespace.
pub struct Child<'a> {
    /// Not the name that it ends with: the kernel looks for that one among the links here, too.
    pub name: &'a str,
    pub parent: u32,
    pub kind: Kind,
    /// `None`: the parent's.
    pub mac: Option<Mac>,
    pub netns: BorrowedFd<'a>,
    pub mtu: Option<u32>,
}

pub fn create_child(socket: &mut Socket, child: &Child) -> Result<(), NetlinkError> {
    let mut message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &ifinfo(0, 0, 0));
    message
        .text(IFLA_IFNAME, child.name)
        .u32(IFLA_LINK, child.parent)
        .u32(IFLA_NET_NS_FD, child.netns.as_raw_fd() as u32);
    if let Some(mac) = &child.mac {
        message.attr(IFLA_ADDRESS, mac);
    }
    if let Some(mtu) = child.mtu {
        message.u32(IFLA_MTU, mtu);
    }
    message.nest(IFLA_LINKINFO, |m| match child.kind {
        Kind::Macvlan { mode } => {
            m.text(IFLA_INFO_KIND, "macvlan").nest(IFLA_INFO_DATA, |m| {
                m.u32(IFLA_MACVLAN_MODE, mode);
            });
        }
        Kind::Ipvlan { mode, flags } => {
            m.text(IFLA_INFO_KIND, "ipvlan").nest(IFLA_INFO_DATA, |m| {
                m.attr(IFLA_IPVLAN_MODE, &mode.to_ne_bytes())
                    .attr(IFLA_IPVLAN_FLAGS, &flags.to_ne_bytes());
            });
        }
    });
    socket.request("create link on its parent", &message)
}

/// Renames a link that is down.
pub fn rename(socket: &mut Socket, index: u32, name: &str) -> Result<(), NetlinkError> {
    let mut message = Message::new(RTM_NEWLINK, 0, &ifinfo(index, 0, 0));
    message.text(IFLA_IFNAME, name);
    socket.request("rename link", &message)
}

fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => libc::AF_INET as u8,
        Family::V6 => libc::AF_INET6 as u8,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Gives a link an address; one that it has already is fine.
pub fn add_address(
    socket: &mut Socket,
    index: u32,
    address: IpAddr,
    prefix: u8,
) -> Result<(), NetlinkError> {
    let mut header = [0u8; 8]; // struct ifaddrmsg
    header[0] = family_number(Family::of(address));
    header[1] = prefix;
    if address.is_ipv6() {
        header[2] = IFA_F_NODAD;
    }
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &header);
    let bytes = octets(address);
    message.attr(IFA_LOCAL, &bytes).attr(IFA_ADDRESS, &bytes);
    if let IpAddr::V4(address) = address {
        let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        let broadcast = Ipv4Addr::from_bits(address.to_bits() | hosts);
        message.attr(IFA_BROADCAST, &broadcast.octets());
    }
    match socket.request("add address", &message) {
        Err(error) if error.errno() != Some(libc::EEXIST) => Err(error),
        _ => Ok(()),
    }
}

/// The addresses that this namespace's links already have, with their prefix lengths; without those that only a link knows.
pub fn addresses(socket: &mut Socket) -> Result<Vec<(IpAddr, u8)>, NetlinkError> {
    let header = [0u8; 8]; // of both families
    let replies = socket.dump(
        "list addresses",
        &Message::new(RTM_GETADDR, NLM_F_DUMP, &header),
    )?;
    Ok(replies
        .iter()
        .filter_map(|reply| {
            let prefix = *reply.body.get(1)?;
            let (_, value) = attributes(reply.body.get(8..)?)
                .into_iter()
                .find(|(kind, _)| *kind == IFA_ADDRESS)?;
            Some((address_of(value)?, prefix))
        })
        .filter(|(address, _)| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()))
        .collect())
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

fn default_route(kind: u16, flags: u16, family: Family, scope: u8) -> Message {
    let mut header = [0u8; 12]; // struct rtmsg
    header[0] = family_number(family);
    header[4] = libc::RT_TABLE_MAIN;
    header[5] = 3; // RTPROT_BOOT
    header[6] = scope;
    header[7] = libc::RTN_UNICAST;
    Message::new(kind, flags, &header)
}

/// Makes the family's default route lead through the link, to `gateway` when there is one.
pub fn set_default_route(
    socket: &mut Socket,
    index: u32,
    family: Family,
    gateway: Option<IpAddr>,
) -> Result<(), NetlinkError> {
    let scope = match (family, gateway) {
        (Family::V4, None) => libc::RT_SCOPE_LINK,
        _ => libc::RT_SCOPE_UNIVERSE,
    };
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    let mut message = default_route(RTM_NEWROUTE, flags, family, scope);
    if let Some(gateway) = gateway {
        message.attr(RTA_GATEWAY, &octets(gateway));
    }
    message.u32(RTA_OIF, index);
    socket.request("set default route", &message)
}

/// Removes the family's default route; a missing one is fine.
pub fn delete_default_route(socket: &mut Socket, family: Family) -> Result<(), NetlinkError> {
    let message = default_route(RTM_DELROUTE, 0, family, libc::RT_SCOPE_NOWHERE);
    match socket.request("delete default route", &message) {
        Err(error) if error.errno() != Some(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}
