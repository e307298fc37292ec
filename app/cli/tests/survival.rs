//! What may die, and what a user sees then.

mod common;

use common::shims::{self, kill_shim};
use common::{Instance, eventually, expect_success, halt, shared, text, write_script};

/// `kill -9` of one service of the guest, by its process name.
fn kill(vm: &Instance, service: &str) {
    vm.guest(&format!("kill -9 $(pidof {service})"));
}

fn pid_of(vm: &Instance, container: &str) -> String {
    vm.docker(&["inspect", "-f", "{{.State.Pid}}", container])
}

#[test]
fn containers_outlive_daemon_and_supervisor() {
    let vm = shared();
    let script = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done";
    vm.docker(&[
        "run", "-d", "--name", "counter", "busybox", "sh", "-c", script,
    ]);
    let pid = pid_of(vm, "counter");
    for services in [
        &["longshore-daemon"][..],
        &["longshore-supervisor"],
        &["longshore-supervisor", "longshore-daemon"],
    ] {
        for service in services {
            kill(vm, service);
        }
        assert_eq!(
            pid_of(vm, "counter"),
            pid,
            "after the death of {services:?}"
        );
        assert!(vm.docker(&["ps"]).contains("counter"));
        assert_eq!(vm.docker(&["exec", "counter", "echo", "still"]), "still");
    }
    vm.docker(&["kill", "counter"]);
    let logged = vm.docker(&["logs", "counter"]);
    for (index, line) in logged.lines().enumerate() {
        assert_eq!(line, index.to_string(), "a log line was lost or came twice");
    }
    vm.docker(&["rm", "-f", "counter"]);
}

#[test]
fn what_nobody_owns_on_the_network_goes_with_the_daemon_that_made_it() {
    let vm = shared();
    vm.docker(&["network", "create", "kept"]);
    vm.docker(&["run", "-d", "--name", "owner", "busybox", "sleep", "1000"]);
    let bridges = "grep -l '^longshore network' /sys/class/net/*/ifalias";
    let before = vm.guest(bridges);
    // As left by a daemon that died between making them and writing down whose they are.
    let namespace = "/run/docker/netns/stray";
    vm.guest(&format!(
        "touch {namespace} && mount --bind /proc/self/ns/net {namespace}; \
         ip link add br-stray type bridge && echo longshore network 123 > /sys/class/net/br-stray/ifalias"
    ));
    assert_ne!(vm.guest(bridges), before);
    kill(vm, "longshore-daemon");
    vm.docker(&["run", "--rm", "--network", "kept", "busybox", "true"]);
    assert_eq!(vm.guest(bridges), before);
    let gone = format!("test -e {namespace} || echo gone");
    assert_eq!(vm.guest(&gone), "gone");
    let host = "host.docker.internal";
    vm.docker(&["exec", "owner", "ping", "-c1", "-W30", host]);
    vm.docker(&["rm", "-f", "owner"]);
    vm.docker(&["network", "rm", "kept"]);
}

#[test]
fn an_exit_while_nobody_watches_is_known_afterwards() {
    let vm = shared();
    vm.docker(&[
        "run",
        "-d",
        "--name",
        "leaver",
        "busybox",
        "sh",
        "-c",
        "sleep 2; exit 7",
    ]);
    vm.guest("kill -STOP $(pidof longshore-supervisor); sleep 3; kill -9 $(pidof longshore-daemon) $(pidof longshore-supervisor)");
    assert_eq!(vm.docker(&["wait", "leaver"]), "7");
    vm.docker(&["rm", "leaver"]);
}

#[test]
fn a_container_whose_shim_is_killed_has_ended_and_starts_again() {
    let vm = shared();
    for name in ["other", "orphan"] {
        vm.docker(&["run", "-d", "--name", name, "busybox", "sleep", "1000"]);
    }
    let pid = pid_of(vm, "other");
    assert!(kill_shim(vm, "orphan"));
    assert_eq!(vm.docker(&["wait", "orphan"]), "137");
    assert_eq!(pid_of(vm, "other"), pid);
    vm.docker(&["start", "orphan"]);
    assert_eq!(vm.docker(&["exec", "orphan", "echo", "again"]), "again");
    for name in ["other", "orphan"] {
        assert_eq!(shims::remove(vm, name), "", "processes of {name} are left");
    }
}

