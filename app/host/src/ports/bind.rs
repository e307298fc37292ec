//! Sockets of published ports. One on IPv6 takes IPv6 alone: `[::]` and `0.0.0.0` are two addresses to Docker and its users, and
//! Linux and macOS would give the first both (Windows does not).

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, UdpSocket};

/// Connections that wait to be accepted; the usual number of the standard library.
#[cfg(unix)]
const BACKLOG: u32 = 1024;

#[cfg(unix)]
pub async fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    use nix::sys::socket::{setsockopt, sockopt};
    if address.is_ipv4() {
        return TcpListener::bind(address).await;
    }
    let socket = tokio::net::TcpSocket::new_v6()?;
    setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(unix)]
pub async fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
    };
    use std::os::fd::AsRawFd;
    if address.is_ipv4() {
        return UdpSocket::bind(address).await;
    }
    let fd = socket(
        AddressFamily::Inet6,
        SockType::Datagram,
        SockFlag::empty(),
        None,
    )?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    let socket = std::net::UdpSocket::from(fd);
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

#[cfg(not(unix))]
pub async fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

#[cfg(not(unix))]
pub async fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::bind(address).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_families_can_have_one_port() {
        let first = tcp("0.0.0.0:0".parse().unwrap()).await.unwrap();
        let port = first.local_addr().unwrap().port();
        // Machines without IPv6 have nothing to show here.
        match tcp(format!("[::]:{port}").parse().unwrap()).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => panic!("{error}"),
            _ => {}
        }
        let first = udp("0.0.0.0:0".parse().unwrap()).await.unwrap();
        let port = first.local_addr().unwrap().port();
        match udp(format!("[::]:{port}").parse().unwrap()).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => panic!("{error}"),
            _ => {}
        }
    }
}
