//! Sockets of published ports. One on IPv6 takes IPv6 alone: `[::]` and `0.0.0.0` are two addresses to Docker and its users, and
//! Linux and macOS would give the first both (Windows does not).

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

/// Connections that wait to be accepted; the standard library's number, as for IPv4.
const BACKLOG: i32 = 1024;

pub async fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    if address.is_ipv4() {
        return TcpListener::bind(address).await;
    }
    let socket = ipv6_socket(Type::STREAM, Protocol::TCP)?;
    // As the runtime does for IPv4; on Windows it means another thing.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

pub async fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    if address.is_ipv4() {
        return UdpSocket::bind(address).await;
    }
    let socket = ipv6_socket(Type::DGRAM, Protocol::UDP)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

fn ipv6_socket(kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, kind, Some(protocol))?;
    socket.set_only_v6(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_families_can_have_one_port() {
        let on = |address: &str, port| format!("{address}:{port}").parse().unwrap();
        // Machines without IPv6 have nothing to show here.
        if tcp(on("[::1]", 0)).await.is_err() {
            return;
        }
        let six = tcp(on("[::]", 0)).await.unwrap();
        let port = six.local_addr().unwrap().port();
        tcp(on("0.0.0.0", port)).await.unwrap();
        let six = udp(on("[::]", 0)).await.unwrap();
        let port = six.local_addr().unwrap().port();
        udp(on("0.0.0.0", port)).await.unwrap();
    }
}
