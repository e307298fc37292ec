//! `--link` on the default bridge: the linked containers' names in `/etc/hosts`, and their ports and variables in the environment.
//!
//! On other networks a link is an alias that the name service knows.

use super::config::HostConfig;
use super::record::Container;
use crate::error::{ApiError, ApiResult};
use crate::network::EndpointSettings;
use crate::state::Daemon;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Another container, under the name that it has here.
struct Link {
    to: Arc<Container>,
    alias: String,
}

/// `container` or `container:alias`.
fn parse(link: &str) -> ApiResult<(&str, &str)> {
    let parts: Vec<&str> = link.split(':').collect();
    match parts.as_slice() {
        [name] if !name.is_empty() => Ok((name, name.trim_start_matches('/'))),
        [name, alias] if !name.is_empty() => Ok((name, alias)),
        _ => Err(ApiError::internal(format!("bad format for links: {link}"))),
    }
}

fn on_default_bridge(host: &HostConfig) -> bool {
    matches!(host.network_mode.as_str(), "" | "default" | "bridge")
}

/// Checks the links of a container that is to be, and notes the others by their ids, which no rename changes.
pub fn resolve(daemon: &Daemon, host: &mut HostConfig) -> ApiResult<()> {
    let is_default = on_default_bridge(host);
    for link in host.links.iter_mut().flatten() {
        let (name, alias) = parse(link)?;
        if !is_default {
            continue;
        }
        let to = linked(daemon, name)?;
        if to.host_config.network_mode == "host" {
            return Err(ApiError::bad_request(
                "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
            ));
        }
        *link = format!("{}:{alias}", to.id);
    }
    Ok(())
}

/// The container of that name, or the one whose network it shares.
fn linked(daemon: &Daemon, name: &str) -> ApiResult<Arc<Container>> {
    let name = name.trim_start_matches('/');
    let mut found = daemon.containers.get(name).map_err(|error| {
        ApiError::bad_request(format!(
            "could not get container for {name}: {}",
            error.message
        ))
    })?;
    while let Some(peer) = found.host_config.network_mode.strip_prefix("container:") {
        found = daemon.containers.get(peer)?;
    }
    Ok(found)
}

/// Those that are still there.
fn of(daemon: &Daemon, container: &Container) -> Vec<Link> {
    if !on_default_bridge(&container.host_config) {
        return Vec::new();
    }
    let links = container.host_config.links.iter().flatten();
    let found = links.filter_map(|link| {
        let (id, alias) = parse(link).ok()?;
        Some(Link {
            to: daemon.containers.get(id).ok()?,
            alias: alias.to_owned(),
        })
    });
    found.collect()
}

/// The id of the container that this one links to by an alias.
pub fn target(container: &Container, alias: &str) -> Option<String> {
    let links = container.host_config.links.iter().flatten();
    let found = links.filter_map(|link| parse(link).ok());
    let by_id = on_default_bridge(&container.host_config);
    found
        .filter(|found| by_id && found.1 == alias)
        .map(|(id, _)| id.to_owned())
        .next()
}

/// Names that containers have through the links of others, by their ids: `/web/db`.
pub fn names(containers: &[Arc<Container>]) -> HashMap<String, Vec<String>> {
    let mut names: HashMap<String, Vec<String>> = HashMap::new();
    for container in containers {
        if !on_default_bridge(&container.host_config) {
            continue;
        }
        let links = container.host_config.links.iter().flatten();
        for (id, alias) in links.filter_map(|link| parse(link).ok()) {
            let name = format!("/{}/{alias}", container.name);
            names.entry(id.to_owned()).or_default().push(name);
        }
    }
    names
}

