//! Telling a network who has an address now.
//!
//! A container that starts again has its old address and a new MAC: without an announcement its neighbours send to the
//! old one for up to a minute, until their ARP entry is tried again.

use std::io;
use std::net::Ipv4Addr;
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

/// Announces an address on a link (by its index) of the thread's network namespace.
pub fn announce(link: u32, mac: Mac, address: Ipv4Addr) -> io::Result<()> {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let packet = announcement(mac, address);
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut everyone: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    everyone.sll_family = libc::AF_PACKET as u16;
    everyone.sll_protocol = (libc::ETH_P_ARP as u16).to_be();
    everyone.sll_ifindex = link as i32;
    everyone.sll_halen = 6;
    everyone.sll_addr[..6].fill(0xff);
    // SAFETY: both pointers are to live values of the given sizes.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const everyone).cast(),
            size_of_val(&everyone) as u32,
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
}
