//! Networks and published ports, with the real CLI, on a booted VM: both families, all drivers, the host's side of ports.

mod common;

use common::{Instance, eventually, shared, text};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// Networks and containers of one test, removed at its end.
struct Lab {
    vm: &'static Instance,
    containers: Vec<String>,
    networks: Vec<String>,
}

impl Lab {
    fn new() -> Self {
        Self {
            vm: shared(),
            containers: Vec::new(),
            networks: Vec::new(),
        }
    }

    fn network(&mut self, name: &str, flags: &[&str]) {
        self.networks.push(name.to_owned());
        let words = [&["network", "create"][..], flags, &[name]].concat();
        self.vm.docker(&words);
    }

    /// A container that stays, running `script`.
    fn run(&mut self, name: &str, flags: &[&str], script: &str) {
        self.containers.push(name.to_owned());
        let run = ["run", "-d", "--name", name];
        let words = [&run[..], flags, &["busybox", "sh", "-c", script]].concat();
        self.vm.docker(&words);
    }

    /// A container that stays and does nothing.
    fn idle(&mut self, name: &str, flags: &[&str]) {
        self.run(name, flags, "exec sleep 9999");
    }

    /// A container with a web server that answers with the port's number.
    fn web(&mut self, name: &str, port: u16, flags: &[&str]) {
        let script = format!(
            "mkdir /www; echo port {port} > /www/index.html; exec httpd -f -v -p {port} -h /www"
        );
        self.run(name, flags, &script);
    }

    fn exec(&self, name: &str, script: &str) -> String {
        self.vm.docker(&["exec", name, "sh", "-c", script])
    }

    fn succeeds(&self, name: &str, script: &str) -> bool {
        let output = self.vm.docker_output(&["exec", name, "sh", "-c", script]);
        output.status.success()
    }

    fn inspect(&self, name: &str, format: &str) -> String {
        self.vm.docker(&["inspect", "-f", format, name])
    }

    /// One member of a container's end on a network.
    fn end(&self, container: &str, network: &str, member: &str) -> String {
        let format = format!("{{{{(index .NetworkSettings.Networks {network:?}).{member}}}}}");
        self.inspect(container, &format)
    }

    fn subnets(&self, network: &str) -> String {
        let format = "{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}},{{end}}";
        self.vm
            .docker(&["network", "inspect", "-f", format, network])
    }

    /// Where the container's port is published, as `docker port` tells it.
    fn port(&self, container: &str, port: &str) -> SocketAddr {
        let told = self.vm.docker(&["port", container, port]);
        told.parse()
            .unwrap_or_else(|error| panic!("{told:?}: {error}"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let remove = |words: &[&str], names: &[String]| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            if !names.is_empty() {
                let _ = self.vm.docker_command(&[words, &names].concat()).output();
            }
        };
        remove(&["rm", "-f", "-v"], &self.containers);
        remove(&["network", "rm"], &self.networks);
    }
}

/// What a web server says; nothing when there is none.
fn fetch(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.rsplit_once("\r\n\r\n")?.1.trim().to_owned())
}

fn answers(address: SocketAddr, expected: &str) {
    eventually(&format!("{address} answers {expected:?}"), || {
        fetch(address).as_deref() == Some(expected)
    });
}

/// A port of the host that nobody has at the moment.
fn free_port() -> u16 {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    probe.local_addr().expect("an address").port()
}

/// The first of `count` ports in a row that nobody has at the moment.
fn free_ports(count: u16) -> u16 {
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (20000..30000)
        .step_by(usize::from(count))
        .find(|first| (*first..first + count).all(is_free))
        .expect("free ports")
}

fn host_has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

