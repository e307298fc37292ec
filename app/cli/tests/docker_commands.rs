//! The docker commands of daily use, with the real CLI, on a booted VM.

mod common;

use common::{finish_child, shared, text};
use std::io::Write;
use std::process::Stdio;

#[test]
fn version_lists_every_layer() {
    let version = shared().docker(&["version"]);
    for layer in [
        "longshore-daemon",
        "longshore-supervisor",
        "longshore-runtime",
    ] {
        assert!(version.contains(layer), "{layer} is not in:\n{version}");
    }
}

#[test]
fn info_names_a_cgroup_v2_engine() {
    let info = shared().docker(&["info"]);
    assert!(info.contains("Cgroup Version: 2"), "{info}");
}

#[test]
fn a_container_prints_and_is_removed() {
    let vm = shared();
    assert_eq!(
        vm.docker(&["run", "--rm", "busybox", "echo", "hello"]),
        "hello"
    );
    assert_eq!(
        vm.docker(&[
            "ps",
            "-aq",
            "--filter",
            "status=exited",
            "--filter",
            "ancestor=nothing"
        ]),
        ""
    );
}

#[test]
fn exit_codes_are_the_programs() {
    let vm = shared();
    vm.docker_fails(42, &["run", "--rm", "busybox", "sh", "-c", "exit 42"]);
    let missing = vm.docker_fails(127, &["run", "--rm", "busybox", "no-such-program"]);
    assert!(
        missing.contains("executable file not found in $PATH"),
        "{missing}"
    );
    let folder = vm.docker_fails(126, &["run", "--rm", "busybox", "/etc"]);
    assert!(
        folder.contains("permission denied") || folder.contains("is a directory"),
        "{folder}"
    );
}

