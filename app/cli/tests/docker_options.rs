//! Options of `docker run`, `create` and `cp` whose effect is seen elsewhere: in the log, in another container, in a volume.

mod common;

use common::registry::{Registry, USERS};
use common::{Instance, eventually, expect_success, shared, text};

/// Runs to its end a container that writes one line.
fn ran(vm: &Instance, name: &str, options: &[&str]) {
    run_command(vm, name, options, &["echo", "hello"]);
}

fn run_command(vm: &Instance, name: &str, options: &[&str], command: &[&str]) {
    let before = ["run", "--name", name];
    vm.docker(&[&before, options, &["busybox"], command].concat());
}

#[test]
fn log_lines_carry_labels_variables_and_a_tag() {
    let vm = shared();
    let options = [
        "--label=team=a b",
        "--env=LEVEL=3",
        "--env=LOG_PLACE=here",
        "--log-opt=labels=team,missing",
        "--log-opt=env=LEVEL",
        "--log-opt=env-regex=^LOG_",
        "--log-opt=tag={{.Name}}/{{.ImageName}}",
    ];
    ran(vm, "tagged", &options);
    assert_eq!(
        vm.docker(&["logs", "--details", "tagged"]),
        "LEVEL=3,LOG_PLACE=here,tag=tagged%2Fbusybox,team=a+b hello"
    );
    assert_eq!(vm.docker(&["logs", "tagged"]), "hello");
    let with_time = vm.docker(&["logs", "--details", "--timestamps", "tagged"]);
    assert!(with_time.contains("Z LEVEL=3,"), "{with_time}");
    ran(vm, "untagged", &[]);
    let plain = vm.docker_output(&["logs", "--details", "untagged"]);
    assert_eq!(text(&plain.stdout), " hello\n");
    let refused = vm.docker_fails(
        125,
        &["run", "--log-opt=tag={{.Nothing}}", "busybox", "true"],
    );
    assert!(
        refused.contains("failed to initialize logging driver"),
        "{refused}"
    );
}

/// Writes so many lines with their numbers in one go.
fn lines(vm: &Instance, name: &str, count: usize, options: &[&str]) {
    let print = r#"printf "line %06d with some padding after it\n", i"#;
    let program = format!("BEGIN {{ for (i = 1; i <= {count}; i++) {print} }}");
    run_command(vm, name, options, &["awk", &program]);
}

#[test]
fn rotated_logs_are_packed_and_read_back() {
    let vm = shared();
    let options = [
        "--log-opt=max-size=100k",
        "--log-opt=max-file=4",
        "--log-opt=compress=true",
    ];
    lines(vm, "packed", 2500, &options);
    let path = vm.docker(&["inspect", "--format", "{{.LogPath}}", "packed"]);
    eventually("rotated files are packed", || {
        let names = vm.guest(&format!("ls {path}*"));
        names.contains("-json.log.2.gz") && !names.contains("-json.log.1\n")
    });
    let all = vm.docker(&["logs", "packed"]);
    let numbers: Vec<&str> = all.lines().collect();
    assert_eq!(numbers.len(), 2500);
    assert!(numbers.is_sorted());
    let tail = vm.docker(&["logs", "--tail", "1500", "packed"]);
    assert_eq!(tail.lines().count(), 1500);
    assert!(tail.starts_with("line 001001 "), "{}", &tail[..20]);
}

#[test]
fn a_log_that_does_not_block_keeps_the_order_and_the_end() {
    let vm = shared();
    let options = [
        "--log-opt=mode=non-blocking",
        "--log-opt=max-buffer-size=4m",
    ];
    lines(vm, "free", 5000, &options);
    let log = vm.docker(&["logs", "free"]);
    let numbers: Vec<&str> = log.lines().collect();
    assert!(
        numbers.is_sorted() && numbers.len() == 5000,
        "{}",
        numbers.len()
    );
    assert!(
        numbers
            .last()
            .is_some_and(|last| last.starts_with("line 005000 "))
    );
    let refused = vm.docker_fails(
        125,
        &["run", "--log-opt=max-buffer-size=4m", "busybox", "true"],
    );
    assert!(refused.contains("only supported with 'mode=non-blocking'"));
}

