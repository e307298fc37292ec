//! The first mistakes that a new user makes, and what is said to them.

mod common;

use common::{Instance, expect_success, text};
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_second_start_changes_nothing() {
    let vm = Instance::new();
    vm.start(&[]);
    let id = vm.docker(&["info", "-f", "{{.ID}}"]);
    let again = vm.longshore(&["start"]);
    expect_success(&again, "the second start");
    assert!(format!("{}{}", text(&again.stdout), text(&again.stderr)).contains("already running"));
    assert_eq!(vm.docker(&["info", "-f", "{{.ID}}"]), id);
    for socket in ["docker.sock", "host.sock"] {
        let path = vm.home.path().join(socket);
        let mode = std::fs::metadata(&path).expect(socket).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    expect_success(&vm.longshore(&["stop"]), "stop");
}

#[test]
fn a_first_container_needs_no_registry() {
    let vm = Instance::new();
    let refused = vm.longshore(&["welcome"]);
    assert_eq!(refused.status.code(), Some(4));
    assert!(text(&refused.stderr).contains("longshore start"));
    vm.start(&[]);
    let welcome = || {
        let output = vm.longshore(&["welcome"]);
        expect_success(&output, "longshore welcome");
        let port = vm.docker(&["port", "welcome", "80"]);
        let said = text(&output.stdout);
        assert!(said.contains(&format!("http://{port}/")), "{said}");
        let mut curl = std::process::Command::new("curl");
        curl.args(["--silent", "--fail", &format!("http://{port}/")]);
        let page = common::finish(curl, "curl");
        assert!(text(&page.stdout).contains("Your first container runs."));
        vm.docker(&["inspect", "-f", "{{.Id}} {{.State.Status}}", "welcome"])
    };
    let first = welcome();
    assert!(first.ends_with(" running"), "{first}");
    let log = vm.docker_output(&["logs", "welcome"]);
    assert!(text(&log.stderr).contains("response:200"));
    let files = vm.docker(&["exec", "welcome", "sh", "-c", "ls /www"]);
    assert_eq!(files, "index.html");
    // Asked again it is the same one, also after it was stopped.
    assert_eq!(welcome(), first);
    vm.docker(&["stop", "welcome"]);
    assert_eq!(welcome(), first);

    // Another container of that name is left alone.
    vm.docker(&["rm", "-f", "welcome"]);
    let create = ["create", "--name", "welcome", "longshore/welcome", "sh"];
    let other = vm.docker(&create);
    let refused = vm.longshore(&["welcome"]);
    assert_eq!(refused.status.code(), Some(4));
    let said = text(&refused.stderr);
    assert!(
        said.contains("another container that is called welcome"),
        "{said}"
    );
    let created = vm.docker(&["inspect", "-f", "{{.Id}} {{.State.Status}}", "welcome"]);
    assert_eq!(created, format!("{other} created"));
}

#[test]
fn two_starts_at_once_boot_one_vm() {
    let vm = Instance::new();
    let children: Vec<_> = (0..2)
        .map(|_| {
            let mut command = vm.longshore_command();
            command
                .arg("start")
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            command.spawn().expect("longshore")
        })
        .collect();
    for child in children {
        expect_success(
            &common::finish_child(child, "longshore start"),
            "longshore start",
        );
    }
    assert!(vm.docker_output(&["version"]).status.success());
}

#[test]
fn a_missing_qemu_is_said() {
    let vm = Instance::new();
    let output = vm
        .longshore_command()
        .arg("start")
        .env("LONGSHORE_QEMU", "/nonexistent/qemu")
        .output()
        .expect("longshore");
    assert!(!output.status.success());
    let error = text(&output.stderr);
    assert!(
        error.contains("QEMU") && error.contains("install"),
        "{error}"
    );
}

#[test]
fn a_corrupt_guest_image_is_found_before_boot() {
    let vm = Instance::new();
    let image = common::repository()
        .join("target/guest-image")
        .join(std::env::consts::ARCH);
    let copy = vm.home.path().join("image");
    std::fs::create_dir(&copy).expect("a folder");
    for entry in std::fs::read_dir(&image).expect("the guest image") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_file() {
            std::fs::copy(entry.path(), copy.join(entry.file_name())).expect("copy");
        }
    }
    let initramfs = copy.join("initramfs");
    let mut bytes = std::fs::read(&initramfs).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&initramfs, bytes).expect("write");
    let output = vm
        .longshore_command()
        .arg("start")
        .env("LONGSHORE_GUEST_IMAGE", &copy)
        .output()
        .expect("longshore");
    assert!(!output.status.success());
    let error = text(&output.stderr);
    assert!(
        error.contains("initramfs") && error.contains("damaged"),
        "{error}"
    );
}

#[test]
fn bad_words_are_refused_with_what_to_do() {
    let vm = Instance::new();
    for arguments in [
        &["start", "--memory", "lots"][..],
        &["start", "--cpus", "0"],
        &["settings", "set", "memroy=2g"],
    ] {
        let output = vm.longshore(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    let before = text(&vm.longshore(&["settings", "get", "memory"]).stdout);
    let refused = vm.longshore(&["settings", "set", "cpus=1", "memory=1000g"]);
    assert!(!refused.status.success());
    let why = text(&refused.stderr);
    assert!(why.contains("1024000 MiB, and this machine has"), "{why}");
    assert!(why.contains("longshore settings set memory="), "{why}");
    let after = text(&vm.longshore(&["settings", "get", "memory"]).stdout);
    assert_eq!(after, before, "nothing is half-done");
    assert!(!text(&vm.longshore(&["status"]).stdout).contains("running"));
}

#[test]
fn docker_says_what_is_wrong_in_dockers_words() {
    let vm = common::shared();
    let unknown = vm.docker_fails(125, &["run", "--rm", "--pull", "never", "nobody-made-this"]);
    assert!(
        unknown.contains("No such image: nobody-made-this:latest"),
        "{unknown}"
    );
    let memory = vm.docker_fails(125, &["run", "--rm", "-m", "1k", "busybox", "true"]);
    assert!(
        memory.contains("Minimum memory limit allowed is 6MB"),
        "{memory}"
    );
    let down = vm.docker_fails(1, &["pull", "127.0.0.1:1/nothing"]);
    assert!(down.contains("connection refused"), "{down}");
}