#[test]
fn containers_have_both_families() {
    let mut lab = Lab::new();
    lab.network("both", &["--ipv6", "--subnet", "fd00:77:1::/64"]);
    lab.idle("both-a", &["--network", "both", "--hostname", "ahost"]);
    lab.idle("both-b", &["--network", "both", "--ip6", "fd00:77:1::abcd"]);
    assert_eq!(
        lab.end("both-a", "both", "GlobalIPv6Address"),
        "fd00:77:1::2"
    );
    assert_eq!(lab.end("both-a", "both", "GlobalIPv6PrefixLen"), "64");
    assert_eq!(lab.end("both-a", "both", "IPv6Gateway"), "fd00:77:1::1");
    assert_eq!(
        lab.end("both-b", "both", "GlobalIPv6Address"),
        "fd00:77:1::abcd"
    );
    assert_eq!(
        lab.inspect("both-a", "{{.NetworkSettings.LinkLocalIPv6Address}}"),
        ""
    );
    let ends = lab
        .vm
        .docker(&["network", "inspect", "-f", "{{json .Containers}}", "both"]);
    assert!(
        ends.contains("\"IPv6Address\":\"fd00:77:1::abcd/64\""),
        "{ends}"
    );

    let hosts = lab.exec("both-a", "cat /etc/hosts");
    assert!(hosts.contains("fd00:77:1::2\tahost"), "{hosts}");
    let routes = lab.exec("both-a", "ip -6 route");
    assert!(
        routes.contains("default via fd00:77:1::1 dev eth0"),
        "{routes}"
    );
    let found = lab.exec("both-a", "nslookup -type=aaaa both-b");
    assert!(found.contains("Address: fd00:77:1::abcd"), "{found}");
    let reverse = lab.exec("both-a", "nslookup fd00:77:1::abcd");
    assert!(reverse.contains("both-b.both"), "{reverse}");
    lab.exec(
        "both-a",
        "ping -6 -c1 -W10 both-b && ping -4 -c1 -W10 both-b",
    );
    lab.exec("both-a", "ping -6 -c1 -W10 fd00:77:1::1");
}

#[test]
fn subnets_are_chosen_where_none_is_given() {
    let mut lab = Lab::new();
    lab.network("own-one", &["--ipv6"]);
    lab.network("own-two", &["--ipv6"]);
    let [one, two] = ["own-one", "own-two"].map(|name| {
        let subnets = lab.subnets(name);
        let sixth = subnets.split(',').find(|entry| entry.contains(':'));
        sixth
            .unwrap_or_else(|| panic!("no IPv6 in {subnets}"))
            .to_owned()
    });
    assert!(
        one.starts_with("fd") && one.contains("::/64 ") && one.ends_with("::1"),
        "{one}"
    );
    assert_ne!(one, two);
    lab.idle("own", &["--network", "own-one"]);
    let base = one.split("/64").next().expect("a subnet");
    assert_eq!(
        lab.end("own", "own-one", "GlobalIPv6Address"),
        format!("{base}2")
    );
}

#[test]
fn a_network_without_ipv6_has_none_of_it() {
    let mut lab = Lab::new();
    lab.network("four", &[]);
    lab.idle("four-a", &["--network", "four"]);
    assert_eq!(
        lab.exec("four-a", "cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6"),
        "1"
    );
    assert_eq!(lab.exec("four-a", "ip -6 addr show dev eth0"), "");
    // The container's own loopback still has it.
    lab.exec("four-a", "ping -6 -c1 -W10 ::1");
    assert_eq!(lab.end("four-a", "four", "GlobalIPv6Address"), "");
}

#[test]
fn ipv6_alone_is_enough() {
    let mut lab = Lab::new();
    lab.network(
        "six",
        &["--ipv4=false", "--ipv6", "--subnet", "fd00:77:2::/64"],
    );
    lab.web("six-web", 80, &["--network", "six", "-p", "127.0.0.1::80"]);
    assert_eq!(lab.end("six-web", "six", "IPAddress"), "");
    assert_eq!(lab.exec("six-web", "ip -4 addr show dev eth0"), "");
    assert_eq!(lab.exec("six-web", "ip -4 route"), "");
    lab.idle("six-peer", &["--network", "six"]);
    eventually("the neighbour answers by name", || {
        lab.succeeds(
            "six-peer",
            "wget -q -O - http://six-web/ | grep -q 'port 80'",
        )
    });
    answers(lab.port("six-web", "80"), "port 80");
}

