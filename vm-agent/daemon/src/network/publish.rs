//! Published ports: reserved and forwarded inside the guest, bound on the host through the agent.

use std::net::IpAddr;

use longshore_protocol::dial::Proto;
use longshore_protocol::port_news::Publication;

use super::agent::{self, Agent, AgentError};
use super::driver::forward_of;
use super::model::{ContainerNetworkRequest, Endpoint, Network, PublishedPort, Sandbox};
use super::ports::{self, EPHEMERAL, PortRequest};
use super::{Networks, State};
use crate::error::{ApiError, ApiResult};

/// Why one port could not be published.
enum Refusal {
    /// Another port may do.
    Taken(String),
    Other(String),
}

impl Networks {
    /// Publishes what the container asks for on its first network that reaches outside.
    pub(super) async fn publish_ports(
        &self,
        request: &ContainerNetworkRequest,
        network: &Network,
    ) -> ApiResult<()> {
        let wanted = ports::requests(
            &request.exposed_ports,
            &request.port_bindings,
            request.publish_all_ports,
        )?;
        let endpoint = {
            let mut state = self.state();
            let Some(sandbox) = state.sandboxes.get_mut(&request.id) else {
                return Err(ApiError::conflict("the container has ended"));
            };
            sandbox.exposed_only = wanted.exposed_only;
            self.inner.store.save_sandbox(sandbox)?;
            sandbox
                .endpoints
                .iter()
                .find(|end| end.network_id == network.id)
                .cloned()
        };
        let Some(endpoint) = endpoint else {
            return Ok(());
        };
        for (index, port) in wanted.published.iter().enumerate() {
            self.publish_port(&request.id, network, &endpoint, port, index).await.map_err(|words| {
                ApiError::internal(format!(
                    "driver failed programming external connectivity on endpoint {} ({}): {words}",
                    request.name, endpoint.endpoint_id
                ))
            })?;
        }
        Ok(())
    }

    async fn publish_port(
        &self,
        container_id: &str,
        network: &Network,
        endpoint: &Endpoint,
        request: &PortRequest,
        index: usize,
    ) -> Result<(), String> {
        let key = format!(
            "{}/{}/{}/{index}",
            crate::identity::short(container_id),
            request.protocol,
            request.container_port
        );
        let host_ip = self.binding_address(network, &request.host_ip);
        let Some(target) = target_of(endpoint, &host_ip) else {
            return Ok(());
        };
        let candidates = match &request.host_ports {
            Some(range) => range.clone(),
            None => EPHEMERAL,
        };
        let start = if request.host_ports.is_none() {
            self.next_port()
        } else {
            *candidates.start()
        };
        let rotated = (start..=*candidates.end()).chain(*candidates.start()..start);
        let mut last = String::new();
        for host_port in rotated.take(1024) {
            let mut port = PublishedPort {
                key: key.clone(),
                container_port: request.container_port,
                protocol: request.protocol.clone(),
                host_ip: shown_address(&host_ip).to_owned(),
                host_port,
                asked_host_ip: host_ip.clone(),
                target,
            };
            match self.try_publish(container_id, &mut port).await {
                Ok(()) => return Ok(()),
                Err(Refusal::Taken(words)) => last = words,
                Err(Refusal::Other(words)) => return Err(words),
            }
        }
        Err(last)
    }

    async fn try_publish(
        &self,
        container_id: &str,
        port: &mut PublishedPort,
    ) -> Result<(), Refusal> {
        self.reserve(port)?;
        if let Err(refusal) = self.publish_reserved(container_id, port).await {
            self.state().reservations.remove(&port.key);
            return Err(refusal);
        }
        Ok(())
    }

    async fn publish_reserved(
        &self,
        container_id: &str,
        port: &mut PublishedPort,
    ) -> Result<(), Refusal> {
        if agent::is_present() {
            publish_on_host(container_id, port).await?;
        }
        self.record(container_id, port)
            .map_err(|error| Refusal::Other(error.message))?;
        if let Some(forward) = forward_of(port) {
            self.blocking(move |kernel| kernel.forward(&forward))
                .await
                .map_err(|error| Refusal::Other(error.message))?;
        }
        Ok(())
    }

    fn record(&self, container_id: &str, port: &PublishedPort) -> ApiResult<()> {
        let mut state = self.state();
        let sandbox = state
            .sandboxes
            .get_mut(container_id)
            .ok_or_else(|| ApiError::conflict("the container has ended"))?;
        sandbox.ports.push(port.clone());
        Ok(self.inner.store.save_sandbox(sandbox)?)
    }

