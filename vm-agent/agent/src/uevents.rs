//! The kernel's news about devices (netlink, KOBJECT_UEVENT): waiting for one to appear without polling.

use crate::watched::{Watched, watch};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The kernel's own multicast group.
const KERNEL_GROUP: u32 = 1;

pub struct Uevents(AsyncFd<Watched<OwnedFd>>);

impl Uevents {
    pub fn new() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Self(watch(socket, Interest::READABLE)?))
    }

    /// Waits until `find` finds something, looking again at each piece of news.
    pub async fn until<T>(&self, mut find: impl FnMut() -> Option<T>) -> io::Result<T> {
        loop {
            if let Some(found) = find() {
                return Ok(found);
            }
            self.news().await?;
        }
    }

    async fn news(&self) -> io::Result<()> {
        let mut message = [0; 4096];
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|socket| {
                recv(socket.as_raw_fd(), &mut message, MsgFlags::empty()).map_err(io::Error::from)
            }) {
                // Lost news (ENOBUFS) is news too: what we look for may be among it.
                Ok(_) => return Ok(()),
                Err(_would_block) => continue,
            }
        }
    }
}