#[test]
fn a_linked_container_is_known_by_name_and_variables() {
    let vm = shared();
    let keep = ["busybox", "sleep", "1000"];
    let run = |options: &[&str]| vm.docker(&[&["run", "-d"], options, &keep].concat());
    run(&[
        "--name=db",
        "--hostname=db-host",
        "--env=PASSWORD=x",
        "--expose=5432",
    ]);
    run(&["--name=web", "--link=db:data-base"]);
    let address = |name: &str| {
        let field = "{{.NetworkSettings.IPAddress}}";
        vm.docker(&["inspect", "--format", field, name])
    };
    let hosts = || vm.docker(&["exec", "web", "cat", "/etc/hosts"]);
    let line = format!("{}\tdata-base db-host db", address("db"));
    assert!(hosts().contains(&line), "{}", hosts());
    vm.docker(&["exec", "web", "ping", "-c1", "-W5", "data-base"]);
    let variables = vm.docker(&["exec", "web", "env"]);
    for expected in [
        format!("DATA_BASE_PORT=tcp://{}:5432", address("db")),
        "DATA_BASE_NAME=/web/data-base".to_owned(),
        "DATA_BASE_ENV_PASSWORD=x".to_owned(),
    ] {
        assert!(variables.contains(&expected), "{expected}: {variables}");
    }
    let links = vm.docker(&["inspect", "--format", "{{.HostConfig.Links}}", "web"]);
    assert_eq!(links, "[/db:/web/data-base]");
    let names = [
        "ps",
        "--no-trunc",
        "--filter=name=^/db$",
        "--format={{.Names}}",
    ];
    assert_eq!(vm.docker(&names), "db,web/data-base");
    let by_link = ["inspect", "--format", "{{.Name}}", "web/data-base"];
    assert_eq!(vm.docker(&by_link), "/db");

    // Somebody else takes the address meanwhile: the name follows.
    vm.docker(&["stop", "-t0", "db"]);
    run(&["--name=other"]);
    vm.docker(&["start", "db"]);
    let line = format!("{}\tdata-base db-host db", address("db"));
    assert!(hosts().contains(&line), "{}", hosts());
    run(&["--name=unlinked", "--link=db"]);
    vm.docker(&["rm", "--link", "web/data-base"]);
    assert!(!hosts().contains("data-base"), "{}", hosts());
    assert_eq!(vm.docker(&names), "db,unlinked/db");

    vm.docker(&["stop", "-t0", "db"]);
    let refused = vm.docker_fails(125, &["run", "--name=w2", "--link=db", "busybox", "true"]);
    assert!(
        refused.contains("Cannot link to a non running container: /db AS /w2/db"),
        "{refused}"
    );
    vm.docker(&["rm", "-f", "db", "web", "other", "unlinked", "w2"]);
}

#[test]
fn a_link_on_a_network_is_an_alias_for_one() {
    let vm = shared();
    vm.docker(&["network", "create", "linked"]);
    let keep = ["busybox", "sleep", "1000"];
    let on = ["run", "-d", "--network=linked"];
    vm.docker(&[&on[..], &["--name=cache"], &keep].concat());
    vm.docker(&[&on[..], &["--name=user", "--link=cache:memory"], &keep].concat());
    vm.docker(&[&on[..], &["--name=stranger"], &keep].concat());
    let ping = ["ping", "-c1", "-W5", "memory"];
    vm.docker(&[&["exec", "user"], &ping[..]].concat());
    vm.docker_fails(1, &[&["exec", "stranger"], &ping[..]].concat());
    vm.docker(&["rm", "-f", "cache", "user", "stranger"]);
    vm.docker(&["network", "rm", "linked"]);
}