#[test]
fn networks_are_isolated_in_both_families() {
    let mut lab = Lab::new();
    lab.network("apart-one", &["--ipv6", "--subnet", "fd00:77:3::/64"]);
    lab.network("apart-two", &["--ipv6", "--subnet", "fd00:77:4::/64"]);
    lab.network(
        "apart-in",
        &["--ipv6", "--subnet", "fd00:77:5::/64", "--internal"],
    );
    lab.idle("apart-a", &["--network", "apart-one"]);
    lab.idle("apart-b", &["--network", "apart-two"]);
    lab.idle("apart-c", &["--network", "apart-in"]);
    lab.idle("apart-d", &["--network", "apart-in"]);
    lab.exec("apart-a", "ping -6 -c1 -W10 fd00:77:3::1");
    for address in ["fd00:77:4::2", "fd00:77:5::2"] {
        assert!(
            !lab.succeeds("apart-a", &format!("ping -6 -c1 -W2 {address}")),
            "{address}"
        );
    }
    let fourth = lab.end("apart-b", "apart-two", "IPAddress");
    assert!(!lab.succeeds("apart-a", &format!("ping -4 -c1 -W2 {fourth}")));
    assert_eq!(
        lab.exec(
            "apart-c",
            "ip -6 route show default; ip -4 route show default"
        ),
        ""
    );
    assert_eq!(lab.end("apart-c", "apart-in", "IPv6Gateway"), "");
    lab.exec("apart-c", "ping -6 -c1 -W10 apart-d");
}

#[test]
fn ipv6_leaves_under_the_guests_address() {
    let mut lab = Lab::new();
    lab.network("out", &["--ipv6", "--subnet", "fd00:77:6::/64"]);
    lab.idle("out-a", &["--network", "out"]);
    // An address that only the guest knows, behind a container's network that routes nothing back to ours.
    lab.network("far", &["--ipv6", "--subnet", "fd00:77:7::/64"]);
    lab.web("far-web", 80, &["--network", "far", "-p", "[::]:8087:80"]);
    eventually(
        "a published port answers on the guest's other address",
        || {
            lab.succeeds(
                "out-a",
                "wget -q -O - http://[fd00:77:7::1]:8087/ | grep -q 'port 80'",
            )
        },
    );
    let output = lab.vm.docker_output(&["logs", "far-web"]);
    let seen = text(&output.stderr) + &text(&output.stdout);
    assert!(seen.contains("fd00:77:7::1"), "{seen}");
    assert!(!seen.contains("fd00:77:6::2"), "{seen}");
}

