//! The listeners of published ports, by the guest's key.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use longshore_host_api::types::PublishedPort;
use longshore_local_socket::Stream;
use longshore_protocol::dial::{DialHeader, DialReply, Proto};
use longshore_protocol::line;
use longshore_protocol::port_news::{Publication, Published};
use longshore_protocol::{VERSION, ports};
use tokio::io::{AsyncRead, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{bind, policy, udp};
use crate::accept::accept;
use crate::channel;
use crate::splice;

/// Connections at once, over all published ports.
const MAX_CONNECTIONS: usize = 4096;

/// All published ports of a VM.
pub struct Ports {
    channel: PathBuf,
    open: Mutex<HashMap<String, Open>>,
    slots: Arc<Semaphore>,
}

/// One bound port; dropping it closes the listener, and leaves its connections to their end.
struct Open {
    publication: Publication,
    bound: SocketAddr,
    _end: DropGuard,
}

impl Ports {
    pub fn new(channel: PathBuf) -> Self {
        Self {
            channel,
            open: Mutex::default(),
            slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        }
    }

    pub fn list(&self) -> Vec<PublishedPort> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> = open
            .values()
            .map(|o| PublishedPort {
                host: format!("{}/{}", o.bound, o.publication.proto),
                guest: o.publication.target.to_string(),
            })
            .collect();
        list.sort_by(|a, b| a.host.cmp(&b.host));
        list
    }

    /// Closes everything, as the VM is gone.
    pub fn clear(&self) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    pub fn withdraw(&self, key: &str) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }

    /// Makes the open set equal to `publications`; what is open already stays open, connections and all.
    pub async fn sync(&self, publications: Vec<Publication>, default: IpAddr) -> Vec<Published> {
        let keys: HashSet<&str> = publications.iter().map(|p| p.key.as_str()).collect();
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|key, _| keys.contains(key.as_str()));
        let mut results = Vec::with_capacity(publications.len());
        for publication in publications {
            results.push(self.publish(publication, default).await);
        }
        results
    }

    pub async fn publish(&self, publication: Publication, default: IpAddr) -> Published {
        {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            match open.get(&publication.key) {
                Some(o) if same(&o.publication, &publication, o.bound) => {
                    return Published::Bound(o.bound);
                }
                None if open.len() >= policy::MAX_PUBLICATIONS => {
                    return Published::Error("too many published ports".to_owned());
                }
                _ => {}
            }
        }
        self.withdraw(&publication.key);
        let wanted = match policy::address(&publication, default) {
            Ok(wanted) => wanted,
            Err(why) => return Published::Error(why),
        };
        match self.bind(&publication, wanted).await {
            Ok((bound, end)) => {
                tracing::info!(%bound, target = %publication.target, proto = %publication.proto, "port published");
                let key = publication.key.clone();
                let open = Open {
                    publication,
                    bound,
                    _end: end,
                };
                self.open
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(key, open);
                Published::Bound(bound)
            }
            Err(error) => Published::Error(policy::bind_error(wanted, &error)),
        }
    }

    async fn bind(
        &self,
        publication: &Publication,
        wanted: SocketAddr,
    ) -> io::Result<(SocketAddr, DropGuard)> {
        let end = CancellationToken::new();
        let route = Route {
            channel: self.channel.clone(),
            proto: publication.proto,
            target: publication.target,
            slots: self.slots.clone(),
        };
        let bound = match publication.proto {
            Proto::Tcp => {
                let listener = bind::tcp(wanted).await?;
                let bound = listener.local_addr()?;
                tokio::spawn(serve_tcp(listener, route, end.clone()));
                bound
            }
            Proto::Udp => {
                let socket = bind::udp(wanted).await?;
                let bound = socket.local_addr()?;
                tokio::spawn(udp::serve(socket, route, end.clone()));
                bound
            }
        };
        Ok((bound, end.drop_guard()))
    }
}

/// The same wish as the one that is open; a free port that was chosen before stays chosen.
fn same(open: &Publication, wanted: &Publication, bound: SocketAddr) -> bool {
    open.proto == wanted.proto
        && open.target == wanted.target
        && open.host_ip == wanted.host_ip
        && [0, bound.port()].contains(&wanted.host_port)
}

/// The way of one published port into the guest.
#[derive(Clone)]
pub struct Route {
    channel: PathBuf,
    proto: Proto,
    target: SocketAddr,
    pub slots: Arc<Semaphore>,
}

