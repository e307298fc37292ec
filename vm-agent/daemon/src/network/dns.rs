//! The embedded name service: one pair of sockets in each container's namespace, answered from here.
//!
//! Sockets keep the namespace they were opened in, so the daemon serves every container from its own
//! threads, and forwards what it does not know from the guest's namespace.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::dns_message::{self as message, Question};
use super::files::{self, ResolvConf};
use super::model::Endpoint;
use super::{Inner, Networks, netns};
use crate::error::ApiResult;

const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);
const UPSTREAM_PATIENCE: Duration = Duration::from_secs(4);
/// Questions of one container that may be under way; more are dropped, and asked again by their resolver.
const QUESTIONS: usize = 256;
const LARGEST: usize = 65535;

/// One container's service; ends when dropped.
pub struct NameService {
    tasks: [JoinHandle<()>; 2],
}

impl Drop for NameService {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Who asks: answers depend on the networks that the asking container is on.
#[derive(Clone)]
struct Asker {
    networks: Weak<Inner>,
    container_id: Arc<str>,
}

impl Networks {
    /// Starts the container's name service, once.
    pub(super) async fn start_name_service(&self, container_id: &str, namespace: &Path) {
        if self.state().name_services.contains_key(container_id) {
            return;
        }
        match self.serve_names(container_id, namespace).await {
            Ok(service) => drop(
                self.state()
                    .name_services
                    .insert(container_id.into(), service),
            ),
            // The container still has its network; names fail, and the log says why.
            Err(error) => tracing::error!(%error, container_id, "starting the name service"),
        }
    }

    pub(super) async fn restore_name_services(&self) {
        let wanted: Vec<_> = {
            let state = self.state();
            let named = |id: &String| {
                state
                    .networks
                    .get(id)
                    .is_some_and(super::Network::has_name_service)
            };
            state
                .sandboxes
                .values()
                .filter(|sandbox| sandbox.endpoints.iter().any(|end| named(&end.network_id)))
                .map(|sandbox| (sandbox.container_id.clone(), sandbox.netns.clone()))
                .collect()
        };
        for (container_id, namespace) in wanted {
            self.start_name_service(&container_id, &namespace).await;
        }
    }

    async fn serve_names(&self, container_id: &str, namespace: &Path) -> ApiResult<NameService> {
        let path = namespace.to_path_buf();
        let (udp, tcp) = self
            .blocking(move |_| {
                let opened = netns::inside(&path, || {
                    let udp = std::net::UdpSocket::bind(ADDRESS)?;
                    let tcp = std::net::TcpListener::bind(ADDRESS)?;
                    udp.set_nonblocking(true)?;
                    tcp.set_nonblocking(true)?;
                    std::io::Result::Ok((udp, tcp))
                });
                Ok(opened?)
            })
            .await??;
        let (udp, tcp) = (UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?);
        let asker = Asker {
            networks: Arc::downgrade(&self.inner),
            container_id: container_id.into(),
        };
        let tasks = [
            tokio::spawn(serve_udp(udp, asker.clone())),
            tokio::spawn(serve_tcp(tcp, asker)),
        ];
        Ok(NameService { tasks })
    }
}

async fn serve_udp(socket: UdpSocket, asker: Asker) {
    let socket = Arc::new(socket);
    let slots = Arc::new(Semaphore::new(QUESTIONS));
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((len, from)) = socket.recv_from(&mut buffer).await else {
            // The namespace is gone, or an ICMP error of an earlier answer; the former ends this task anyway.
            tokio::task::yield_now().await;
            continue;
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            continue;
        };
        let (query, socket, asker) = (buffer[..len].to_vec(), socket.clone(), asker.clone());
        tokio::spawn(async move {
            if let Some(reply) = asker.answer(&query, false).await {
                let _ = socket.send_to(&reply, from).await;
            }
            drop(slot);
        });
    }
}

async fn serve_tcp(listener: TcpListener, asker: Asker) {
    let slots = Arc::new(Semaphore::new(QUESTIONS));
    while let Ok(slot) = slots.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let asker = asker.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(UPSTREAM_PATIENCE * 4, serve_stream(stream, asker)).await;
            drop(slot);
        });
    }
}

async fn serve_stream(mut stream: TcpStream, asker: Asker) -> std::io::Result<()> {
    loop {
        let query = read_framed(&mut stream).await?;
        let Some(reply) = asker.answer(&query, true).await else {
            return Ok(());
        };
        write_framed(&mut stream, &reply).await?;
    }
}