/// The supervisor dies, over and over on an overloaded machine, before it has done what the daemon asks it for; nothing else asks for the
/// removal of a task before its container starts again. Here it hangs first.
#[test]
#[ignore = "half a minute"]
fn the_task_of_a_container_goes_though_the_supervisor_stayed_away() {
    let vm = shared();
    for name in ["stays", "starts-again"] {
        let script = "trap 'exit 7' TERM; sleep 1000 & wait";
        vm.docker(&["run", "-d", "--name", name, "busybox", "sh", "-c", script]);
    }
    let shims = "pidof containerd-shim-longshore-v2 | wc -w";
    let before: u32 = vm.guest(shims).parse().unwrap();
    let ended = ["stays", "starts-again"].map(|name| pid_of(vm, name));
    // Its word of the ends waits for the daemon, which asks it for more than anyone waits then.
    vm.guest(&format!(
        "kill -STOP $(pidof longshore-daemon); kill {}; sleep 2; \
         kill -STOP $(pidof longshore-supervisor); kill -CONT $(pidof longshore-daemon); sleep 25; \
         kill -9 $(pidof longshore-supervisor)",
        ended.join(" ")
    ));
    assert_eq!(vm.docker(&["wait", "stays", "starts-again"]), "7\n7");
    vm.docker(&["start", "starts-again"]);
    eventually("the shim of the container that stays ended is gone", || {
        vm.guest(shims).parse::<u32>().unwrap() == before - 1
    });
    let running = vm.docker(&["exec", "starts-again", "echo", "running"]);
    assert_eq!(running, "running");
    for name in ["stays", "starts-again"] {
        assert_eq!(shims::remove(vm, name), "", "processes of {name} are left");
    }
}

#[test]
fn the_agent_comes_back() {
    let vm = shared();
    // The shell itself runs through the agent, so its own end is not told.
    let _ = vm.longshore(&[
        "shell",
        "--",
        "sh",
        "-c",
        "kill -9 $(pidof longshore-agent)",
    ]);
    eventually("docker answers through the new agent", || {
        vm.docker_output(&["version"]).status.success()
    });
    assert_eq!(
        vm.docker(&["run", "--rm", "busybox", "echo", "hello"]),
        "hello"
    );
}

#[test]
fn containers_outlive_the_host_service() {
    let vm = shared();
    vm.docker(&["run", "-d", "--name", "steady", "busybox", "sleep", "1000"]);
    let pid = pid_of(vm, "steady");
    let service = vm.host_pid().expect("a host service");
    // SAFETY: plain kill(2) on the process that the status names.
    assert_eq!(unsafe { libc::kill(service, libc::SIGKILL) }, 0);
    // Asked in the moment in which the dead one's sockets may still be there.
    let status = vm.longshore(&["status"]);
    assert!(text(&status.stdout).starts_with("state "), "{status:?}");
    assert_eq!(pid_of(vm, "steady"), pid);
    vm.docker(&["rm", "-f", "steady"]);
}

/// The host service lives and cannot do what it is asked: it says so, and whom to end.
#[test]
#[ignore = "minutes"]
fn a_vm_process_that_hangs_is_told_of() {
    let vm = Instance::new();
    vm.start(&[]);
    let process = vm.status()["vm"]["pid"].as_i64().expect("a VM's process");
    halt(process as i32);
    let status = vm.status();
    assert_eq!(status["state"], "running");
    assert_eq!(status["vm"]["pid"], process);
    let doctor = vm.longshore(&["doctor"]);
    let said = text(&doctor.stdout);
    assert!(
        said.contains("longshore-vm takes requests and does not answer"),
        "{said}"
    );
    let stop = vm.longshore(&["stop"]);
    assert!(!stop.status.success());
    let said = text(&stop.stderr);
    assert!(
        said.contains(&format!("end longshore-vm (process {process})")),
        "{said}"
    );
    // SAFETY: plain kill(2) on a process that the instance named, and that stands.
    unsafe { libc::kill(process as i32, libc::SIGKILL) };
    eventually("the VM is gone", || vm.status()["state"] != "stopping");
    vm.start(&[]);
    vm.docker(&["version"]);
}