#[test]
fn stdin_reaches_the_container_and_ends() {
    let vm = shared();
    let mut command = vm.docker_command(&["run", "-i", "--rm", "busybox", "cat"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("docker");
    child
        .stdin
        .take()
        .expect("stdin")
        .write_all(b"hello\n")
        .expect("write");
    let output = finish_child(child, "docker run -i cat");
    assert_eq!(text(&output.stdout), "hello\n", "{}", text(&output.stderr));
}

#[test]
fn environment_user_and_folder_are_as_asked() {
    let vm = shared();
    let script = "echo $WHO; id -u; pwd";
    let said = vm.docker(&[
        "run", "--rm", "-e", "WHO=me", "-u", "33", "-w", "/var", "busybox", "sh", "-c", script,
    ]);
    assert_eq!(said, "me\n33\n/var");
}

#[test]
fn limits_are_the_cgroups() {
    let vm = shared();
    let script = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max";
    let said = vm.docker(&[
        "run",
        "--rm",
        "-m",
        "64m",
        "--pids-limit",
        "50",
        "--cpus",
        "0.5",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(said, "67108864\n50\n50000 100000");
}

#[test]
fn a_read_only_root_refuses_and_tmpfs_takes_writes() {
    let vm = shared();
    let script = "touch /x 2>&1; touch /scratch/x && echo written";
    let said = vm.docker(&[
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/scratch",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert!(
        said.contains("Read-only file system") && said.contains("written"),
        "{said}"
    );
}

#[test]
fn a_detached_container_lives_through_its_commands() {
    let vm = shared();
    let script = "echo one; echo two >&2; while :; do sleep 1; done";
    vm.docker(&["run", "-d", "--name", "life", "busybox", "sh", "-c", script]);
    assert_eq!(vm.docker(&["exec", "life", "echo", "inside"]), "inside");
    let nothing = vm.docker_output(&["exec", "life", "no-such-program"]);
    assert_eq!(nothing.status.code(), Some(127));
    let said = text(&nothing.stdout);
    assert!(
        said.contains("executable file not found in $PATH"),
        "{said}"
    );
    assert!(vm.docker(&["top", "life"]).contains("sleep"));
    common::eventually("both lines are logged", || {
        let output = vm.docker_output(&["logs", "life"]);
        text(&output.stdout) == "one\n" && text(&output.stderr) == "two\n"
    });
    vm.docker(&["pause", "life"]);
    assert!(
        vm.docker(&["ps", "--filter", "name=life"])
            .contains("(Paused)")
    );
    vm.docker(&["unpause", "life"]);
    vm.docker(&["restart", "-t", "0", "life"]);
    assert_eq!(
        vm.docker(&["inspect", "-f", "{{.State.Running}}", "life"]),
        "true"
    );
    vm.docker(&["kill", "-s", "KILL", "life"]);
    assert_eq!(vm.docker(&["wait", "life"]), "137");
    vm.docker(&["rm", "life"]);
    vm.docker_fails(1, &["inspect", "life"]);
}

#[test]
fn a_named_volume_keeps_what_is_written() {
    let vm = shared();
    vm.docker(&[
        "run",
        "--rm",
        "-v",
        "kept:/data",
        "busybox",
        "sh",
        "-c",
        "echo stays > /data/file",
    ]);
    assert_eq!(
        vm.docker(&[
            "run",
            "--rm",
            "-v",
            "kept:/data",
            "busybox",
            "cat",
            "/data/file"
        ]),
        "stays"
    );
    vm.docker(&["volume", "rm", "kept"]);
}

#[test]
fn files_are_copied_both_ways() {
    let vm = shared();
    let folder = tempfile::tempdir().expect("a folder");
    let there = folder.path().join("there");
    let back = folder.path().join("back");
    std::fs::write(&there, "copied").expect("write");
    vm.docker(&["create", "--name", "copies", "busybox", "true"]);
    vm.docker(&["cp", there.to_str().expect("utf-8"), "copies:/root/file"]);
    vm.docker(&["cp", "copies:/root/file", back.to_str().expect("utf-8")]);
    assert_eq!(std::fs::read_to_string(&back).expect("read"), "copied");
    vm.docker(&["rm", "copies"]);
}

#[test]
fn names_are_unique_and_unknown_ones_are_told() {
    let vm = shared();
    vm.docker(&["create", "--name", "taken", "busybox", "true"]);
    let conflict = vm.docker_fails(1, &["create", "--name", "taken", "busybox", "true"]);
    assert!(
        conflict.contains("The container name \"/taken\" is already in use"),
        "{conflict}"
    );
    vm.docker(&["rm", "taken"]);
    let missing = vm.docker_fails(1, &["start", "nobody"]);
    assert!(missing.contains("No such container: nobody"), "{missing}");
}

#[test]
fn images_are_tagged_listed_and_untagged() {
    let vm = shared();
    vm.docker(&["tag", "busybox", "mine:1"]);
    assert!(vm.docker(&["images", "mine"]).contains("mine"));
    assert!(
        vm.docker(&["image", "inspect", "-f", "{{.Os}}", "mine:1"])
            .contains("linux")
    );
    assert!(vm.docker(&["rmi", "mine:1"]).contains("Untagged: mine:1"));
    vm.docker_fails(1, &["image", "inspect", "mine:1"]);
}

#[test]
fn an_init_reaps_as_process_one() {
    let vm = shared();
    let said = vm.docker(&[
        "run",
        "--rm",
        "--init",
        "busybox",
        "sh",
        "-c",
        "cat /proc/1/comm",
    ]);
    assert!(said.contains("init"), "{said}");
}

#[test]
fn no_network_means_only_loopback() {
    let vm = shared();
    let said = vm.docker(&[
        "run",
        "--rm",
        "--network",
        "none",
        "busybox",
        "ls",
        "/sys/class/net",
    ]);
    assert_eq!(said, "lo");
}

#[test]
fn debians_runtimes_run_containers_too() {
    let vm = shared();
    for runtime in ["runc", "crun"] {
        let said = vm.docker(&[
            "run",
            "--rm",
            "--runtime",
            runtime,
            "busybox",
            "echo",
            runtime,
        ]);
        assert_eq!(said, runtime);
    }
}

#[test]
fn events_tell_a_containers_life() {
    let vm = shared();
    let since = vm.guest("date +%s");
    vm.docker(&["run", "--rm", "--name", "told", "busybox", "true"]);
    let until = vm.guest("date +%s.999999999");
    let events = vm.docker(&[
        "events",
        "--since",
        &since,
        "--until",
        &until,
        "--filter",
        "container=told",
        "--format",
        "{{.Action}}",
    ]);
    let actions: Vec<&str> = events.lines().collect();
    for action in ["create", "start", "die", "destroy"] {
        assert!(actions.contains(&action), "{action} is not in {actions:?}");
    }
}