#[test]
fn cp_reaches_the_volumes_of_a_container_that_does_not_run() {
    let vm = shared();
    let local = vm.home.path().join("copied");
    std::fs::write(&local, "from the host").expect("write");
    let local = local.to_str().expect("utf-8");
    vm.docker(&[
        "create",
        "--name=holder",
        "--volume=kept:/data",
        "--volume=fixed:/fixed:ro",
        "--tmpfs=/scratch",
        "busybox",
        "ls",
        "/data",
    ]);
    vm.docker(&["cp", local, "holder:/data/file"]);
    let seen = [
        "run",
        "--rm",
        "--volume=kept:/v",
        "busybox",
        "cat",
        "/v/file",
    ];
    assert_eq!(vm.docker(&seen), "from the host");

    // And out again; what another container has put there, too.
    let write = "echo more > /v/sub/more; ln -s ../../fixed /v/sub/out";
    let write = format!("mkdir /v/sub; {write}");
    vm.docker(&[
        "run",
        "--rm",
        "--volume=kept:/v",
        "busybox",
        "sh",
        "-c",
        &write,
    ]);
    let out = vm.home.path().join("out");
    vm.docker(&["cp", "holder:/data/sub/more", out.to_str().expect("utf-8")]);
    assert_eq!(std::fs::read_to_string(&out).expect("read"), "more\n");

    for place in ["holder:/fixed/x", "holder:/data/sub/out/"] {
        let refused = vm.docker_fails(1, &["cp", local, place]);
        assert!(
            refused.contains("mounted volume is marked read-only"),
            "{place}: {refused}"
        );
    }
    assert_eq!(vm.docker(&["start", "-a", "holder"]), "file\nsub");
    let mounts = "grep -c volumes/kept /proc/self/mountinfo || true";
    assert_eq!(vm.guest(mounts), "0");
    vm.docker(&["rm", "holder"]);
    vm.docker(&["volume", "rm", "kept", "fixed"]);
}

#[test]
fn a_volume_is_filled_from_the_image_before_the_first_cp() {
    let vm = shared();
    vm.docker(&["create", "--name=filled", "--volume=etc:/etc", "busybox"]);
    let out = vm.home.path().join("passwd");
    vm.docker(&["cp", "filled:/etc/passwd", out.to_str().expect("utf-8")]);
    let passwd = std::fs::read_to_string(&out).expect("read");
    assert!(passwd.starts_with("root:"), "{passwd}");
    vm.docker(&["rm", "filled"]);
    vm.docker(&["volume", "rm", "etc"]);
}

/// An answer of the API, by curl on the instance's socket.
fn get(vm: &Instance, path: &str, headers: &[&str]) -> (u16, serde_json::Value) {
    let socket = vm.docker_host().replace("unix://", "");
    let mut command = std::process::Command::new("curl");
    command.args(["--silent", "--write-out", "\n%{http_code}", "--unix-socket"]);
    command.arg(socket).arg(format!("http://docker{path}"));
    for header in headers {
        command.args(["--header", header]);
    }
    let output = common::finish(command, path);
    let answer = text(&output.stdout);
    let (body, status) = answer.rsplit_once('\n').expect("a status");
    let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
    (status.parse().expect("a status"), body)
}

#[test]
fn the_registry_tells_what_a_name_stands_for() {
    // `{"username":"me","password":"secret"}` in base64.
    const AUTH: &str = "X-Registry-Auth: eyJ1c2VybmFtZSI6Im1lIiwicGFzc3dvcmQiOiJzZWNyZXQifQ==";
    let registry = Registry::start();
    let digest = registry.push("busybox");
    let closed = Registry::start_with(Some(USERS));
    let vm = Instance::new();
    let host = |registry: &Registry| format!("host.docker.internal:{}", registry.port);
    for registry in [&registry, &closed] {
        let setting = format!("insecure_registries+={}", host(registry));
        expect_success(&vm.longshore(&["settings", "set", &setting]), "settings");
    }
    vm.start(&[]);
    for name in ["busybox:1".to_owned(), format!("busybox@{digest}")] {
        let path = format!("/distribution/{}/{name}/json", host(&registry));
        let (status, told) = get(&vm, &path, &[]);
        assert_eq!(status, 200, "{told}");
        assert_eq!(told["Descriptor"]["digest"], digest.as_str());
        let platforms = serde_json::json!([{ "architecture": "amd64", "os": "linux" }]);
        assert_eq!(told["Platforms"], platforms);
    }
    let path = format!("/distribution/{}/nothing:1/json", host(&registry));
    let (status, told) = get(&vm, &path, &[]);
    assert_eq!(status, 404, "{told}");
    let path = format!("/distribution/{}/busybox:1/json", host(&closed));
    let (status, told) = get(&vm, &path, &[]);
    assert_eq!(
        (status, told["message"].as_str()),
        (401, Some("unauthorized: authentication required"))
    );
    // Let in, and nothing there.
    assert_eq!(get(&vm, &path, &[AUTH]).0, 404);
}

