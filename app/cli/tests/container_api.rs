//! The container side of Docker's API: numbers, health, memory, changes, logs; with the real CLI, on a booted VM.

mod common;

use common::{Instance, eventually, shared, text};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::Command;

/// A request as an SDK makes it: status code and body.
fn request(vm: &Instance, method: &str, path: &str) -> (String, String) {
    let socket = vm.docker_host();
    let mut command = Command::new("curl");
    command.args(["-s", "--max-time", "60", "-X", method, "--unix-socket"]);
    command.arg(socket.trim_start_matches("unix://"));
    command.args([
        "-w",
        "\n%{http_code}",
        &format!("http://docker/v1.51{path}"),
    ]);
    let output = common::finish(command, &format!("{method} {path}"));
    let answer = text(&output.stdout);
    let (body, code) = answer.rsplit_once('\n').unwrap_or_default();
    (code.to_owned(), body.to_owned())
}

fn get(vm: &Instance, path: &str) -> Value {
    let (code, body) = request(vm, "GET", path);
    assert_eq!(code, "200", "GET {path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("GET {path}: {error}: {body}"))
}

fn inspect(vm: &Instance, format: &str, container: &str) -> String {
    vm.docker(&["inspect", "-f", format, container])
}

/// `docker events` of one container from `since` (seconds of the guest's clock) on: the actions.
fn events(vm: &Instance, since: &str, container: &str) -> Vec<String> {
    let until = vm.guest("date +%s.999999999");
    let filter = format!("container={container}");
    let words = [
        "events", "--since", since, "--until", &until, "--filter", &filter,
    ];
    let told = vm.docker(&[&words[..], &["--format", "{{.Action}}"]].concat());
    told.lines().map(str::to_owned).collect()
}

#[test]
fn stats_show_what_a_container_uses() {
    let vm = shared();
    let busy = "while :; do :; done";
    vm.docker(&[
        "run", "-d", "--name", "busy", "-m", "64m", "busybox", "sh", "-c", busy,
    ]);
    let shown = vm.docker(&[
        "stats",
        "--no-stream",
        "--format",
        "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.NetIO}} {{.PIDs}}",
        "busy",
    ]);
    let words: Vec<&str> = shown.split_whitespace().collect();
    assert_eq!(words[0], "busy", "{shown}");
    let share: f64 = words[1].trim_end_matches('%').parse().expect("a number");
    assert!(share > 20.0, "{shown}");
    assert!(
        shown.contains("/ 64MiB") && shown.ends_with(" 1"),
        "{shown}"
    );

    let sample = get(vm, "/containers/busy/stats?stream=false");
    assert_eq!(sample["name"], "/busy");
    let before = sample["precpu_stats"]["cpu_usage"]["total_usage"].as_u64();
    let now = sample["cpu_stats"]["cpu_usage"]["total_usage"].as_u64();
    assert!(before > Some(0) && now > before, "{sample}");
    assert!(sample["cpu_stats"]["system_cpu_usage"].as_u64() > Some(0));
    assert_eq!(
        sample["cpu_stats"]["online_cpus"],
        vm.guest("nproc").parse::<u64>().unwrap()
    );
    assert_eq!(sample["memory_stats"]["limit"], 64 << 20);
    assert!(sample["memory_stats"]["stats"]["anon"].as_u64() > Some(0));
    assert_eq!(sample["pids_stats"]["current"], 1);
    assert!(sample["networks"]["eth0"]["rx_bytes"].is_u64(), "{sample}");

    let once = get(vm, "/containers/busy/stats?stream=false&one-shot=true");
    assert_eq!(once["precpu_stats"]["cpu_usage"]["total_usage"], 0);
    let (code, body) = request(
        vm,
        "GET",
        "/containers/busy/stats?stream=true&one-shot=true",
    );
    assert_eq!(code, "400");
    assert!(
        body.contains("cannot have stream=true and one-shot=true"),
        "{body}"
    );

    vm.docker(&["kill", "busy"]);
    let stopped = get(vm, "/containers/busy/stats?stream=false");
    assert_eq!(stopped["read"], "0001-01-01T00:00:00Z");
    assert_eq!(stopped["name"], "/busy");
    vm.docker(&["rm", "busy"]);
    let (code, _) = request(vm, "GET", "/containers/busy/stats?stream=false");
    assert_eq!(code, "404");
}

#[test]
fn a_stream_of_stats_ends_with_its_container() {
    let vm = shared();
    vm.docker(&["run", "-d", "--name", "watched", "busybox", "sleep", "1000"]);
    let socket = vm.docker_host();
    let mut stream = Command::new("curl");
    stream.args(["-sN", "--max-time", "120", "--unix-socket"]);
    stream.arg(socket.trim_start_matches("unix://"));
    stream.arg("http://docker/v1.51/containers/watched/stats");
    stream.stdout(std::process::Stdio::piped());
    let mut stream = stream.spawn().expect("curl");
    let mut lines = BufReader::new(stream.stdout.take().expect("its output")).lines();
    let mut samples: Vec<String> = lines
        .by_ref()
        .take(2)
        .map(|line| line.expect("a line"))
        .collect();
    vm.docker(&["rm", "-f", "watched"]);
    samples.extend(lines.map(|line| line.expect("a line")));
    assert!(
        stream.wait().expect("curl").success(),
        "the stream of stats ended by itself"
    );
    let samples: Vec<Value> = samples
        .iter()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(samples.len() >= 2, "{} samples", samples.len());
    assert_eq!(samples[0]["precpu_stats"]["cpu_usage"]["total_usage"], 0);
    assert!(samples[1]["precpu_stats"]["cpu_usage"]["total_usage"].as_u64() > Some(0));
}

#[test]
fn a_kill_for_want_of_memory_is_told() {
    let vm = shared();
    let since = vm.guest("date +%s");
    let eat = "tail /dev/zero";
    let words = ["run", "--name", "eater", "-m", "16m", "busybox", "sh", "-c"];
    vm.docker_fails(137, &[&words[..], &[&format!("exec {eat}")]].concat());
    assert_eq!(
        inspect(vm, "{{.State.OOMKilled}} {{.State.ExitCode}}", "eater"),
        "true 137"
    );
    let told = events(vm, &since, "eater");
    let at = |action: &str| told.iter().position(|told| told == action);
    assert!(at("oom").is_some() && at("oom") < at("die"), "{told:?}");
    // A child that is killed does not end its container; the container says it nevertheless.
    let script = format!("{eat}; sleep 1000");
    vm.docker(&[
        "run", "-d", "--name", "parent", "-m", "16m", "busybox", "sh", "-c", &script,
    ]);
    eventually("the child was killed", || {
        inspect(vm, "{{.State.OOMKilled}} {{.State.Running}}", "parent") == "true true"
    });
    vm.docker(&["restart", "-t", "0", "parent"]);
    vm.docker(&["rm", "-f", "eater", "parent"]);
}

#[test]
fn health_is_checked_shown_and_told() {
    let vm = shared();
    let since = vm.guest("date +%s");
    vm.docker(&[
        "run",
        "-d",
        "--name",
        "patient",
        "--health-cmd",
        "echo looked; test -e /well",
        "--health-interval",
        "500ms",
        "--health-retries",
        "2",
        "busybox",
        "sleep",
        "1000",
    ]);
    let status = || inspect(vm, "{{.State.Health.Status}}", "patient");
    assert!(["starting", "unhealthy"].contains(&status().as_str()));
    eventually("unhealthy", || status() == "unhealthy");
    assert!(
        vm.docker(&["ps", "--filter", "name=patient"])
            .contains("(unhealthy)")
    );
    vm.docker(&["exec", "patient", "touch", "/well"]);
    eventually("healthy", || status() == "healthy");
    assert!(
        vm.docker(&["ps", "--filter", "health=healthy"])
            .contains("patient")
    );
    let health: Value =
        serde_json::from_str(&inspect(vm, "{{json .State.Health}}", "patient")).expect("JSON");
    assert_eq!(health["FailingStreak"], 0);
    let log = health["Log"].as_array().expect("a log");
    assert!((1..=5).contains(&log.len()), "{health}");
    assert_eq!(log[log.len() - 1]["ExitCode"], 0);
    assert_eq!(log[log.len() - 1]["Output"], "looked\n");

    // It goes on after a restart of the daemon, and ends with the container.
    vm.guest("kill -9 $(pidof longshore-daemon)");
    assert_eq!(status(), "healthy");
    vm.docker(&["exec", "patient", "rm", "/well"]);
    eventually("unhealthy again", || status() == "unhealthy");
    vm.docker(&["stop", "-t", "0", "patient"]);
    assert_eq!(status(), "unhealthy");
    let told = events(vm, &since, "patient");
    for action in ["health_status: unhealthy", "health_status: healthy"] {
        assert!(told.iter().any(|told| told == action), "{action}: {told:?}");
    }
    vm.docker(&["rm", "patient"]);
}

#[test]
fn a_health_check_has_a_start_period_and_a_timeout() {
    let vm = shared();
    let words = ["run", "-d", "--name", "slow", "--health-cmd", "sleep 100"];
    let limits = [
        "--health-interval",
        "300ms",
        "--health-timeout",
        "1s",
        "--health-retries",
        "1",
    ];
    let start = [
        "--health-start-period",
        "1h",
        "--health-start-interval",
        "200ms",
    ];
    vm.docker(&[&words[..], &limits, &start, &["busybox", "sleep", "1000"]].concat());
    eventually("a probe took too long", || {
        let output = inspect(
            vm,
            "{{range .State.Health.Log}}{{.ExitCode}} {{.Output}}{{end}}",
            "slow",
        );
        output.contains("-1 Health check exceeded timeout (1s)")
    });
    // Within the start period failures do not count.
    assert_eq!(
        inspect(
            vm,
            "{{.State.Health.Status}} {{.State.Health.FailingStreak}}",
            "slow"
        ),
        "starting 0"
    );
    assert!(
        vm.docker(&["ps", "--filter", "name=slow"])
            .contains("(health: starting)")
    );
    let processes = vm.docker(&["top", "slow"]);
    let probes = processes.lines().filter(|line| line.ends_with("sleep 100"));
    assert!(probes.count() <= 1, "{processes}");
    vm.docker(&["rm", "-f", "slow"]);
    vm.docker(&[
        "run",
        "-d",
        "--name",
        "unchecked",
        "--no-healthcheck",
        "busybox",
        "sleep",
        "1000",
    ]);
    assert_eq!(inspect(vm, "{{.State.Health}}", "unchecked"), "<nil>");
    vm.docker(&["rm", "-f", "unchecked"]);
    let words = [
        "create",
        "--health-cmd",
        "true",
        "--health-interval",
        "1us",
        "busybox",
    ];
    let refused = vm.docker_fails(1, &words);
    assert!(
        refused.contains("Interval in Healthcheck cannot be less than 1ms"),
        "{refused}"
    );
}

#[test]
fn an_exec_is_found_again_by_the_next_daemon() {
    let vm = shared();
    vm.docker(&["run", "-d", "--name", "host", "busybox", "sleep", "1000"]);
    let script = "while ! test -e /end; do sleep 0.2; done; exit 7";
    vm.docker(&["exec", "-d", "host", "sh", "-c", script]);
    let id = inspect(vm, "{{index .ExecIDs 0}}", "host");
    let before = get(vm, &format!("/exec/{id}/json"));
    assert_eq!(before["Running"], true);
    vm.guest("kill -9 $(pidof longshore-daemon)");
    let after = get(vm, &format!("/exec/{id}/json"));
    assert_eq!(
        (&after["Running"], &after["Pid"]),
        (&before["Running"], &before["Pid"])
    );
    vm.docker(&["exec", "host", "touch", "/end"]);
    eventually("its exit code", || {
        let exec = get(vm, &format!("/exec/{id}/json"));
        exec["Running"] == false && exec["ExitCode"] == 7
    });
    // One that ends while there is no daemon is known as well.
    vm.docker(&["exec", "-d", "host", "sh", "-c", "sleep 2; exit 8"]);
    let id = inspect(vm, "{{index .ExecIDs 0}}", "host");
    vm.guest("kill -STOP $(pidof longshore-daemon); sleep 3; kill -9 $(pidof longshore-daemon)");
    eventually("the other's exit code", || {
        get(vm, &format!("/exec/{id}/json"))["ExitCode"] == 8
    });
    vm.docker(&["rm", "-f", "host"]);
}

#[test]
fn changes_are_those_of_the_container_alone() {
    let vm = shared();
    vm.docker(&["run", "--name", "plain", "busybox", "true"]);
    assert_eq!(vm.docker(&["diff", "plain"]), "");
    let script = "mkdir /new; echo x > /new/file; rm /bin/wc; echo y >> /etc/passwd; sleep 1000";
    vm.docker(&[
        "run", "-d", "--name", "changer", "busybox", "sh", "-c", script,
    ]);
    let expected = "C /bin\nD /bin/wc\nC /etc\nC /etc/passwd\nA /new\nA /new/file";
    eventually("the changes", || {
        vm.docker(&["diff", "changer"]) == expected
    });
    vm.docker(&["stop", "-t", "0", "changer"]);
    assert_eq!(vm.docker(&["diff", "changer"]), expected);
    vm.docker(&["rm", "plain", "changer"]);
    let missing = vm.docker_fails(1, &["diff", "nobody"]);
    assert!(missing.contains("No such container: nobody"), "{missing}");
}

#[test]
fn an_export_is_the_containers_own_file_system() {
    let vm = shared();
    let folder = tempfile::tempdir().expect("a folder");
    let script =
        "echo mine > /root/file; ln /root/file /root/again; echo no > /data/hidden; sleep 1000";
    vm.docker(&[
        "run", "-d", "--name", "whole", "-v", "/data", "busybox", "sh", "-c", script,
    ]);
    eventually("the files", || {
        vm.docker_output(&["exec", "whole", "test", "-e", "/data/hidden"])
            .status
            .success()
    });
    for state in ["running", "stopped"] {
        let archive = folder.path().join(state);
        let path = archive.to_str().expect("utf-8");
        vm.docker(&["export", "-o", path, "whole"]);
        let mut tar = Command::new("tar");
        tar.args(["-tvf", path]);
        let listing = text(&common::finish(tar, "tar").stdout);
        for line in [
            "bin/busybox",
            "root/again",
            "root/file link to root/again",
            "data/",
        ] {
            assert!(
                listing.contains(line),
                "{state}: {line} is not in\n{listing}"
            );
        }
        assert!(
            !listing.contains("hidden") && !listing.contains("proc/1"),
            "{state}:\n{listing}"
        );
        vm.docker(&["stop", "-t", "0", "whole"]);
    }
    vm.docker(&["rm", "-v", "whole"]);
}

#[test]
fn sizes_grow_with_what_is_written() {
    let vm = shared();
    let script = "dd if=/dev/urandom of=/big bs=1M count=5; sleep 1000";
    vm.docker(&["run", "-d", "--name", "big", "busybox", "sh", "-c", script]);
    let size = || inspect_sized(vm, "big")["SizeRw"].as_u64();
    eventually("five megabytes", || size() >= Some(5 << 20));
    let sized = inspect_sized(vm, "big");
    assert!(sized["SizeRootFs"].as_u64() > size(), "{sized}");
    let listed = vm.docker(&["ps", "-s", "--filter", "name=big", "--format", "{{.Size}}"]);
    assert!(
        listed.starts_with("5.2") && listed.contains("virtual"),
        "{listed}"
    );
    let usage = get(vm, "/system/df?type=container");
    let containers = usage["Containers"].as_array().expect("containers");
    let big = containers
        .iter()
        .find(|container| container["Names"][0] == "/big");
    assert!(
        big.is_some_and(|big| big["SizeRw"].as_u64() >= Some(5 << 20)),
        "{usage}"
    );
    vm.docker(&["rm", "-f", "big"]);
}

fn inspect_sized(vm: &Instance, container: &str) -> Value {
    get(vm, &format!("/containers/{container}/json?size=1"))
}

/// `docker ARGUMENTS` must fail, and say this.
fn refused(vm: &Instance, code: i32, arguments: &[&str], words: &str) {
    let said = vm.docker_fails(code, arguments);
    assert!(
        said.contains(words),
        "docker {}: {said}",
        arguments.join(" ")
    );
}

#[test]
fn log_drivers_are_dockers_with_their_options() {
    let vm = shared();
    let create = |options: &[&str], words: &str| {
        refused(vm, 1, &[&["create"], options, &["busybox"]].concat(), words);
    };
    create(
        &["--log-driver", "nonsense"],
        "error looking up logging plugin nonsense: plugin \"nonsense\" not found",
    );
    create(
        &["--log-opt", "foo=1"],
        "unknown log opt 'foo' for json-file log driver",
    );
    create(
        &["--log-driver", "local", "--log-opt", "foo=1"],
        "unknown log opt 'foo' for log driver local",
    );
    let run = |option: &str, words: &str| {
        let words = format!("failed to initialize logging driver: {words}");
        refused(
            vm,
            125,
            &["run", "--rm", "--log-opt", option, "busybox", "true"],
            &words,
        );
    };
    run("max-size=x", "invalid size: 'x'");
    run("max-file=0", "max-file cannot be less than 1");

    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done";
    for (driver, files) in [("json-file", "2"), ("local", "3")] {
        let size = [
            "--log-opt",
            "max-size=20k",
            "--log-opt",
            &format!("max-file={files}"),
        ];
        let words = ["run", "--name", "logger", "--log-driver", driver];
        vm.docker(&[&words[..], &size, &["busybox", "sh", "-c", script]].concat());
        let logged = vm.docker(&["logs", "logger"]);
        assert!(
            logged.ends_with("line 1999") && !logged.contains("line 0\n"),
            "{driver}"
        );
        let id = inspect(vm, "{{.Id}}", "logger");
        let count = vm.guest(&format!(
            "ls /var/lib/docker/containers/{id}/*-json.log* | wc -l"
        ));
        assert_eq!(count, files, "{driver}");
        vm.docker(&["rm", "logger"]);
    }
    vm.docker(&[
        "run",
        "--name",
        "silent",
        "--log-driver",
        "none",
        "busybox",
        "echo",
        "x",
    ]);
    refused(
        vm,
        1,
        &["logs", "silent"],
        "configured logging driver does not support reading",
    );
    vm.docker(&["rm", "silent"]);
}

#[test]
fn what_is_not_there_is_refused_in_dockers_words() {
    let vm = shared();
    refused(
        vm,
        125,
        &["run", "--rm", "--gpus", "all", "busybox", "true"],
        "could not select device driver \"\" with capabilities: [[gpu]]",
    );
    vm.docker(&["create", "--name", "linked", "busybox", "true"]);
    refused(
        vm,
        1,
        &["rm", "--link", "linked"],
        "Conflict, cannot remove the default link name of the container",
    );
    vm.docker(&["rm", "linked"]);
    refused(
        vm,
        1,
        &["ps", "--filter", "health=zz"],
        "invalid filter 'health=zz': invalid value for health (zz): must be one of none, starting, healthy, unhealthy",
    );
    refused(
        vm,
        1,
        &["ps", "--filter", "is-task=x"],
        "invalid filter 'is-task=[x]'",
    );
}

#[test]
fn containers_are_updated_while_they_run() {
    let vm = shared();
    vm.docker(&[
        "run", "-d", "--name", "changed", "--cpus", "0.5", "busybox", "sleep", "1000",
    ]);
    vm.docker(&[
        "update",
        "--restart",
        "on-failure:3",
        "--memory",
        "64m",
        "--memory-swap",
        "-1",
        "changed",
    ]);
    let format =
        "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}";
    assert_eq!(inspect(vm, format, "changed"), "on-failure 3");
    assert_eq!(
        vm.docker(&["exec", "changed", "cat", "/sys/fs/cgroup/memory.max"]),
        "67108864"
    );
    refused(
        vm,
        1,
        &["update", "--cpu-quota", "50000", "changed"],
        "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
    );
    vm.docker(&["rm", "-f", "changed"]);
    vm.docker(&[
        "run", "-d", "--rm", "--name", "once", "busybox", "sleep", "1000",
    ]);
    refused(
        vm,
        1,
        &["update", "--restart", "always", "once"],
        "Restart policy cannot be updated because AutoRemove is enabled for the container",
    );
    vm.docker(&["rm", "-f", "once"]);
}

#[test]
fn prune_takes_what_its_filters_say() {
    let vm = shared();
    for label in ["keep", "drop"] {
        vm.docker(&[
            "create", "--name", label, "--label", label, "busybox", "true",
        ]);
    }
    let prune = |filter: &str| vm.docker(&["container", "prune", "-f", "--filter", filter]);
    let names = || vm.docker(&["ps", "-a", "--format", "{{.Names}}"]);
    prune("until=1h30m");
    assert!(names().contains("keep") && names().contains("drop"));
    prune("label=drop");
    assert!(names().contains("keep") && !names().contains("drop"));
    vm.docker(&["rm", "keep"]);
    refused(
        vm,
        1,
        &["container", "prune", "-f", "--filter", "until=abc"],
        "failed to parse value as time or duration: \"abc\"",
    );
}

#[test]
fn anonymous_volumes_go_with_their_container_when_asked() {
    let vm = shared();
    for (flag, left) in [("-v", 0), ("-f", 1)] {
        vm.docker(&[
            "create",
            "--name",
            "owner",
            "-v",
            "/data",
            "-v",
            "named:/named",
            "busybox",
        ]);
        let volume = inspect(
            vm,
            "{{range .Mounts}}{{if eq .Destination \"/data\"}}{{.Name}}{{end}}{{end}}",
            "owner",
        );
        vm.docker(&["rm", flag, "owner"]);
        let found = vm.docker(&["volume", "ls", "-q"]);
        assert_eq!(
            found.lines().filter(|name| *name == volume).count(),
            left,
            "rm {flag}"
        );
        assert!(found.lines().any(|name| name == "named"));
    }
    vm.docker(&["volume", "prune", "-f"]);
    vm.docker(&["volume", "rm", "named"]);
}

#[test]
fn attach_works_over_a_websocket() {
    use std::io::{Read, Write};
    let vm = shared();
    vm.docker(&["run", "-di", "--name", "echo", "busybox", "cat"]);
    let socket = vm.docker_host();
    let mut stream = std::os::unix::net::UnixStream::connect(socket.trim_start_matches("unix://"))
        .expect("the Docker socket");
    stream
        .set_read_timeout(Some(common::PATIENCE))
        .expect("a timeout");
    let asked = "GET /v1.51/containers/echo/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: docker\r\n\
                 Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://docker\r\n\r\n";
    stream.write_all(asked.as_bytes()).expect("write");
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("the handshake");
        answer.push(byte[0]);
    }
    let answer = text(&answer);
    // The example of RFC 6455, section 1.3.
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    // A whole text message of six bytes, masked with zeros.
    stream.write_all(b"\x81\x86\0\0\0\0hello\n").expect("write");
    let mut frame = [0; 8];
    stream.read_exact(&mut frame).expect("a message");
    // Binary, of six bytes, without Docker's frames.
    assert_eq!(&frame, b"\x82\x06hello\n");
    vm.docker(&["kill", "echo"]);
    let mut end = [0; 1];
    stream.read_exact(&mut end).expect("the end");
    assert_eq!(end[0], 0x88, "a close message");
    vm.docker(&["rm", "echo"]);
}