/// Takes a link away, by the name that it gives: from the container's record and, while it runs, from its `/etc/hosts`.
pub async fn remove(daemon: &Daemon, asked: &str) -> ApiResult<()> {
    let name = asked.trim_start_matches('/');
    let Some((parent, alias)) = name.rsplit_once('/') else {
        return Err(ApiError::internal(
            "Conflict, cannot remove the default link name of the container",
        ));
    };
    let entry = daemon.containers.entry(parent)?;
    let _operation = entry.operate().await?;
    let before = entry.now();
    let is_gone = |link: &str| parse(link).is_ok_and(|(_, found)| found == alias);
    daemon.containers.change_fixed(&entry, |fixed| {
        if let Some(links) = &mut fixed.host_config.links {
            links.retain(|link| !is_gone(link));
        }
    })?;
    if !before.running {
        return Ok(());
    }
    let gone = of(daemon, &before)
        .into_iter()
        .filter(|link| link.alias == alias);
    let lines: Vec<String> = gone
        .flat_map(|link| lines(&link, on_bridge(daemon, &link.to)))
        .collect();
    let path = daemon.containers.folder(&before.id).join("hosts");
    let text = std::fs::read_to_string(&path)?;
    let kept = text
        .lines()
        .filter(|line| !lines.iter().any(|gone| gone == line));
    std::fs::write(
        &path,
        kept.map(|line| format!("{line}\n")).collect::<String>(),
    )?;
    Ok(())
}

/// The links as inspect shows them: `/other:/this/alias`.
pub fn shown(daemon: &Daemon, container: &Container) -> Option<Vec<String>> {
    let links = of(daemon, container);
    let show = |link: &Link| format!("/{}:/{}/{}", link.to.name, container.name, link.alias);
    (!links.is_empty()).then(|| links.iter().map(show).collect())
}

/// An end on the default bridge, while the container runs.
fn on_bridge(daemon: &Daemon, container: &Container) -> Option<EndpointSettings> {
    daemon
        .networks
        .endpoints(&container.id)?
        .networks
        .remove("bridge")
}

/// The lines of `/etc/hosts` for what the container links to.
pub fn host_lines(daemon: &Daemon, container: &Container) -> Vec<String> {
    let links = of(daemon, container);
    links
        .iter()
        .flat_map(|link| lines(link, on_bridge(daemon, &link.to)))
        .collect()
}

fn lines(link: &Link, end: Option<EndpointSettings>) -> Vec<String> {
    let mut names = format!("{} {}", link.alias, link.to.config.hostname);
    if link.alias != link.to.name {
        names = format!("{names} {}", link.to.name);
    }
    let end = end.unwrap_or_default();
    let addresses = [end.ip_address, end.global_ipv6_address];
    let addresses = addresses.iter().filter(|address| !address.is_empty());
    addresses
        .map(|address| format!("{address}\t{names}"))
        .collect()
}

/// Follows a container that has started in the `/etc/hosts` of those that link to it: its address may be another one.
pub fn announce(daemon: &Daemon, started: &Container) {
    let all = daemon.containers.list();
    let others = all.iter().filter(|other| other.running);
    for other in others {
        for link in of(daemon, other)
            .iter()
            .filter(|link| link.to.id == started.id)
        {
            let path = daemon.containers.folder(&other.id).join("hosts");
            let updated = std::fs::read_to_string(&path).and_then(|text| {
                let fresh = lines(link, on_bridge(daemon, started));
                std::fs::write(&path, with_addresses(&text, &fresh))
            });
            if let Err(error) = updated {
                tracing::warn!(%error, container = other.id, "following a linked container");
            }
        }
    }
}

/// Lines in the place of those for the same names.
fn with_addresses(text: &str, fresh: &[String]) -> String {
    let names = |line: &str| line.split_once('\t').map(|(_, names)| names.to_owned());
    let Some(ours) = fresh.first().and_then(|line| names(line)) else {
        return text.to_owned();
    };
    let mut updated = String::new();
    let mut fresh = Some(fresh);
    for line in text.lines() {
        let lines = match names(line).as_ref() == Some(&ours) {
            true => fresh.take().unwrap_or_default(),
            false => &[line.to_owned()][..],
        };
        updated.extend(lines.iter().flat_map(|line| [line, "\n"]));
    }
    updated
}

/// Docker's variables for what the container links to, all of which has to run.
pub fn environment(daemon: &Daemon, container: &Container) -> ApiResult<Vec<String>> {
    let mut all = Vec::new();
    for link in of(daemon, container) {
        let name = format!("/{}/{}", container.name, link.alias);
        if !link.to.running {
            return Err(ApiError::internal(format!(
                "Cannot link to a non running container: /{} AS {name}",
                link.to.name
            )));
        }
        let end = on_bridge(daemon, &link.to).ok_or_else(|| {
            ApiError::internal(format!(
                "Cannot link to /{}, as it does not belong to the default network",
                link.to.name
            ))
        })?;
        let ports: Vec<&str> = link
            .to
            .config
            .exposed_ports
            .keys()
            .map(String::as_str)
            .collect();
        let prefix = link.alias.to_ascii_uppercase().replace('-', "_");
        all.extend(port_variables(&prefix, &end.ip_address, &ports));
        all.push(format!("{prefix}_NAME={name}"));
        let variables = link.to.config.env.iter().flatten();
        let variables = variables.filter_map(|variable| variable.split_once('='));
        all.extend(
            variables
                .filter(|(key, _)| !matches!(*key, "HOME" | "PATH"))
                .map(|(key, value)| format!("{prefix}_ENV_{key}={value}")),
        );
    }
    Ok(all)
}