async fn read_framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let mut framed = (message.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

impl Asker {
    async fn answer(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let question = message::parse(query);
        if let Some(question) = &question
            && let Some(reply) = self.answer_from_networks(query, question)
        {
            return Some(reply);
        }
        let reply = forward(query, &self.upstreams(), tcp).await;
        reply.or_else(|| Some(message::bare(query, &question?, message::SERVER_FAILURE)))
    }

    fn answer_from_networks(&self, query: &[u8], question: &Question) -> Option<Vec<u8>> {
        let networks = Networks {
            inner: self.networks.upgrade()?,
        };
        if question.kind == message::TYPE_PTR {
            let address = message::reverse_address(&question.name)?;
            let name = networks.name_of(&self.container_id, address)?;
            return Some(message::pointer(query, question, &name));
        }
        let addresses = networks.addresses_of(&self.container_id, &question.name)?;
        Some(message::addresses(query, question, &addresses))
    }

    /// The container's own servers, else the guest's, read at each question since they change with the host's network.
    fn upstreams(&self) -> Vec<SocketAddr> {
        let own = self.networks.upgrade().and_then(|inner| {
            let networks = Networks { inner };
            let state = networks.state();
            Some(state.sandboxes.get(&*self.container_id)?.dns.clone())
        });
        let servers = match own {
            Some(own) if !own.is_empty() => own,
            _ => ResolvConf::of_this_machine().servers,
        };
        let parse = |server: &String| Some(SocketAddr::new(server.parse().ok()?, 53));
        servers.iter().filter_map(parse).take(3).collect()
    }
}

impl Networks {
    /// The addresses of `name` on the networks that the container is on; `None` for a name that is not ours.
    fn addresses_of(&self, container_id: &str, name: &str) -> Option<Vec<IpAddr>> {
        let state = self.state();
        let own = state.sandboxes.get(container_id)?;
        if files::HOST_NAMES.contains(&name) {
            return files::host_address().map(|address| vec![address.into()]);
        }
        let mut found = Vec::new();
        for endpoint in &own.endpoints {
            let network = state.networks.get(&endpoint.network_id)?;
            if !network.has_name_service() {
                continue;
            }
            let name = linked(endpoint, name).unwrap_or(name);
            // `web.mynet` is a name as well.
            let local = name.strip_suffix(&format!(".{}", network.name.to_ascii_lowercase()));
            let matches = |known: &String| {
                known.eq_ignore_ascii_case(name)
                    || local.is_some_and(|local| known.eq_ignore_ascii_case(local))
            };
            let neighbours = state
                .sandboxes
                .values()
                .flat_map(|sandbox| &sandbox.endpoints);
            found.extend(
                neighbours
                    .filter(|other| other.network_id == network.id)
                    .filter(|other| other.names.iter().any(matches))
                    .flat_map(|other| other.addresses()),
            );
        }
        found.sort();
        found.dedup();
        (!found.is_empty()).then_some(found)
    }

    /// `web.mynet` for a neighbour's address.
    fn name_of(&self, container_id: &str, address: IpAddr) -> Option<String> {
        let state = self.state();
        let own = state.sandboxes.get(container_id)?;
        own.endpoints.iter().find_map(|endpoint| {
            let network = state.networks.get(&endpoint.network_id)?;
            let neighbour = state.sandboxes.values().find(|sandbox| {
                sandbox
                    .endpoints
                    .iter()
                    .filter(|other| other.network_id == network.id)
                    .any(|other| other.addresses().any(|known| known == address))
            })?;
            Some(format!("{}.{}", neighbour.container_name, network.name))
        })
    }
}

/// The container that a link of this end names so.
fn linked<'a>(endpoint: &'a Endpoint, name: &str) -> Option<&'a str> {
    let links = endpoint.asked.links.iter().flatten();
    let mut pairs = links.filter_map(|link| link.split_once(':'));
    let (target, _) = pairs.find(|(_, alias)| alias.eq_ignore_ascii_case(name))?;
    Some(target.trim_start_matches('/'))
}

/// Asks the servers in turn; the first answer is passed on as it came.
async fn forward(query: &[u8], servers: &[SocketAddr], tcp: bool) -> Option<Vec<u8>> {
    for server in servers {
        let asked = async {
            if tcp {
                ask_tcp(query, *server).await
            } else {
                ask_udp(query, *server).await
            }
        };
        match tokio::time::timeout(UPSTREAM_PATIENCE, asked).await {
            Ok(Ok(reply)) => return Some(reply),
            Ok(Err(error)) => tracing::debug!(%error, %server, "asking a name server"),
            Err(_) => tracing::debug!(%server, "a name server does not answer"),
        }
    }
    None
}

async fn ask_udp(query: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A port of its own for each question, and a connected socket: answers of strangers do not get in.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; LARGEST];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if len >= 2 && query.len() >= 2 && buffer[..2] == query[..2] {
            buffer.truncate(len);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(query: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_framed(&mut stream, query).await?;
    read_framed(&mut stream).await
}