#[test]
fn a_vm_starts_right_after_its_predecessor() {
    let vm = Instance::new();
    vm.start(&[]);
    for _ in 0..3 {
        let restarted = vm.longshore(&["restart"]);
        expect_success(&restarted, "longshore restart");
    }
    vm.longshore(&["shell", "--", "poweroff"]);
    // The old process is at any stage of its end now.
    vm.start(&[]);
    vm.docker(&["version"]);
}

/// Stands in for QEMU: of its first two guests the CPUs never run, and the console says what a kernel says whose CPU was not woken.
const STALLING_QEMU: &str = r#"#!/bin/bash
case $* in
  *-kernel*)
    touch "$0.stalled"
    if [ $(wc -l < "$0.stalled") -lt 2 ]; then
      echo $$ >> "$0.stalled"
      echo "[   21.004123] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"
      exec qemu-system-x86_64 "$@" -S
    fi
    ;;
esac
exec qemu-system-x86_64 "$@"
"#;

#[test]
fn a_kernel_that_stalls_while_it_boots_is_booted_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let qemu = folder.path().join("qemu");
    write_script(&qemu, STALLING_QEMU);
    let mut vm = Instance::new();
    vm.environment.push(("LONGSHORE_QEMU", qemu.clone()));
    let path = folder.path().to_str().expect("utf-8");
    vm.start(&["--accel", "tcg", "--share", path]);
    vm.docker(&["version"]);
    assert_eq!(
        vm.guest(&format!("cat {path}/qemu")),
        STALLING_QEMU.trim_end(),
        "the share serves the third guest"
    );
    let stalled = std::fs::read_to_string(qemu.with_extension("stalled")).expect("the first two");
    assert_eq!(stalled.lines().count(), 2);
    for pid in stalled.lines() {
        let process = format!("/proc/{pid}/cmdline");
        let left = std::fs::read_to_string(process).unwrap_or_default();
        assert!(!left.contains("qemu"), "its QEMU still runs: {left}");
    }
}