    /// Takes the port inside the guest, among our own publications and from other listeners.
    fn reserve(&self, port: &PublishedPort) -> Result<(), Refusal> {
        let taken = |reason: &str| {
            let address = shown_address(&port.asked_host_ip);
            Refusal::Taken(format!(
                "Bind for {address}:{} failed: {reason}",
                port.host_port
            ))
        };
        let mut state = self.state();
        if is_published(&state, port) {
            return Err(taken("port is already allocated"));
        }
        let Some(address) = ports::guest_address(&port.asked_host_ip, port.target) else {
            return Ok(());
        };
        match ports::reserve(&port.protocol, address, port.host_port) {
            Ok(Some(held)) => drop(state.reservations.insert(port.key.clone(), held)),
            Ok(None) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                return Err(taken("port is already allocated"));
            }
            Err(error) => return Err(Refusal::Other(format!("bind the port: {error}"))),
        }
        Ok(())
    }

    /// The address as the user wrote it, else the network's, else the daemon's `ip`; empty: the host decides.
    fn binding_address(&self, network: &Network, asked: &str) -> String {
        if !asked.is_empty() {
            return asked.to_owned();
        }
        let of_network = network.host_binding().filter(|_| !network.is_predefined());
        let settings = self.inner.config.settings();
        of_network
            .or(settings.string("ip"))
            .unwrap_or_default()
            .to_owned()
    }

    fn next_port(&self) -> u16 {
        let mut state = self.state();
        let next = match state.next_port {
            port if EPHEMERAL.contains(&port) => port,
            _ => *EPHEMERAL.start(),
        };
        state.next_port = next.wrapping_add(1);
        next
    }

    /// Gives a container's ports back, on the host and in the guest.
    pub(super) async fn withdraw_ports(&self, sandbox: &Sandbox) {
        {
            let mut state = self.state();
            for port in &sandbox.ports {
                state.reservations.remove(&port.key);
            }
        }
        if sandbox.ports.is_empty() || !agent::is_present() {
            return;
        }
        let withdrawn: Result<(), AgentError> = async {
            let mut agent = Agent::connect().await?;
            for port in &sandbox.ports {
                agent.withdraw(port.key.clone()).await?;
            }
            Ok(())
        }
        .await;
        if let Err(error) = withdrawn {
            tracing::warn!(%error, "withdrawing published ports on the host");
        }
    }

    /// After a restart of this daemon: ports are held again, and the host is told again now and whenever the agent
    /// has been away.
    pub(super) fn restore_publications(&self) {
        let mut state = self.state();
        let ports: Vec<PublishedPort> = state
            .sandboxes
            .values()
            .flat_map(|sandbox| sandbox.ports.clone())
            .collect();
        for port in ports {
            let address = ports::guest_address(&port.asked_host_ip, port.target);
            let held = address.and_then(|address| {
                ports::reserve(&port.protocol, address, port.host_port).ok()?
            });
            if let Some(held) = held {
                state.reservations.insert(port.key, held);
            }
        }
        drop(state);
        if agent::is_present() {
            tokio::spawn(self.clone().follow_agent());
        }
    }

    async fn follow_agent(self) {
        let mut pause = std::time::Duration::from_millis(50);
        loop {
            match self.announce_all().await {
                Ok(agent) => {
                    pause = std::time::Duration::from_millis(50);
                    agent.gone().await;
                }
                Err(error) => tracing::debug!(%error, "announcing published ports"),
            }
            // init keeps the agent's listener, so the next connection waits by itself; this bounds a crash loop.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(std::time::Duration::from_secs(5));
        }
    }

    async fn announce_all(&self) -> Result<Agent, AgentError> {
        let mut agent = Agent::connect().await?;
        let ports: Vec<(String, PublishedPort)> = {
            let state = self.state();
            let of = |sandbox: &Sandbox| {
                let id = sandbox.container_id.clone();
                sandbox
                    .ports
                    .clone()
                    .into_iter()
                    .map(move |port| (id.clone(), port))
            };
            state.sandboxes.values().flat_map(of).collect()
        };
        agent
            .retain(ports.iter().map(|(_, port)| port.key.clone()).collect())
            .await?;
        for (container_id, port) in ports {
            match agent.publish(publication(&container_id, &port)).await {
                Err(AgentError::Refused(words)) => {
                    tracing::warn!(key = port.key, words, "a published port was lost");
                }
                other => drop(other?),
            }
        }
        Ok(agent)
    }
}

