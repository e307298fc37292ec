//! What a single container or client may do to the engine, and the others hardly notice.

mod common;

use bollard::query_parameters::KillContainerOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, Docker};
use common::remains::{Remains, expect_nothing_left, peak, resident};
use common::{Instance, eventually, finish_within, shared, text};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

/// What one container's log writer or one slow client may cost, in KiB.
const FEW: u64 = 32 << 10;

/// Prints lines of 64 bytes as fast as it can, `count` of them.
fn flood(count: u64) -> String {
    format!("yes 012345678901234567890123456789012345678901234567890123456789012 | head -n {count}")
}

/// The shim is the parent of the container's first process.
fn shim_of(vm: &Instance, container: &str) -> String {
    let pid = vm.docker(&["inspect", "-f", "{{.State.Pid}}", container]);
    vm.guest(&format!("sed -n 's/PPid:[^0-9]*//p' /proc/{pid}/status"))
}

fn files_of_log(vm: &Instance, container: &str) -> (u64, u64) {
    let path = vm.docker(&["inspect", "-f", "{{.LogPath}}", container]);
    let listed = vm.guest(&format!("ls {path}*; cat {path}* | wc -c"));
    let (files, bytes) = listed.rsplit_once('\n').expect("files and a size");
    (files.lines().count() as u64, bytes.parse().expect("a size"))
}

#[test]
#[ignore = "minutes"]
fn a_gigabyte_of_log_is_rotated_in_little_memory() {
    let vm = shared();
    let script = format!("{}; echo last; sleep 1000", flood(16 << 20));
    let limits = ["--log-opt", "max-size=10m", "--log-opt", "max-file=3"];
    let run = [
        &["run", "-d", "--name", "flood"][..],
        &limits,
        &["busybox", "sh", "-c", &script],
    ];
    let daemon = resident(vm, "longshore-daemon");
    vm.docker(&run.concat());
    let mut wait = vm.docker_command(&["logs", "-f", "--tail", "0", "flood"]);
    let followed = wait.stdout(Stdio::piped()).spawn().expect("docker logs");
    let mut followed = followed;
    let lines = BufReader::new(followed.stdout.take().expect("a pipe")).lines();
    let last = lines.map_while(Result::ok).find(|line| line == "last");
    assert_eq!(
        last.as_deref(),
        Some("last"),
        "a follower falls behind, but comes to the end"
    );
    let _ = followed.kill();
    let _ = followed.wait();
    assert_eq!(vm.docker(&["logs", "--tail", "1", "flood"]), "last");
    let (files, bytes) = files_of_log(vm, "flood");
    assert!(
        files == 3 && bytes <= 30 << 20,
        "{files} files, {bytes} bytes"
    );
    let (shim, now) = (
        peak(vm, &shim_of(vm, "flood")),
        resident(vm, "longshore-daemon"),
    );
    println!("KiB: shim at most {shim}, daemon {daemon} → {now}");
    assert!(
        shim < FEW && now < daemon + FEW,
        "shim {shim}, daemon {now}"
    );
    vm.docker(&["rm", "-f", "flood"]);
}

#[test]
fn a_client_that_stops_reading_logs_hurts_nobody() {
    let vm = shared();
    let before = Remains::after_first_use(vm);
    let daemon = resident(vm, "longshore-daemon");
    let script = format!("{}; echo last; sleep 1000", flood(1 << 20));
    vm.docker(&[
        "run", "-d", "--name", "talker", "busybox", "sh", "-c", &script,
    ]);
    let stalled = || {
        let mut logs = vm.docker_command(&["logs", "-f", "talker"]);
        logs.stdout(Stdio::piped()).spawn().expect("docker logs")
    };
    let mut stalled = [stalled(), stalled(), stalled()];
    eventually("the container writes on", || {
        vm.docker(&["logs", "--tail", "1", "talker"]) == "last"
    });
    assert_eq!(vm.docker(&["exec", "talker", "echo", "other"]), "other");
    assert_eq!(vm.docker(&["run", "--rm", "busybox", "echo", "new"]), "new");
    let (shim, now) = (
        peak(vm, &shim_of(vm, "talker")),
        resident(vm, "longshore-daemon"),
    );
    assert!(
        shim < FEW && now < daemon + FEW,
        "KiB: shim {shim}, daemon {daemon} → {now}"
    );
    for client in &mut stalled {
        client.kill().expect("kill");
        client.wait().expect("wait");
    }
    vm.docker(&["rm", "-f", "talker"]);
    expect_nothing_left(vm, &before);
}

