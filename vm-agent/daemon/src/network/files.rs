//! Contents of a container's `/etc/hosts` and `/etc/resolv.conf`.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use super::model::{ContainerNetworkRequest, EndpointSet};

/// Where the embedded name service answers inside a container.
pub const NAME_SERVICE: &str = "127.0.0.11";
/// Used when the machine names no server that a container could reach.
const FALLBACK_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

const HOSTS_HEAD: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// The user's machine as containers reach it: what the guest's default route goes through.
pub fn host_address() -> Option<Ipv4Addr> {
    default_gateway(&fs::read_to_string("/proc/net/route").ok()?)
}

/// proc(5): interface, destination, gateway, … in hexadecimal, least significant byte first.
fn default_gateway(routes: &str) -> Option<Ipv4Addr> {
    routes.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (destination, gateway) = (words.next()?, words.next()?);
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        (destination == "00000000" && gateway != 0).then(|| Ipv4Addr::from(gateway.swap_bytes()))
    })
}

/// What a `resolv.conf` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    pub servers: Vec<String>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

impl ResolvConf {
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => conf.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        conf
    }

    /// The guest's own, without servers on its loopback, which a container cannot reach.
    pub fn of_this_machine() -> Self {
        let mut conf = Self::parse(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
        conf.servers.retain(|server| {
            server
                .parse::<IpAddr>()
                .is_ok_and(|address| !address.is_loopback())
        });
        if conf.servers.is_empty() {
            conf.servers = FALLBACK_SERVERS.map(str::to_owned).to_vec();
        }
        conf
    }

    /// The user's `--dns…` in place of the guest's.
    fn with_overrides(mut self, request: &ContainerNetworkRequest) -> Self {
        for (ours, theirs) in [
            (&mut self.servers, &request.dns),
            (&mut self.search, &request.dns_search),
            (&mut self.options, &request.dns_options),
        ] {
            if !theirs.is_empty() {
                ours.clone_from(theirs);
            }
        }
        // `--dns-search .` means none.
        self.search.retain(|domain| domain != ".");
        self
    }

    fn render(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.search.is_empty() {
            let _ = writeln!(text, "search {}", self.search.join(" "));
        }
        if !self.options.is_empty() {
            let _ = writeln!(text, "options {}", self.options.join(" "));
        }
        text
    }
}

/// `resolv.conf` for a container; with the embedded name service when one of its networks has it.
pub fn resolv_conf(request: &ContainerNetworkRequest, name_service: bool) -> String {
    let mut conf = ResolvConf::of_this_machine().with_overrides(request);
    if name_service {
        conf.servers = vec![NAME_SERVICE.to_owned()];
        if !conf
            .options
            .iter()
            .any(|option| option.starts_with("ndots:"))
        {
            conf.options.push("ndots:0".to_owned());
        }
    }
    conf.render()
}

/// The names of the user's machine, as Docker Desktop has them.
pub const HOST_NAMES: [&str; 2] = ["host.docker.internal", "gateway.docker.internal"];