#[test]
fn wrong_subnets_and_addresses_are_refused() {
    let mut lab = Lab::new();
    lab.network("right", &["--ipv6", "--subnet", "fd00:77:8::/64"]);
    for (flags, words) in [
        (&["--ipv4=false"][..], "IPv4 or IPv6 must be enabled"),
        (
            &["--ipv6", "--subnet", "fd00:77:8::/80"],
            "invalid pool request: Pool overlaps with other one on this address space",
        ),
        (
            &["--ipv6", "--subnet", "fd00:77:9::1/64"],
            "invalid network config:\ninvalid subnet fd00:77:9::1/64: it should be fd00:77:9::/64",
        ),
        (
            &[
                "--ipv6",
                "--subnet",
                "fd00:77:9::/64",
                "--ip-range",
                "fd00:77:9::/48",
            ],
            "invalid ip-range fd00:77:9::/48: CIDR block is bigger than its parent subnet fd00:77:9::/64",
        ),
        (
            &["--subnet", "10.97.1.0/24", "--subnet", "10.97.2.0/24"],
            "bridge driver doesn't support multiple subnets",
        ),
        (
            &["-d", "macvlan", "-o", "parent=nonsense"],
            "invalid subinterface vlan name nonsense, example formatting is eth0.10",
        ),
        (
            &["-d", "macvlan", "-o", "parent=eth9.10"],
            "-o parent interface was not found on the host: eth9",
        ),
        (
            &["-d", "macvlan", "-o", "parent=eth0.5000"],
            "vlan id must be between 1-4094, received: 5000",
        ),
        (
            &["-d", "macvlan", "-o", "parent=lo"],
            "loopback interface is not a valid macvlan parent link",
        ),
        (
            &["-d", "macvlan", "-o", "macvlan_mode=nonsense"],
            "requested macvlan mode 'nonsense' is not valid, 'bridge' mode is the macvlan driver default",
        ),
        (
            &["-d", "ipvlan", "-o", "ipvlan_mode=nonsense"],
            "requested ipvlan mode 'nonsense' is not valid, 'l2' mode is the ipvlan driver default",
        ),
    ] {
        let command = [&["network", "create"][..], flags, &["wrong"]].concat();
        let told = lab.vm.docker_fails(1, &command);
        assert!(told.contains(words), "{flags:?}: {told}");
    }
    let left = lab
        .vm
        .docker(&["network", "ls", "-q", "--filter", "name=wrong"]);
    assert_eq!(left, "", "a network that was refused is there");
    lab.idle("right-a", &["--network", "right", "--ip6", "fd00:77:8::9"]);
    for (flags, words) in [
        (
            &["--network", "right", "--ip6", "fd00:77:8::9"][..],
            "failed to set up container networking: Address already in use",
        ),
        (
            &["--network", "right", "--ip6", "fd00:78::9"],
            "invalid config for network right: invalid endpoint settings:\nno configured subnet or ip-range contain the IP address fd00:78::9",
        ),
        (
            &["--network", "right", "--ip", "10.0.0.9"],
            "user specified IP address is supported only when connecting to networks with user configured subnets",
        ),
        (
            &["--ip6", "fd00::2"],
            "user specified IP address is supported on user defined networks only",
        ),
    ] {
        let command = [&["run", "--rm"][..], flags, &["busybox", "true"]].concat();
        let told = lab.vm.docker_fails(125, &command);
        assert!(told.contains(words), "{flags:?}: {told}");
    }
}

#[test]
fn networks_without_a_parent_are_islands() {
    for (driver, prefix) in [("macvlan", "dm-"), ("ipvlan", "di-")] {
        let mut lab = Lab::new();
        let name = format!("island-{driver}");
        let [one, two] = ["one", "two"].map(|which| format!("{name}-{which}"));
        lab.network(&name, &["-d", driver, "--subnet", "10.98.1.0/24"]);
        lab.idle(&one, &["--network", &name]);
        lab.idle(&two, &["--network", &name]);
        lab.exec(&one, &format!("ping -c1 -W10 {two}"));
        assert_eq!(lab.exec(&one, "ip -4 route show default"), "");
        assert_eq!(lab.end(&one, &name, "Gateway"), "");
        let id = lab
            .vm
            .docker(&["network", "inspect", "-f", "{{.Id}}", &name]);
        let link = format!("{prefix}{}", &id[..12]);
        let links = || lab.vm.guest("ls /sys/class/net");
        assert!(links().contains(&link), "{link} is not in {}", links());
        let own = !lab.end(&one, &name, "MacAddress").is_empty();
        assert_eq!(own, driver == "macvlan");
        drop(lab);
        let left = shared().guest("ls /sys/class/net");
        assert!(!left.contains(&link), "{link} is still in {left}");
    }
}