/// Of each port, of the first one, and of each run of neighbours; TCP comes first.
fn port_variables(prefix: &str, address: &str, ports: &[&str]) -> Vec<String> {
    let sorted: BTreeSet<(bool, &str, u16)> = ports
        .iter()
        .filter_map(|port| {
            let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
            Some((protocol != "tcp", protocol, number.parse().ok()?))
        })
        .collect();
    let sorted: Vec<(&str, u16)> = sorted
        .into_iter()
        .map(|(_, protocol, number)| (protocol, number))
        .collect();
    let url = |(protocol, number): (&str, u16)| format!("{protocol}://{address}:{number}");
    let key = |(protocol, number): (&str, u16)| {
        format!("{prefix}_PORT_{number}_{}", protocol.to_ascii_uppercase())
    };
    let mut all: Vec<String> = Vec::new();
    all.extend(
        sorted
            .first()
            .map(|first| format!("{prefix}_PORT={}", url(*first))),
    );
    for run in sorted.chunk_by(|a, b| a.0 == b.0 && a.1 + 1 == b.1) {
        for port in run {
            let (key, url) = (key(*port), url(*port));
            all.extend([
                format!("{key}={url}"),
                format!("{key}_ADDR={address}"),
                format!("{key}_PORT={}", port.1),
                format!("{key}_PROTO={}", port.0),
            ]);
        }
        if let [start, .., end] = run {
            let key = key(*start);
            all.extend([
                format!("{key}_START={}", url(*start)),
                format!("{key}_PORT_START={}", start.1),
                format!("{key}_END={}", url(*end)),
                format!("{key}_PORT_END={}", end.1),
            ]);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_have_a_name_and_an_alias() {
        assert_eq!(parse("c").unwrap(), ("c", "c"));
        assert_eq!(parse("/c:db").unwrap(), ("/c", "db"));
        for bad in ["", ":", "a:b:c"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_become_variables() {
        let expected = "DB_PORT=tcp://1.2.3.4:81
DB_PORT_81_TCP=tcp://1.2.3.4:81
DB_PORT_81_TCP_ADDR=1.2.3.4
DB_PORT_81_TCP_PORT=81
DB_PORT_81_TCP_PROTO=tcp
DB_PORT_82_TCP=tcp://1.2.3.4:82
DB_PORT_82_TCP_ADDR=1.2.3.4
DB_PORT_82_TCP_PORT=82
DB_PORT_82_TCP_PROTO=tcp
DB_PORT_81_TCP_START=tcp://1.2.3.4:81
DB_PORT_81_TCP_PORT_START=81
DB_PORT_81_TCP_END=tcp://1.2.3.4:82
DB_PORT_81_TCP_PORT_END=82
DB_PORT_53_UDP=udp://1.2.3.4:53
DB_PORT_53_UDP_ADDR=1.2.3.4
DB_PORT_53_UDP_PORT=53
DB_PORT_53_UDP_PROTO=udp";
        let ports = ["53/udp", "82/tcp", "81/tcp"];
        assert_eq!(port_variables("DB", "1.2.3.4", &ports).join("\n"), expected);
        assert!(port_variables("DB", "1.2.3.4", &[]).is_empty());
    }

    #[test]
    fn a_new_address_takes_the_old_ones_place() {
        let text = "127.0.0.1\tlocalhost\n172.17.0.2\tdb x\n172.17.0.3\tme\n";
        let fresh = ["172.17.0.9\tdb x".to_owned()];
        let expected = "127.0.0.1\tlocalhost\n172.17.0.9\tdb x\n172.17.0.3\tme\n";
        assert_eq!(with_addresses(text, &fresh), expected);
        assert_eq!(with_addresses(text, &[]), text);
    }
}
