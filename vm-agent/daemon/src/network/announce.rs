//! Telling a network who has an address now.
//!
//! A container that starts again has its old address and a new MAC: without an announcement its neighbours send to the
//! old one for up to a minute, until their entry for it is tried again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::link::Mac;

/// ARP's fields for IPv4 over Ethernet (RFC 826): hardware and protocol type, their address lengths, "request".
const REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];

/// An announcement: a request for one's own address (RFC 5227, section 2.3), 28 bytes.
fn announcement(mac: Mac, address: Ipv4Addr) -> [u8; 28] {
    let mut packet = [0; 28];
    packet[..8].copy_from_slice(&REQUEST);
    packet[8..14].copy_from_slice(&mac);
    packet[14..18].copy_from_slice(&address.octets());
    packet[24..].copy_from_slice(&address.octets());
    packet
}

/// All nodes of a link: their address (RFC 4291, section 2.7.1), and the MAC that stands for it (RFC 2464, section 7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
const ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// An unsolicited neighbour advertisement that overrides what is known (RFC 4861, section 7.2.6), with its IPv6 header: 72 bytes.
fn advertisement(mac: Mac, address: Ipv6Addr) -> [u8; 72] {
    let mut packet = [0; 72];
    packet[0] = 6 << 4;
    packet[5] = 32; // bytes after this header
    packet[6] = ICMPV6;
    packet[7] = 255; // as neighbours demand of what comes from the link itself
    packet[8..24].copy_from_slice(&address.octets());
    packet[24..40].copy_from_slice(&ALL_NODES.octets());
    packet[40] = NEIGHBOUR_ADVERTISEMENT;
    packet[44] = 0x20; // override
    packet[48..64].copy_from_slice(&address.octets());
    packet[64..66].copy_from_slice(&[2, 1]); // the target's MAC, in units of 8 bytes
    packet[66..].copy_from_slice(&mac);
    let sum = checksum(&packet);
    packet[42..44].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Of the ICMPv6 message behind the header, with the pseudo-header of RFC 8200, section 8.1: addresses, length, protocol.
fn checksum(packet: &[u8; 72]) -> u16 {
    let words = packet[8..].chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let sum = sum + 32 + u32::from(ICMPV6);
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// Announces an address on a link (by its index) of the thread's network namespace.
pub fn announce(link: u32, mac: Mac, address: IpAddr) -> io::Result<()> {
    match address {
        IpAddr::V4(address) => {
            let packet = announcement(mac, address);
            send(link, libc::ETH_P_ARP, [0xff; 6], &packet)
        }
        IpAddr::V6(address) => {
            let packet = advertisement(mac, address);
            send(link, libc::ETH_P_IPV6, ALL_NODES_MAC, &packet)
        }
    }
}

/// Sends one packet of an EtherType to a MAC of the link.
fn send(link: u32, protocol: i32, to: Mac, packet: &[u8]) -> io::Result<()> {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut receivers: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    receivers.sll_family = libc::AF_PACKET as u16;
    receivers.sll_protocol = (protocol as u16).to_be();
    receivers.sll_ifindex = link as i32;
    receivers.sll_halen = 6;
    receivers.sll_addr[..6].copy_from_slice(&to);
    // SAFETY: both pointers are to live values of the given sizes.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const receivers).cast(),
            size_of_val(&receivers) as u32,
        )
    };
    match sent {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_asks_for_ones_own_address() {
        let packet = announcement([2, 0, 0, 0, 0, 1], Ipv4Addr::new(172, 18, 0, 2));
        let expected = [
            0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 172, 18, 0, 2, 0, 0, 0, 0, 0, 0, 172, 18, 0,
            2,
        ];
        assert_eq!(packet, expected);
    }

    #[test]
    fn an_advertisement_overrides_and_sums_up() {
        let address: Ipv6Addr = "fd00::2".parse().unwrap();
        let packet = advertisement([2, 0, 0, 0, 0, 1], address);
        assert_eq!(packet[..8], [0x60, 0, 0, 0, 0, 32, 58, 255]);
        assert_eq!(packet[40..42], [136, 0]);
        assert_eq!(packet[44..48], [0x20, 0, 0, 0]);
        assert_eq!(packet[64..], [2, 1, 2, 0, 0, 0, 0, 1]);
        // A sum over everything, the checksum included, is all ones: its complement is nothing.
        assert_eq!(checksum(&packet), 0);
    }
}