/// Containers of both drivers on the guest's own link reach the host past the guest's routing.
#[test]
fn networks_on_the_guests_link_reach_its_network() {
    let host = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let port = host.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in host.incoming() {
            let _ = stream.expect("accept").write_all(b"the host\n");
        }
    });
    for (driver, range) in [("macvlan", "10.0.2.64/27"), ("ipvlan", "10.0.2.96/27")] {
        let mut lab = Lab::new();
        let name = format!("on-{driver}");
        let aux = format!("taken={}", range.split('/').next().expect("an address"));
        let subnet = [
            "--subnet",
            "10.0.2.0/24",
            "--gateway",
            "10.0.2.2",
            "--ip-range",
            range,
        ];
        let more = ["-d", driver, "-o", "parent=eth0", "--aux-address", &aux];
        lab.network(&name, &[&subnet[..], &more].concat());
        lab.idle(&name, &["--network", &name]);
        let address = lab.end(&name, &name, "IPAddress");
        assert!(
            ["10.0.2.65", "10.0.2.97"].contains(&address.as_str()),
            "{address}"
        );
        assert_eq!(lab.end(&name, &name, "Gateway"), "10.0.2.2");
        let said = lab.exec(&name, &format!("nc -w 20 10.0.2.2 {port} < /dev/null"));
        assert_eq!(said, "the host", "{driver}");
    }
}

#[test]
fn a_vlan_of_a_link_is_made_and_removed() {
    let mut lab = Lab::new();
    let subnets = [
        "--subnet",
        "10.98.2.0/24",
        "--subnet",
        "10.98.3.0/24",
        "--ipv6",
    ];
    lab.network(
        "vlan",
        &[&["-d", "macvlan", "-o", "parent=eth0.20"][..], &subnets].concat(),
    );
    lab.idle("vlan-a", &["--network", "vlan"]);
    lab.idle("vlan-b", &["--network", "vlan", "--ip", "10.98.3.9"]);
    // The CLI keeps subnets in a map: either may come first.
    let address = lab.end("vlan-a", "vlan", "IPAddress");
    assert!(
        ["10.98.2.2", "10.98.3.2"].contains(&address.as_str()),
        "{address}"
    );
    assert_eq!(lab.end("vlan-b", "vlan", "IPAddress"), "10.98.3.9");
    let route = lab.exec("vlan-b", "ip -4 route show default");
    assert!(route.contains("via 10.98.3.1"), "{route}");
    lab.exec("vlan-a", "ping -6 -c1 -W10 vlan-b");
    assert!(lab.vm.guest("ls /sys/class/net").contains("eth0.20"));
    drop(lab);
    assert!(!shared().guest("ls /sys/class/net").contains("eth0.20"));
}

#[test]
fn connecting_and_leaving_is_seen_inside() {
    let mut lab = Lab::new();
    lab.network("later", &["--ipv6", "--subnet", "fd00:77:a::/64"]);
    lab.idle("later-peer", &["--network", "later"]);
    lab.idle("later-a", &["--hostname", "ahost"]);
    let route = || lab.exec("later-a", "ip -4 route show default");
    let (before, hosts) = (route(), lab.exec("later-a", "cat /etc/hosts"));
    assert!(!lab.succeeds("later-a", "nslookup later-peer"));
    lab.vm.docker(&[
        "network",
        "connect",
        "--ip6",
        "fd00:77:a::77",
        "later",
        "later-a",
    ]);
    lab.exec("later-a", "ping -6 -c1 -W10 later-peer");
    let now = lab.exec("later-a", "cat /etc/hosts");
    assert!(
        now.starts_with(&hosts) && now.contains("fd00:77:a::77\tahost"),
        "{now}"
    );
    // A network of both families goes before one of one.
    assert!(route().contains("dev eth1"), "{}", route());
    assert!(
        lab.exec("later-a", "ip -6 route show default")
            .contains("fd00:77:a::1")
    );
    lab.vm
        .docker(&["network", "disconnect", "later", "later-a"]);
    assert_eq!(route(), before);
    assert_eq!(lab.exec("later-a", "cat /etc/hosts"), hosts);
    assert_eq!(lab.exec("later-a", "ls /sys/class/net"), "eth0\nlo");
}