/// `hosts` for a container: itself by every address it has, the user's `--add-host`, what it links to, and the user's machine where
/// no name service tells of it.
pub fn hosts(
    request: &ContainerNetworkRequest,
    linked: &[String],
    set: &EndpointSet,
    name_service: bool,
) -> String {
    let mut text = match request.mode.as_str() {
        "host" => fs::read_to_string("/etc/hosts").unwrap_or_else(|_| HOSTS_HEAD.to_owned()),
        _ => HOSTS_HEAD.to_owned(),
    };
    let gateway = set
        .networks
        .values()
        .map(|endpoint| endpoint.gateway.as_str())
        .find(|g| !g.is_empty());
    let host = host_address().map(|address| address.to_string());
    for extra in &request.extra_hosts {
        let Some((name, address)) = extra.split_once(['=', ':']) else {
            continue;
        };
        let address = match address {
            "host-gateway" => host.as_deref().or(gateway).unwrap_or("127.0.0.1"),
            address => address.trim_matches(['[', ']']),
        };
        let _ = writeln!(text, "{address}\t{name}");
    }
    // Behind the user's own lines: the first one counts.
    if let Some(host) = host.filter(|_| gateway.is_some() && !name_service) {
        let _ = writeln!(text, "{host}\t{}", HOST_NAMES.join(" "));
    }
    for line in linked.iter().chain(&own_lines(request, set)) {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// The lines of `hosts` that name the container itself, one for each address.
pub fn own_lines(request: &ContainerNetworkRequest, set: &EndpointSet) -> Vec<String> {
    if request.hostname.is_empty() {
        return Vec::new();
    }
    let name = match request.domainname.as_str() {
        "" => request.hostname.clone(),
        domain => format!("{}.{domain} {}", request.hostname, request.hostname),
    };
    set.networks
        .values()
        .flat_map(|end| [&end.ip_address, &end.global_ipv6_address])
        .filter(|address| !address.is_empty())
        .map(|address| format!("{address}\t{name}"))
        .collect()
}

/// Takes lines out of a text and adds others at its end, each once.
pub fn replace_lines(text: &str, old: &[String], new: &[String]) -> String {
    let is_in = |list: &[String], line: &str| list.iter().any(|known| known == line);
    let stays = |line: &&str| !is_in(old, line) || is_in(new, line);
    let mut lines: Vec<&str> = text.lines().filter(stays).collect();
    for line in new {
        if !lines.contains(&line.as_str()) {
            lines.push(line);
        }
    }
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::model::EndpointSettings;
    use super::*;

    #[test]
    fn resolv_conf_is_parsed_and_overridden() {
        let conf = ResolvConf::parse("# x\nnameserver 10.0.2.3\nsearch a b\noptions timeout:1\n");
        assert_eq!(conf.servers, ["10.0.2.3"]);
        let request = ContainerNetworkRequest {
            dns: vec!["1.1.1.1".into()],
            dns_search: vec![".".into()],
            ..Default::default()
        };
        assert_eq!(
            conf.with_overrides(&request).render(),
            "nameserver 1.1.1.1\noptions timeout:1\n"
        );
    }

    #[test]
    fn the_host_is_behind_the_default_route() {
        let routes = "Iface\tDestination\tGateway\tFlags\neth0\t0002000A\t00000000\t0001\n\
            eth0\t00000000\t0202000A\t0003\n";
        assert_eq!(default_gateway(routes), Some([10, 0, 2, 2].into()));
        assert_eq!(default_gateway("Iface\tDestination\n"), None);
    }

    #[test]
    fn hosts_name_the_container_and_the_users_extras() {
        let request = ContainerNetworkRequest {
            hostname: "web".into(),
            domainname: "example.org".into(),
            extra_hosts: vec!["db:10.0.0.9".into()],
            ..Default::default()
        };
        let endpoint = EndpointSettings {
            ip_address: "172.18.0.2".into(),
            gateway: "172.18.0.1".into(),
            global_ipv6_address: "fd00::2".into(),
            ..Default::default()
        };
        let set = EndpointSet {
            networks: [("n".into(), endpoint)].into(),
            ..Default::default()
        };
        let linked = ["172.18.0.7\tdb".to_owned()];
        let text = hosts(&request, &linked, &set, true);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with(
            "10.0.0.9\tdb\n172.18.0.7\tdb\n172.18.0.2\tweb.example.org web\nfd00::2\tweb.example.org web\n"
        ));
    }

    #[test]
    fn lines_are_replaced_and_the_rest_stays() {
        let lines = |list: &[&str]| list.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
        let text = "127.0.0.1\tlocalhost\n10.0.0.2\tweb\n1.2.3.4\tmine\n";
        let both = lines(&["10.0.0.2\tweb", "10.1.0.2\tweb"]);
        let connected = replace_lines(text, &both[..1], &both);
        assert_eq!(connected, format!("{text}10.1.0.2\tweb\n"));
        assert_eq!(replace_lines(&connected, &both, &both[..1]), text);
    }
}