fn publication(container_id: &str, port: &PublishedPort) -> Publication {
    Publication {
        key: port.key.clone(),
        container_id: container_id.to_owned(),
        proto: match port.protocol.as_str() {
            "udp" => Proto::Udp,
            _ => Proto::Tcp,
        },
        host_ip: port.asked_host_ip.clone(),
        host_port: port.host_port,
        target: (port.target, port.container_port).into(),
    }
}

/// Asks the host for the port; what it answers is what `inspect` shows.
async fn publish_on_host(container_id: &str, port: &mut PublishedPort) -> Result<(), Refusal> {
    if port.protocol == "sctp" {
        return Ok(());
    }
    let asked: Result<_, AgentError> = async {
        Agent::connect()
            .await?
            .publish(publication(container_id, port))
            .await
    }
    .await;
    match asked {
        Ok(address) => {
            port.host_ip = address.ip().to_string();
            port.host_port = address.port();
            Ok(())
        }
        Err(AgentError::Refused(words)) => {
            let address = shown_address(&port.asked_host_ip);
            let at = format!("Bind for {address}:{} failed: ", port.host_port);
            // Where the host tells it in Docker's words already, they stand as they are.
            Err(Refusal::Taken(if words.starts_with("Bind for") {
                words
            } else {
                at + &words
            }))
        }
        Err(error) => Err(Refusal::Other(format!(
            "publish the port on the host: {error}"
        ))),
    }
}

fn shown_address(asked: &str) -> &str {
    if asked.is_empty() { "0.0.0.0" } else { asked }
}

/// The container's address for connections to the host's address: of the same family, else the one it has. The host carries
/// connections, not packets, so an IPv6 address of the host can lead to a container that has IPv4 only.
fn target_of(endpoint: &Endpoint, host_ip: &str) -> Option<IpAddr> {
    let wants_v6 = ports::parse_host_ip(host_ip).is_some_and(|ip| ip.is_ipv6());
    let lease = match wants_v6 {
        true => endpoint.v6.or(endpoint.v4),
        false => endpoint.v4.or(endpoint.v6),
    };
    lease.map(|lease| lease.address)
}

/// Whether one of our publications has this port on this or an overlapping address.
fn is_published(state: &State, port: &PublishedPort) -> bool {
    state
        .sandboxes
        .values()
        .flat_map(|sandbox| &sandbox.ports)
        .any(|other| {
            other.protocol == port.protocol
                && other.host_port == port.host_port
                && overlap(&other.asked_host_ip, &port.asked_host_ip)
        })
}

/// Whether two addresses of the host, as users wrote them, have one in common. Nothing written is IPv4's default.
fn overlap(one: &str, other: &str) -> bool {
    let parse = |text: &str| match text {
        "" => Some(IpAddr::from([0, 0, 0, 0])),
        text => ports::parse_host_ip(text),
    };
    match (parse(one), parse(other)) {
        (Some(a), Some(b)) => {
            a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified() || a == b)
        }
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::ipam::Lease;
    use super::*;

    #[test]
    fn addresses_of_the_host_overlap_within_their_family() {
        for (one, other, expected) in [
            ("", "", true),
            ("", "127.0.0.1", true),
            ("0.0.0.0", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("::", "::1", true),
            ("[::1]", "::1", true),
            ("0.0.0.0", "::", false),
            ("", "::1", false),
        ] {
            assert_eq!(overlap(one, other), expected, "{one:?} {other:?}");
        }
    }

    #[test]
    fn connections_keep_their_family_where_the_container_has_it() {
        let lease = |address: &str| {
            Some(Lease {
                address: address.parse().unwrap(),
                prefix: 64,
                gateway: None,
            })
        };
        let end = |v4, v6| Endpoint {
            v4,
            v6,
            ..Default::default()
        };
        let (v4, v6) = (lease("10.0.0.2"), lease("fd00::2"));
        for (endpoint, host_ip, expected) in [
            (end(v4, v6), "", v4),
            (end(v4, v6), "::1", v6),
            (end(v4, None), "::1", v4),
            (end(None, v6), "", v6),
            (end(None, None), "", None),
        ] {
            let expected = expected.map(|lease| lease.address);
            assert_eq!(target_of(&endpoint, host_ip), expected);
        }
    }
}