impl Route {
    /// Asks the agent for a connection to the container's port. What is written at once goes along with the question.
    pub async fn open(&self) -> io::Result<(Answer, WriteHalf<Stream>)> {
        let header = DialHeader {
            version: VERSION,
            proto: self.proto,
            target: self.target,
        };
        let mut first = Vec::new();
        let written = line::write_json(&mut first, &header).await;
        written.map_err(io::Error::other)?;
        let opened = channel::open(&self.channel, ports::DIAL, &first).await;
        let (opening, write) = opened.map_err(io::Error::other)?;
        Ok((Answer(opening), write))
    }
}

/// What the container sends, once the agent has connected to it.
pub struct Answer(channel::Opening);

impl Answer {
    pub async fn connected(self) -> io::Result<impl AsyncRead + Unpin> {
        let mut read = self.0.answered().await.map_err(io::Error::other)?;
        let reply = line::read_json(&mut read).await.map_err(io::Error::other)?;
        match reply {
            Some(DialReply::Connected) => Ok(read),
            Some(DialReply::Error(why)) => {
                Err(io::Error::new(io::ErrorKind::ConnectionRefused, why))
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

async fn serve_tcp(listener: TcpListener, route: Route, end: CancellationToken) {
    let slots = route.slots.clone();
    accept(listener, slots, end, "on a published port", |client| {
        let route = route.clone();
        async move { carry(client, &route).await }
    })
    .await;
}

async fn carry(mut client: TcpStream, route: &Route) {
    let _ = client.set_nodelay(true);
    let carried = async {
        let (answer, guest_write) = route.open().await?;
        let forever = std::future::pending();
        splice::splice_ahead(&mut client, answer.connected(), guest_write, forever).await
    };
    if let Err(error) = carried.await {
        reset(client);
        tracing::debug!(%error, target = %route.target, "a published connection ended");
    }
}

/// Refuses as a closed port would, as far as one can after accepting, or breaks off: with RST instead of FIN.
fn reset(client: TcpStream) {
    let _ = client.set_zero_linger();
}

#[cfg(all(test, unix))]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::UnixListener;

    use super::*;
    use std::time::Duration;

    fn publication(key: &str, port: u16) -> Publication {
        Publication {
            key: key.into(),
            container_id: "c".into(),
            proto: Proto::Tcp,
            host_ip: String::new(),
            host_port: port,
            target: "172.17.0.2:80".parse().unwrap(),
        }
    }

    /// A guest that answers `CONNECT` and the dial header, then echoes.
    async fn echo_guest(listener: UnixListener) {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut text = String::new();
                stream.read_line(&mut text).await.unwrap();
                assert_eq!(text, "CONNECT 1027\n");
                stream.write_all(b"OK 1\n").await.unwrap();
                let header: DialHeader = line::read_json(&mut stream).await.unwrap().unwrap();
                assert_eq!(header.target.port(), 80);
                line::write_json(&mut stream, &DialReply::Connected)
                    .await
                    .unwrap();
                let (mut read, mut write) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    }

    #[tokio::test]
    async fn a_port_is_carried_kept_over_a_sync_and_closed_when_withdrawn() {
        let dir = tempfile::tempdir().unwrap();
        let channel = dir.path().join("c");
        tokio::spawn(echo_guest(UnixListener::bind(&channel).unwrap()));
        let ports = Ports::new(channel);
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let Published::Bound(bound) = ports.publish(publication("a", 0), loopback).await else {
            panic!("not bound")
        };
        let mut client = TcpStream::connect(bound).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");

        let results = ports
            .sync(vec![publication("a", bound.port())], loopback)
            .await;
        assert_eq!(results, [Published::Bound(bound)]);
        let taken = ports
            .publish(publication("b", bound.port()), loopback)
            .await;
        let Published::Error(why) = taken else {
            panic!("bound twice")
        };
        assert_eq!(
            why,
            format!("Bind for {bound} failed: port is already allocated")
        );

        assert!(ports.sync(Vec::new(), loopback).await.is_empty());
        assert!(ports.list().is_empty());
        // The listener's task ends with its guard; then the port is free again.
        let free = async {
            while TcpStream::connect(bound).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), free)
            .await
            .unwrap();
    }
}
