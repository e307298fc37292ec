//! Links, addresses and routes through rtnetlink.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::netlink::{
    Message, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NetlinkError, Socket, attributes,
};

// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
// linux/if_link.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
// linux/if_addr.h
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
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

/// Gives a link an address; one that it has already is fine.
pub fn add_address(
    socket: &mut Socket,
    index: u32,
    address: Ipv4Addr,
    prefix: u8,
) -> Result<(), NetlinkError> {
    let mut header = [0u8; 8]; // struct ifaddrmsg
    header[0] = libc::AF_INET as u8;
    header[1] = prefix;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &header);
    let broadcast = Ipv4Addr::from_bits(
        address.to_bits() | u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0),
    );
    message
        .attr(IFA_LOCAL, &address.octets())
        .attr(IFA_ADDRESS, &address.octets())
        .attr(IFA_BROADCAST, &broadcast.octets());
    match socket.request("add address", &message) {
        Err(error) if error.errno() != Some(libc::EEXIST) => Err(error),
        _ => Ok(()),
    }
}

/// The IPv4 subnets that this namespace's links already have, as (address, prefix).
pub fn addresses(socket: &mut Socket) -> Result<Vec<(Ipv4Addr, u8)>, NetlinkError> {
    let mut header = [0u8; 8];
    header[0] = libc::AF_INET as u8;
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
            Some((Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?), prefix))
        })
        .collect())
}

/// Adds the default route through `gateway` on the link.
pub fn add_default_route(
    socket: &mut Socket,
    index: u32,
    gateway: Ipv4Addr,
) -> Result<(), NetlinkError> {
    let mut header = [0u8; 12]; // struct rtmsg
    header[0] = libc::AF_INET as u8;
    header[4] = libc::RT_TABLE_MAIN;
    header[5] = 3; // RTPROT_BOOT
    header[6] = libc::RT_SCOPE_UNIVERSE;
    header[7] = libc::RTN_UNICAST;
    let mut message = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &header);
    message
        .attr(RTA_GATEWAY, &gateway.octets())
        .u32(RTA_OIF, index);
    match socket.request("add default route", &message) {
        Err(error) if error.errno() != Some(libc::EEXIST) => Err(error),
        _ => Ok(()),
    }
}
