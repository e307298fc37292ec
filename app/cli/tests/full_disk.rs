//! The host's disk is full, or the guest's: it is said, nothing breaks, and what makes room helps.

mod common;

use common::small_disk::SmallDisk;
use common::{Instance, eventually, expect_success, finish_child, text};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

/// Bytes of the host's disk that the data disk takes.
fn taken(vm: &Instance) -> u64 {
    let disk = std::fs::metadata(vm.home.path().join("data.img"));
    disk.expect("the data disk").blocks() * 512
}

#[test]
fn a_vm_waits_while_the_hosts_disk_is_full_and_goes_on_by_itself() {
    let vm = Instance::new();
    let _disk = SmallDisk::mount(vm.home.path(), "700m");
    vm.start(&[]);
    vm.load("busybox");
    let filler = vm.home.path().join("somebody-elses-file");
    let mut file = std::fs::File::create(&filler).expect("a file");
    // Until nothing more goes in.
    let _ = std::io::copy(&mut std::io::repeat(1), &mut file);
    drop(file);
    let script = "dd if=/dev/urandom of=/data/file bs=1M count=200 && sync && sha256sum /data/file";
    let mut write = vm.docker_command(&[
        "run",
        "--name",
        "writer",
        "-v",
        "data:/data",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    let write = write
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("docker");
    eventually("the VM is paused", || vm.status()["state"] == "paused");
    let status = vm.longshore(&["status"]);
    let why = "the host's disk is full: the VM waits, and goes on when there is room";
    assert!(text(&status.stdout).contains(why), "{status:?}");
    let refused = vm.docker_output(&["ps"]);
    assert!(text(&refused.stderr).contains(why), "{refused:?}");
    let log = std::fs::read_to_string(vm.home.path().join("vm/vm.log")).unwrap_or_default();
    assert!(log.contains("the host's disk is full"), "{log}");

    std::fs::remove_file(&filler).expect("room");
    let written = finish_child(write, "the writer");
    expect_success(&written, "a write that waited for room");
    assert_eq!(vm.status()["state"], "running");
    let read = vm.docker(&[
        "run",
        "--rm",
        "-v",
        "data:/data",
        "busybox",
        "sha256sum",
        "/data/file",
    ]);
    assert_eq!(text(&written.stdout).trim(), read);
    expect_success(&vm.longshore(&["doctor", "--store"]), "the store is whole");
    vm.tear_down();
}

#[test]
fn a_full_data_disk_is_told_as_docker_tells_it_and_prune_gives_the_room_back() {
    let vm = Instance::new();
    expect_success(&vm.longshore(&["settings", "set", "disk=1g"]), "settings");
    vm.start(&[]);
    vm.load("busybox");
    vm.docker(&["run", "--name", "before", "busybox", "true"]);
    let empty = taken(&vm);
    let fill = "dd if=/dev/urandom of=/data/file bs=1M; echo -n more >> /data/more";
    let full = vm.docker_output(&[
        "run",
        "--name",
        "filler",
        "-v",
        "big:/data",
        "busybox",
        "sh",
        "-c",
        fill,
    ]);
    assert!(
        text(&full.stderr).contains("No space left on device"),
        "{full:?}"
    );
    let filled = taken(&vm);
    assert!(filled > empty + (700 << 20), "{empty} {filled}");

    let archive = common::image_archive("nginx");
    let load = vm.docker_output(&["load", "-i", archive.to_str().expect("utf-8")]);
    let said = text(&load.stderr) + &text(&load.stdout);
    assert!(
        !load.status.success() && said.contains("no space left on device"),
        "{said}"
    );
    assert!(vm.docker(&["ps", "-a"]).contains("before"));
    assert!(vm.docker(&["images"]).contains("busybox"));
    vm.docker(&["version"]);

    vm.docker(&["rm", "before", "filler"]);
    vm.docker(&["volume", "prune", "-af"]);
    eventually("the blocks are the host's again", || {
        taken(&vm) < empty + (100 << 20)
    });
    vm.load("nginx");
    assert_eq!(
        vm.docker(&["run", "--rm", "busybox", "echo", "usable"]),
        "usable"
    );
    expect_success(&vm.longshore(&["doctor", "--store"]), "the store is whole");
}
