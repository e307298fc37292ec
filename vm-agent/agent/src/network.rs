//! The guest's one network interface, set up from the boot configuration.

use crate::uevents::Uevents;
use futures::TryStreamExt;
use longshore_protocol::config::NetworkConfig;
use rtnetlink::{LinkUnspec, RouteMessageBuilder};
use std::io;
use std::net::{AddrParseError, Ipv4Addr};
use std::path::Path;

const INTERFACE: &str = "eth0";
/// Names by which containers and people reach the host.
const HOST_NAMES: &str = "host.docker.internal gateway.docker.internal host.longshore.internal";

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("the configured address {text:?}: {source}")]
    Address {
        text: String,
        source: AddrParseError,
    },
    #[error("wait for the network interface: {0}")]
    Wait(#[source] io::Error),
    #[error("open netlink: {0}")]
    Netlink(#[source] io::Error),
    #[error("{step}: {source}")]
    Step {
        step: &'static str,
        source: Box<rtnetlink::Error>,
    },
    #[error("there is no interface {INTERFACE}")]
    NoInterface,
    #[error("write {path}: {source}")]
    Write {
        path: &'static str,
        source: io::Error,
    },
}

/// Names first: they need no interface. Doing it again changes nothing.
pub async fn set_up(config: &NetworkConfig, hostname: &str) -> Result<(), NetworkError> {
    write_names(config, hostname)?;
    write("/proc/sys/net/ipv4/ip_forward", "1")?;
    let uevents = Uevents::new().map_err(NetworkError::Wait)?;
    let path = Path::new("/sys/class/net").join(INTERFACE);
    uevents
        .until(|| path.exists().then_some(()))
        .await
        .map_err(NetworkError::Wait)?;
    configure(config).await
}

async fn configure(config: &NetworkConfig) -> Result<(), NetworkError> {
    let step = |step| {
        move |source| NetworkError::Step {
            step,
            source: Box::new(source),
        }
    };
    let (address, gateway) = (parse(&config.address)?, parse(&config.gateway)?);
    let (connection, handle, _) = rtnetlink::new_connection().map_err(NetworkError::Netlink)?;
    let connection = tokio::spawn(connection);
    let mut links = handle.link().get().match_name(INTERFACE).execute();
    let link = links
        .try_next()
        .await
        .map_err(step("find the interface"))?
        .ok_or(NetworkError::NoInterface)?;
    let index = link.header.index;
    let mut up = LinkUnspec::new_with_index(index).up();
    if let Some(mtu) = config.mtu {
        up = up.mtu(mtu);
    }
    let request = handle
        .address()
        .add(index, address.into(), config.prefix)
        .replace();
    request.execute().await.map_err(step("set the address"))?;
    handle
        .link()
        .set(up.build())
        .execute()
        .await
        .map_err(step("bring the interface up"))?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(gateway)
        .output_interface(index)
        .build();
    handle
        .route()
        .add(route)
        .replace()
        .execute()
        .await
        .map_err(step("set the default route"))?;
    connection.abort();
    Ok(())
}

fn parse(text: &str) -> Result<Ipv4Addr, NetworkError> {
    text.parse().map_err(|source| NetworkError::Address {
        text: text.into(),
        source,
    })
}

fn write_names(config: &NetworkConfig, hostname: &str) -> Result<(), NetworkError> {
    write("/proc/sys/kernel/hostname", hostname)?;
    write("/etc/hostname", &format!("{hostname}\n"))?;
    write("/etc/hosts", &hosts(config, hostname))?;
    write("/etc/resolv.conf", &resolv_conf(config))
}

fn hosts(config: &NetworkConfig, hostname: &str) -> String {
    let mut text = format!(
        "127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 {hostname}\n{} {HOST_NAMES}\n",
        config.gateway
    );
    for entry in &config.extra_hosts {
        text.push_str(&format!(
            "{} {}\n",
            one_word(&entry.address),
            one_word(&entry.name)
        ));
    }
    text
}

fn resolv_conf(config: &NetworkConfig) -> String {
    let mut text = String::new();
    for server in &config.dns {
        text.push_str(&format!("nameserver {}\n", one_word(server)));
    }
    if !config.search.is_empty() {
        let domains: Vec<String> = config
            .search
            .iter()
            .map(|domain| one_word(domain))
            .collect();
        text.push_str(&format!("search {}\n", domains.join(" ")));
    }
    text
}

/// A value cannot begin a line of its own.
fn one_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or_default().into()
}

fn write(path: &'static str, text: &str) -> Result<(), NetworkError> {
    std::fs::write(path, text).map_err(|source| NetworkError::Write { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_protocol::config::HostEntry;

    #[test]
    fn names_come_from_the_configuration() {
        let config = NetworkConfig {
            search: vec![
                "corp.invalid".into(),
                "lab.invalid\nnameserver 6.6.6.6".into(),
            ],
            extra_hosts: vec![HostEntry {
                name: "db".into(),
                address: "10.1.1.1".into(),
            }],
            ..NetworkConfig::default()
        };
        assert_eq!(
            resolv_conf(&config),
            "nameserver 10.0.2.3\nsearch corp.invalid lab.invalid\n"
        );
        let hosts = hosts(&config, "vm");
        assert!(
            hosts.contains("\n127.0.1.1 vm\n10.0.2.2 host.docker.internal "),
            "{hosts}"
        );
        assert!(hosts.ends_with("\n10.1.1.1 db\n"), "{hosts}");
    }
}