/// A bridge's memory, which nobody uses, goes and comes 300 times while every CPU hears of timers.
const BRIDGES_MEMORY: &str = r#"
bridge=$(grep -l ^0x060400 /sys/bus/pci/devices/*/class | tail -n 1)
command=${bridge%class}config
before=$(dd if=$command bs=1 skip=4 count=1 2>/dev/null | od -An -tu1)
[ $((before & 2)) = 2 ] || { echo "its memory is not there: $before"; exit 1; }
for cpu in 0 1 2; do
  taskset $((1 << cpu)) sh -c 'while :; do usleep 300; done' & busy="$busy $!"
done
byte() { printf "\\$(printf %03o $1)" | dd of=$command bs=1 seek=4 conv=notrunc 2>/dev/null; }
for round in $(seq 300); do byte $((before & ~2)); byte $((before)); done
kill $busy
for cpu in 0 1 2; do taskset $((1 << cpu)) sleep 0.01; done
echo alive
"#;

#[test]
fn devices_whose_memory_comes_and_goes_stop_no_cpu() {
    let vm = Instance::new();
    vm.start(&["--cpus", "3"]);
    assert_eq!(vm.guest(BRIDGES_MEMORY), "alive");
    vm.docker(&["version"]);
}

/// Of a time as RFC 3339 has it, with its fraction.
fn since_1970(time: &str) -> std::time::Duration {
    let mut date = std::process::Command::new("date");
    let output = date.args(["-d", time, "+%s %N"]).output().expect("date(1)");
    let said = text(&output.stdout);
    let (seconds, nanos) = said.trim().split_once(' ').expect("seconds and a fraction");
    let seconds = seconds.parse().expect("seconds");
    std::time::Duration::new(seconds, nanos.parse().expect("nanoseconds"))
}

#[test]
fn the_guest_has_the_hosts_time() {
    let now = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.expect("after 1970")
    };
    let vm = shared();
    // The machine's own clock, which a guest reads as it boots, knows whole seconds.
    eventually("they agree", || {
        let before = now();
        let told = vm.docker(&["info", "--format", "{{.SystemTime}}"]);
        let after = now();
        let guest = since_1970(&told);
        let tolerance = std::time::Duration::from_millis(60);
        before.saturating_sub(tolerance) <= guest && guest <= after + tolerance
    });
}

#[test]
fn how_containers_ended_with_the_engine_is_known_after_the_next_start() {
    let vm = Instance::new();
    vm.start(&[]);
    vm.load("busybox");
    let run = |name: &str, options: &[&str], script: &str| {
        let mut words = vec!["run", "-d", "--name", name];
        words.extend(options);
        words.extend(["busybox", "sh", "-c", script]);
        vm.docker(&words);
    };
    let trap = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let ends_well = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done";
    run("heeds", &[], trap);
    run("deaf", &[], "echo ready; exec sleep 1000");
    run("well", &["--restart", "on-failure"], ends_well);
    run("again", &["--restart", "unless-stopped"], trap);
    run("stopped", &["--restart", "unless-stopped"], trap);
    run("gone", &["--rm"], trap);
    for name in ["heeds", "deaf", "well", "again", "stopped", "gone"] {
        eventually("it runs", || vm.docker(&["logs", name]).contains("ready"));
    }
    vm.docker(&["stop", "stopped"]);
    let since = vm.guest("date +%s");
    expect_success(&vm.longshore(&["restart"]), "restart");
    let state = |name: &str| {
        let format = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}";
        vm.docker(&["inspect", "-f", format, name])
    };
    assert_eq!(state("heeds"), "exited 7 0");
    assert_eq!(state("deaf"), "exited 137 0", "as after docker kill");
    assert_eq!(
        state("well"),
        "exited 0 0",
        "on-failure, and it has not failed"
    );
    assert_eq!(state("stopped"), "exited 7 0");
    eventually("unless-stopped comes back", || {
        state("again").starts_with("running")
    });
    eventually("--rm is removed", || {
        !vm.docker(&["ps", "-a", "--format", "{{.Names}}"])
            .contains("gone")
    });
    let died = vm.docker(&[
        "events",
        "--since",
        &since,
        "--until",
        &vm.guest("date +%s"),
        "--filter",
        "event=die",
        "--format",
        "{{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}}",
    ]);
    // What was stopped by hand may have ended in the second that is asked from.
    let mut died: Vec<&str> = died
        .lines()
        .filter(|line| !line.starts_with("stopped"))
        .collect();
    died.sort_unstable();
    assert_eq!(
        died,
        ["again 7", "deaf 137", "gone 7", "heeds 7", "well 0"],
        "each once"
    );
}

#[test]
fn after_a_killed_qemu_everything_is_found_again() {
    let vm = Instance::new();
    vm.start(&[]);
    vm.load("busybox");
    vm.docker(&[
        "run",
        "-d",
        "--name",
        "keeper",
        "-v",
        "kept:/data",
        "busybox",
        "sh",
        "-c",
        "echo stays > /data/file; sync; sleep 1000",
    ]);
    eventually("the volume is written", || {
        text(
            &vm.docker_output(&["exec", "keeper", "cat", "/data/file"])
                .stdout,
        ) == "stays\n"
    });
    let qemu = vm.status()["vm"]["qemu_pid"].as_u64().expect("qemu_pid");
    let qemu = i32::try_from(qemu).expect("a pid");
    // SAFETY: plain kill(2) on the process that the status names.
    let killed = unsafe { libc::kill(qemu, libc::SIGKILL) };
    assert_eq!(killed, 0);
    eventually("the state says that the VM is gone", || {
        !text(&vm.longshore(&["status"]).stdout).contains("running")
    });
    vm.start(&[]);
    assert!(vm.docker(&["images"]).contains("busybox"));
    assert!(vm.docker(&["ps", "-a"]).contains("keeper"));
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
}