#[test]
fn ports_are_published_on_ipv6_addresses_of_the_host() {
    if !host_has_ipv6() {
        eprintln!("skipped: this host has no IPv6");
        return;
    }
    let mut lab = Lab::new();
    lab.network("six-ports", &["--ipv6", "--subnet", "fd00:77:b::/64"]);
    let port = free_port();
    // Docker's own default written out: one port on both families. And on a network that has IPv4 only.
    let bindings = [
        format!("0.0.0.0:{port}:80"),
        format!("[::]:{port}:80"),
        "[::1]::80".to_owned(),
    ];
    let [v4, v6, loopback] = bindings.each_ref().map(String::as_str);
    lab.web(
        "six-on-both",
        80,
        &["--network", "six-ports", "-p", v4, "-p", v6],
    );
    lab.web("six-on-four", 80, &["-p", loopback]);
    answers(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "port 80");
    answers(
        format!("[::1]:{port}").parse().expect("an address"),
        "port 80",
    );
    let address = lab.port("six-on-four", "80");
    assert_eq!(address.ip().to_string(), "::1");
    answers(address, "port 80");
    let taken = format!("[::1]:{}:80", address.port());
    let told = lab
        .vm
        .docker_fails(125, &["run", "--rm", "-p", &taken, "busybox", "true"]);
    let words = format!(
        "Bind for ::1:{} failed: port is already allocated",
        address.port()
    );
    assert!(told.contains(&words), "{told}");
}

#[test]
fn ranges_of_ports_and_random_ones_are_published() {
    let mut lab = Lab::new();
    let first = free_ports(4);
    let script = "mkdir /www; for p in 80 81 82 83; do mkdir /www/$p; echo port $p > /www/$p/index.html; \
        httpd -p $p -h /www/$p; done; exec sleep 9999";
    let range = format!("{first}-{}:80-83", first + 3);
    lab.run("ranges", &["-p", &range], script);
    for index in 0..4 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, first + index));
        assert_eq!(lab.port("ranges", &(80 + index).to_string()), address);
        answers(address, &format!("port {}", 80 + index));
    }
    // The next free one of a range; any; every one that is exposed.
    let next = format!("{}-{}:80", first + 2, first + 4);
    lab.web("ranges-next", 80, &["-p", &next]);
    assert_eq!(lab.port("ranges-next", "80").port(), first + 4);
    lab.web("ranges-any", 80, &["-p", "80"]);
    lab.web("ranges-all", 80, &["-P", "--expose", "80-82"]);
    for name in ["ranges-any", "ranges-all"] {
        let address = lab.port(name, "80");
        assert_eq!(address.ip(), Ipv4Addr::LOCALHOST);
        answers(address, "port 80");
    }
    let all = lab.vm.docker(&["port", "ranges-all"]);
    assert_eq!(all.lines().count(), 3, "{all}");
}

#[test]
fn a_port_that_is_taken_keeps_the_container_from_starting() {
    let mut lab = Lab::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let port = taken.local_addr().expect("an address").port();
    let binding = format!("{port}:80");
    lab.containers.push("late".to_owned());
    let create = [
        "create", "--name", "late", "-p", &binding, "busybox", "httpd", "-f",
    ];
    lab.vm.docker(&create);
    let words = "failed: port is already allocated";
    let told = lab.vm.docker_fails(1, &["start", "late"]);
    assert!(told.contains("failed to set up container networking: driver failed programming external connectivity on endpoint late ("), "{told}");
    assert!(told.contains(words), "{told}");
    let state = "{{.State.Status}} {{.State.Pid}} {{.State.StartedAt}}";
    assert_eq!(lab.inspect("late", state), "created 0 0001-01-01T00:00:00Z");
    drop(taken);
    lab.vm.docker(&["start", "late"]);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    eventually("the port answers", || fetch(address).is_some());
    let told = lab
        .vm
        .docker_fails(125, &["run", "--rm", "-p", &binding, "busybox", "true"]);
    assert!(told.contains(&format!("{port} {words}")), "{told}");
    lab.vm.docker(&["rm", "-f", "late"]);
    TcpListener::bind(address).expect("the port is free again");
}