/// One client that asks the same again and again; the docker command would be ten thousand processes.
fn signal(vm: &Instance, container: &str, signal: &str, times: usize) {
    let options = KillContainerOptionsBuilder::default()
        .signal(signal)
        .build();
    let ask = async {
        let docker = Docker::connect_with_unix(&vm.docker_host(), 120, API_DEFAULT_VERSION)?;
        for _ in 0..times {
            docker
                .kill_container(container, Some(options.clone()))
                .await?;
        }
        Ok::<_, bollard::errors::Error>(())
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(ask).expect("signals");
}

/// With the labels that compose puts on a container, so that events are as large as many people's.
#[test]
#[ignore = "minutes"]
fn ten_thousand_events_are_all_told() {
    const EVENTS: usize = 10_000;
    let vm = shared();
    let since = vm.guest("date +%s");
    let labels: Vec<String> = (0..10)
        .map(|number| format!("com.docker.compose.label-{number}={}", "x".repeat(40)))
        .collect();
    let labels = labels.iter().flat_map(|label| ["--label", label]);
    let words = ["run", "-d", "--name", "told"].into_iter().chain(labels);
    vm.docker(
        &words
            .chain(["busybox", "sleep", "1000"])
            .collect::<Vec<_>>(),
    );
    let filter = [
        "--filter",
        "event=kill",
        "--filter",
        "container=told",
        "--format",
        "{{.TimeNano}}",
    ];
    let mut live = vm.docker_command(&[&["events", "--since", &since][..], &filter].concat());
    let mut live = live.stdout(Stdio::piped()).spawn().expect("docker events");
    let lines = BufReader::new(live.stdout.take().expect("a pipe")).lines();
    // Read all the time: what waits in a pipe is lost with the command that is ended.
    let followed = std::thread::spawn(move || {
        let lines = lines.map_while(Result::ok).take(EVENTS);
        lines.collect::<Vec<_>>()
    });
    signal(vm, "told", "CONT", EVENTS);
    let end = vm.guest("echo $(($(date +%s) + 1))");
    let told = |since: &str, until: &str| {
        let times = ["events", "--since", since, "--until", until];
        vm.docker(&[&times[..], &filter].concat())
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let all = told(&since, &end);
    assert_eq!(all.len(), EVENTS, "events since the start");
    // Two subscriptions, one right behind the other.
    let middle: u64 = all[EVENTS / 2].parse().expect("nanoseconds");
    let stamp = |nanos: u64| format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    let halves = [told(&since, &stamp(middle)), told(&stamp(middle + 1), &end)].concat();
    assert_eq!(halves, all);
    eventually("the follower has them all", || followed.is_finished());
    assert_eq!(followed.join().expect("lines"), all, "events followed");
    live.kill().expect("kill");
    live.wait().expect("wait");
    vm.docker(&["rm", "-f", "told"]);
}

#[test]
fn a_container_removed_during_its_start_leaves_nothing() {
    let vm = shared();
    let before = Remains::after_first_use(vm);
    for round in 0..10 {
        let name = format!("hasty-{round}");
        vm.docker(&[
            "create", "--name", &name, "-p", "80", "-v", "/data", "busybox", "sleep", "1000",
        ]);
        let start = vm
            .docker_command(&["start", &name])
            .spawn()
            .expect("docker start");
        // Sooner or later in the start.
        std::thread::sleep(Duration::from_millis(20 * round));
        vm.docker(&["rm", "-f", "-v", &name]);
        // Whatever it says, it ends.
        finish_within(common::PATIENCE, start, "docker start");
    }
    assert_eq!(vm.docker(&["ps", "-aq"]), "");
    assert_eq!(vm.docker(&["volume", "ls", "-q"]), "");
    expect_nothing_left(vm, &before);
}

/// All of them wait for a stop that holds the container; whichever of them comes first, a removed one stays removed.
#[test]
fn a_start_that_waited_for_a_removal_brings_nothing_back() {
    let vm = shared();
    let before = Remains::after_first_use(vm);
    let deaf = ["sh", "-c", "trap '' TERM; echo deaf; sleep 1000"];
    vm.docker(&[&["run", "-d", "--name", "held", "busybox"][..], &deaf].concat());
    eventually("it is deaf", || vm.docker(&["logs", "held"]) == "deaf");
    let spawn = |words: &[&str]| {
        let mut command = vm.docker_command(words);
        command.stderr(Stdio::null());
        command.spawn().expect("docker")
    };
    let mut all = vec![spawn(&["stop", "-t", "3", "held"])];
    for _ in 0..4 {
        all.push(spawn(&["rm", "-f", "held"]));
        all.push(spawn(&["start", "held"]));
        all.push(spawn(&["exec", "held", "true"]));
        all.push(spawn(&["update", "--cpus", "1", "held"]));
    }
    for client in all {
        finish_within(common::PATIENCE, client, "docker");
    }
    assert_eq!(vm.docker(&["ps", "-aq"]), "");
    expect_nothing_left(vm, &before);
}

/// Portainer's way: the docker command itself, in a container that has what it is linked with.
#[test]
fn a_tool_in_a_container_drives_the_engine() {
    let vm = shared();
    vm.load("nginx");
    let socket = "/var/run/docker.sock:/var/run/docker.sock";
    let inside = "docker run --rm busybox echo from-inside && docker ps --format '{{.Names}}'";
    vm.docker(&[
        "create",
        "--name",
        "tool",
        "-v",
        socket,
        "--entrypoint",
        "",
        "nginx",
        "sh",
        "-c",
        inside,
    ]);
    let found = std::process::Command::new("sh")
        .args(["-c", "command -v docker"])
        .output();
    let docker = text(&found.expect("sh").stdout);
    vm.docker(&["cp", "-L", docker.trim(), "tool:/usr/bin/docker"]);
    let output = vm.docker(&["start", "-a", "tool"]);
    assert_eq!(output, "from-inside\ntool");
    vm.docker(&["rm", "tool"]);
}

/// Nothing limits it but the guest, which is short of memory as a whole then.
#[test]
#[ignore = "a VM of its own"]
fn a_container_that_eats_all_memory_dies_alone() {
    let vm = Instance::with_memory("1g");
    vm.docker(&["run", "-d", "--name", "modest", "busybox", "sleep", "1000"]);
    let engine =
        "pidof longshore-agent longshore-supervisor longshore-daemon containerd-shim-longshore-v2";
    let before = (
        vm.guest(engine),
        vm.docker(&["inspect", "-f", "{{.State.Pid}}", "modest"]),
    );
    for round in 0..3 {
        let name = format!("eater-{round}");
        let words = [
            "run",
            "-d",
            "--name",
            &name,
            "busybox",
            "sh",
            "-c",
            "exec tail /dev/zero",
        ];
        vm.docker(&words);
        assert_eq!(vm.docker(&["wait", &name]), "137");
        let killed = ["inspect", "-f", "{{.State.OOMKilled}}", &name];
        assert_eq!(vm.docker(&killed), "true");
        vm.docker(&["rm", &name]);
    }
    let after = (
        vm.guest(engine),
        vm.docker(&["inspect", "-f", "{{.State.Pid}}", "modest"]),
    );
    assert_eq!(after, before);
}