#[test]
fn the_users_daemon_json_reaches_the_engine() {
    let vm = Instance::new();
    let settings = r#"{"ipv6": true, "fixed-cidr-v6": "fd00:77::/64", "log-opts": {"max-size": "1m"},
        "default-address-pools": [{"base": "10.99.0.0/16", "size": 24}]}"#;
    std::fs::write(vm.home.path().join("daemon.json"), settings).expect("write");
    vm.start(&[]);
    vm.load("busybox");
    vm.docker(&["network", "create", "pooled"]);
    let subnets = "{{range .IPAM.Config}}{{.Subnet}} {{end}}";
    let subnets = |name: &str| vm.docker(&["network", "inspect", "--format", subnets, name]);
    assert_eq!(subnets("bridge"), "10.99.0.0/24 fd00:77::/64");
    assert_eq!(subnets("pooled"), "10.99.1.0/24");
    let run = |name: &str| vm.docker(&["run", "-d", "--name", name, "busybox", "sleep", "1000"]);
    run("first");
    run("second");
    let field = "{{.NetworkSettings.GlobalIPv6Address}} {{.HostConfig.LogConfig.Config}}";
    let told = vm.docker(&["inspect", "--format", field, "first"]);
    assert_eq!(told, "fd00:77::2 map[max-size:1m]");
    vm.docker(&["exec", "second", "ping", "-6", "-c1", "-W5", "fd00:77::2"]);

    // Without the setting the next boot has none of it; the network that was made stays.
    vm.docker(&["rm", "-f", "first", "second"]);
    expect_success(&vm.longshore(&["stop"]), "longshore stop");
    std::fs::write(vm.home.path().join("daemon.json"), "{}").expect("write");
    vm.start(&[]);
    assert_eq!(subnets("bridge"), "10.99.0.0/24");
    assert_eq!(subnets("pooled"), "10.99.1.0/24");
    std::fs::write(vm.home.path().join("daemon.json"), "{").expect("write");
    expect_success(&vm.longshore(&["stop"]), "longshore stop");
    let refused = vm.longshore(&["start"]);
    assert!(
        text(&refused.stderr).contains("daemon.json: "),
        "{refused:?}"
    );
}

#[test]
fn the_link_of_a_container_has_the_name_that_is_asked_for() {
    let vm = shared();
    vm.docker(&["network", "create", "named"]);
    let network = "--network=name=named,driver-opt=com.docker.network.endpoint.ifname=lan0";
    let links = vm.docker(&["run", "--rm", network, "busybox", "ls", "/sys/class/net"]);
    assert_eq!(links, "lan0\nlo");
    let network = network.replace("lan0", "a/b");
    let refused = vm.docker_fails(125, &["run", "--rm", &network, "busybox", "true"]);
    assert!(refused.contains("invalid interface name: a/b"), "{refused}");
    vm.docker(&["network", "rm", "named"]);
}

#[test]
fn ancestors_are_found_through_built_images() {
    let vm = shared();
    let context = vm.home.path().join("child");
    std::fs::create_dir_all(&context).expect("a folder");
    std::fs::write(
        context.join("Dockerfile"),
        "FROM busybox\nLABEL a=b\nLABEL c=d\n",
    )
    .expect("write");
    let mut build = vm.docker_command(&["build", "-q", "-t", "child"]);
    build.arg(&context).env("DOCKER_BUILDKIT", "0");
    expect_success(&common::finish(build, "docker build"), "docker build");
    vm.docker(&["create", "--name=of-child", "child"]);
    for ancestor in ["busybox", "child"] {
        let filter = format!("ancestor={ancestor}");
        let names = vm.docker(&["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]);
        assert!(names.lines().any(|name| name == "of-child"), "{names}");
    }
    let none = vm.docker(&["ps", "-aq", "--filter", "ancestor=nothing"]);
    assert_eq!(none, "");
    vm.docker(&["rm", "of-child"]);
    vm.docker(&["rmi", "child"]);
}