/// Connections from the host come from the network's gateway, as with Docker's own proxy.
#[test]
fn connections_from_the_host_come_from_the_gateway() {
    let mut lab = Lab::new();
    lab.network("seen", &["--subnet", "10.98.4.0/24"]);
    lab.web(
        "seen-web",
        80,
        &["--network", "seen", "-p", "127.0.0.1::80"],
    );
    answers(lab.port("seen-web", "80"), "port 80");
    eventually("the server's log names the gateway", || {
        let output = lab.vm.docker_output(&["logs", "seen-web"]);
        (text(&output.stderr) + &text(&output.stdout)).contains("10.98.4.1")
    });
}

/// A question for `name` (RFC 1035 section 4): the identifier, and what follows it.
fn question(identifier: u16, name: &str) -> Vec<u8> {
    let mut message = identifier.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8]);
    message.extend(name.as_bytes());
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// No program of the image serves UDP, so the container's own name service does: its loopback is opened to the published port.
#[test]
fn datagrams_go_both_ways() {
    let mut lab = Lab::new();
    lab.network("udp", &["--subnet", "10.98.5.0/24"]);
    let port = {
        let probe = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        probe.local_addr().expect("an address").port()
    };
    let binding = format!("{port}:53/udp");
    lab.idle("udp-a", &["--network", "udp", "-p", &binding]);
    let told = lab.vm.docker(&["port", "udp-a", "53/udp"]);
    assert_eq!(told, format!("127.0.0.1:{port}"));
    let namespace = lab.inspect("udp-a", "{{.NetworkSettings.SandboxKey}}");
    lab.vm.guest(&format!(
        "nsenter --net={namespace} sh -c 'echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; nft add table ip open; \
         nft \"add chain ip open pre {{ type nat hook prerouting priority -100; }}\"; \
         nft add rule ip open pre udp dport 53 dnat to 127.0.0.11'"
    ));
    let clients: Vec<UdpSocket> = (0..3)
        .map(|_| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
            socket
                .connect((Ipv4Addr::LOCALHOST, port))
                .expect("connect");
            let patience = Some(Duration::from_secs(5));
            socket.set_read_timeout(patience).expect("a time-out");
            socket
        })
        .collect();
    // Each client has its own answer, however the questions are mixed.
    eventually("all clients are answered", || {
        for (index, client) in clients.iter().enumerate() {
            let _ = client.send(&question(index as u16 + 1, "udp-a"));
        }
        clients.iter().enumerate().all(|(index, client)| {
            let mut answer = [0; 512];
            client.recv(&mut answer).is_ok_and(|length| {
                answer[..2] == (index as u16 + 1).to_be_bytes()
                    && answer[..length].ends_with(&[10, 98, 5, 2])
            })
        })
    });
}

#[test]
fn bridges_keep_members_apart_when_told() {
    let mut lab = Lab::new();
    let apart = ["-o", "com.docker.network.bridge.enable_icc=false"];
    let subnets = [
        "--ipv6",
        "--subnet",
        "fd00:77:c::/64",
        "--subnet",
        "10.98.6.0/24",
    ];
    lab.network("icc", &[&apart[..], &subnets].concat());
    lab.idle("icc-a", &["--network", "icc"]);
    lab.web("icc-b", 80, &["--network", "icc", "-p", "127.0.0.1::80"]);
    for address in ["10.98.6.3", "fd00:77:c::3"] {
        assert!(
            !lab.succeeds("icc-a", &format!("ping -c1 -W2 {address}")),
            "{address}"
        );
    }
    lab.exec(
        "icc-a",
        "ping -c1 -W10 10.98.6.1 && ping -6 -c1 -W10 fd00:77:c::1",
    );
    answers(lab.port("icc-b", "80"), "port 80");
}

