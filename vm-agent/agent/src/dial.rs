//! Connections from the host to addresses inside the guest: published ports.

use crate::channel::Stream;
use crate::splice;
use longshore_protocol::check_version;
use longshore_protocol::dial::{DialHeader, DialReply, Proto};
use longshore_protocol::line::{LineError, read_json, write_json};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UdpSocket};

const CONNECT_DEADLINE: Duration = Duration::from_secs(20);
/// Largest UDP payload.
const MAX_DATAGRAM: usize = 65_535;

#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error(transparent)]
    Line(#[from] LineError),
    #[error("pass bytes on: {0}")]
    Pass(#[from] io::Error),
}

pub async fn serve(stream: impl Stream) -> Result<(), DialError> {
    let mut stream = BufReader::new(stream);
    let Some(header) = read_json::<DialHeader, _>(&mut stream).await? else {
        return Ok(());
    };
    if let Err(mismatch) = check_version(header.version) {
        return Ok(write_json(&mut stream, &DialReply::Error(mismatch.to_string())).await?);
    }
    let connected = match header.proto {
        Proto::Tcp => connect_tcp(header.target).await.map(Connection::Tcp),
        Proto::Udp => connect_udp(header.target).await.map(Connection::Udp),
    };
    match connected {
        Err(error) => {
            let text = format!("connect to {}/{}: {error}", header.target, header.proto);
            Ok(write_json(&mut stream, &DialReply::Error(text)).await?)
        }
        Ok(connection) => {
            write_json(&mut stream, &DialReply::Connected).await?;
            match connection {
                Connection::Tcp(tcp) => Ok(splice::both_ways(stream, tcp).await?),
                Connection::Udp(udp) => Ok(pass_datagrams(stream, udp).await?),
            }
        }
    }
}

enum Connection {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

async fn connect_tcp(target: SocketAddr) -> io::Result<TcpStream> {
    let connect = tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect(target));
    let stream = connect
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connect_udp(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if target.is_ipv4() {
        [0; 4].into()
    } else {
        [0u16; 8].into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(target).await?;
    Ok(socket)
}

/// Each datagram behind its length, 16 bits big-endian; ends when the host closes.
async fn pass_datagrams(stream: impl Stream, socket: UdpSocket) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let to_guest = async {
        let mut datagram = vec![0; MAX_DATAGRAM];
        loop {
            let length = match reader.read_u16().await {
                Ok(length) => length as usize,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            };
            reader.read_exact(&mut datagram[..length]).await?;
            // An unreachable port now need not be one later: UDP loses datagrams.
            let _ = socket.send(&datagram[..length]).await;
        }
    };
    let to_host = async {
        let mut frame = vec![0; 2 + MAX_DATAGRAM];
        loop {
            // The same holds here: an ICMP error is told once, then things go on.
            let Ok(length) = socket.recv(&mut frame[2..]).await else {
                continue;
            };
            frame[..2].copy_from_slice(&(length as u16).to_be_bytes());
            writer.write_all(&frame[..2 + length]).await?;
        }
    };
    tokio::select! {
        ended = to_guest => ended,
        failed = to_host => failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_protocol::VERSION;
    use tokio::net::TcpListener;

    async fn dial(
        proto: Proto,
        target: SocketAddr,
    ) -> (BufReader<tokio::io::DuplexStream>, DialReply) {
        let (host, guest) = tokio::io::duplex(100_000);
        tokio::spawn(serve(guest));
        let mut host = BufReader::new(host);
        write_json(
            &mut host,
            &DialHeader {
                version: VERSION,
                proto,
                target,
            },
        )
        .await
        .unwrap();
        let reply = read_json(&mut host).await.unwrap().unwrap();
        (host, reply)
    }

    #[tokio::test]
    async fn tcp_keeps_its_half_close() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut text = String::new();
            peer.read_to_string(&mut text).await.unwrap();
            peer.write_all(text.to_uppercase().as_bytes())
                .await
                .unwrap();
        });
        let (mut host, reply) = dial(Proto::Tcp, target).await;
        assert_eq!(reply, DialReply::Connected);
        host.write_all(b"hello").await.unwrap();
        host.shutdown().await.unwrap();
        let mut answer = String::new();
        host.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "HELLO");
    }

    #[tokio::test]
    async fn udp_keeps_its_datagrams() {
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (mut host, reply) = dial(Proto::Udp, peer.local_addr().unwrap()).await;
        assert_eq!(reply, DialReply::Connected);
        host.write_all(&[0, 2, b'h', b'i', 0, 0]).await.unwrap();
        let mut datagram = [0; 10];
        let (length, from) = peer.recv_from(&mut datagram).await.unwrap();
        assert_eq!(&datagram[..length], b"hi");
        assert_eq!(peer.recv(&mut datagram).await.unwrap(), 0);
        peer.send_to(b"yes", from).await.unwrap();
        let mut frame = [0; 5];
        host.read_exact(&mut frame).await.unwrap();
        assert_eq!(frame, [0, 3, b'y', b'e', b's']);
    }

    #[tokio::test]
    async fn nobody_there_is_said() {
        let free = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let (_, reply) = dial(Proto::Tcp, free).await;
        let DialReply::Error(text) = reply else {
            panic!("connected to nobody")
        };
        assert!(
            text.starts_with(&format!("connect to {free}/tcp: Connection refused")),
            "{text}"
        );
    }
}