/// What containers have is kept beside the daemon, so it is as before when the daemon is another process.
#[test]
fn a_killed_daemon_knows_its_networks_again() {
    let mut lab = Lab::new();
    lab.network("kept", &["--ipv6", "--subnet", "fd00:77:d::/64"]);
    lab.network(
        "kept-island",
        &["-d", "macvlan", "--subnet", "10.98.7.0/24"],
    );
    lab.web("kept-a", 80, &["--network", "kept", "-p", "127.0.0.1::80"]);
    lab.idle("kept-b", &["--network", "kept-island"]);
    let address = lab.port("kept-a", "80");
    lab.vm.guest("kill -9 $(pidof longshore-daemon)");
    eventually("the engine answers", || {
        lab.vm.docker_output(&["version"]).status.success()
    });
    answers(address, "port 80");
    lab.idle("kept-c", &["--network", "kept"]);
    assert_eq!(
        lab.end("kept-c", "kept", "GlobalIPv6Address"),
        "fd00:77:d::3"
    );
    lab.exec("kept-c", "ping -6 -c1 -W10 kept-a");
    lab.idle("kept-d", &["--network", "kept-island"]);
    lab.exec("kept-d", "ping -c1 -W10 kept-b");
    let told = lab.vm.docker_fails(1, &["network", "rm", "kept-island"]);
    assert!(
        told.contains("network kept-island has active endpoints"),
        "{told}"
    );
}

/// Its neighbours know it by its old MAC, and would send there for a while.
#[test]
fn a_container_that_starts_again_is_reached_at_once() {
    let mut lab = Lab::new();
    lab.network("again", &["--ipv6", "--subnet", "fd00:77:f::/64"]);
    lab.idle("again-a", &["--network", "again"]);
    lab.idle("again-b", &["--network", "again"]);
    let ends = |member: &str| lab.end("again-a", "again", member);
    let (old, address) = (ends("MacAddress"), ends("GlobalIPv6Address"));
    lab.exec("again-b", &format!("ping -6 -c1 -W10 {address}"));
    lab.vm.docker(&["restart", "-t", "0", "again-a"]);
    assert_eq!(ends("GlobalIPv6Address"), address);
    assert_ne!(ends("MacAddress"), old);
    lab.exec("again-b", &format!("ping -6 -c1 -W3 {address}"));
    let fourth = ends("IPAddress");
    lab.exec("again-b", &format!("ping -4 -c1 -W3 {fourth}"));
}

/// Settings that hold for one link of the container.
#[test]
fn a_link_has_settings_of_its_own() {
    let mut lab = Lab::new();
    lab.network("set", &["--ipv6", "--subnet", "fd00:77:e::/64"]);
    let option = "com.docker.network.endpoint.sysctls=net.ipv6.conf.IFNAME.accept_ra=2";
    let network = format!("name=set,driver-opt={option}");
    lab.idle("set-a", &["--network", &network]);
    assert_eq!(
        lab.exec("set-a", "cat /proc/sys/net/ipv6/conf/eth0/accept_ra"),
        "2"
    );
}

/// Nothing of a network is left in the guest when it is gone.
#[test]
fn removed_networks_leave_nothing() {
    let count = || {
        let script =
            "ls /sys/class/net | wc -l; nft list table inet longshore | grep -c gone- || true";
        shared().guest(script)
    };
    let before = count();
    let mut lab = Lab::new();
    let bridge = ["-o", "com.docker.network.bridge.name=gone-0", "--ipv6"];
    lab.network("gone", &bridge);
    lab.web(
        "gone-web",
        80,
        &["--network", "gone", "-p", "127.0.0.1::80"],
    );
    assert_ne!(count(), before);
    drop(lab);
    eventually("links and rules are as before", || count() == before);
}
