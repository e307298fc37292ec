//! Host folders in containers, and published ports on the host's localhost.

mod common;

use common::{Instance, eventually, expect_success, text};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

fn curl(address: &str) -> String {
    let output = Command::new("curl")
        .args(["--silent", "--max-time", "10", address])
        .output()
        .expect("curl");
    text(&output.stdout)
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bind");
    listener.local_addr().expect("an address").port()
}

fn booted_with(folder: &Path) -> Instance {
    let vm = Instance::new();
    vm.start(&["--share", folder.to_str().expect("utf-8")]);
    vm.load("busybox");
    vm
}

#[test]
fn nginx_serves_the_hosts_file_and_its_next_edit() {
    let folder = tempfile::tempdir().expect("a folder");
    let vm = booted_with(folder.path());
    vm.load("nginx");
    std::fs::write(folder.path().join("index.html"), "first").expect("write");
    let port = free_port().to_string();
    let bind = format!("{}:/usr/share/nginx/html", folder.path().display());
    vm.docker(&[
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        &format!("{port}:80"),
        "-v",
        &bind,
        "nginx",
    ]);
    let address = format!("http://localhost:{port}/");
    eventually("nginx answers", || curl(&address) == "first");
    std::fs::write(folder.path().join("index.html"), "second").expect("write");
    eventually("the edit is served", || curl(&address) == "second");

    let taken = vm.docker_fails(
        125,
        &[
            "run",
            "--rm",
            "-p",
            &format!("{port}:80"),
            "busybox",
            "true",
        ],
    );
    assert!(
        taken.contains("port is already allocated") || taken.contains("address already in use"),
        "{taken}"
    );
    vm.docker(&["rm", "-f", "web"]);
    eventually("the port is free again", || {
        std::net::TcpListener::bind(("127.0.0.1", port.parse::<u16>().expect("a port"))).is_ok()
    });
}

#[test]
fn files_made_in_containers_belong_to_the_host_user() {
    let folder = tempfile::tempdir().expect("a folder");
    let vm = booted_with(folder.path());
    let bind = format!("{}:/src", folder.path().display());
    vm.docker(&[
        "run",
        "--rm",
        "-v",
        &bind,
        "busybox",
        "sh",
        "-c",
        "echo root > /src/by-root",
    ]);
    vm.docker(&[
        "run",
        "--rm",
        "-u",
        "33",
        "-v",
        &bind,
        "busybox",
        "sh",
        "-c",
        "cat /src/by-root; echo 33 > /src/by-33",
    ]);
    let user = std::fs::metadata(folder.path()).expect("the folder").uid();
    for name in ["by-root", "by-33"] {
        let file = std::fs::metadata(folder.path().join(name)).expect(name);
        assert_eq!(file.uid(), user, "{name}");
    }
}

#[test]
fn a_path_that_is_not_shared_is_refused_until_it_is() {
    let shared = tempfile::tempdir().expect("a folder");
    let vm = booted_with(shared.path());
    let other = tempfile::tempdir().expect("a folder");
    std::fs::write(other.path().join("file"), "found").expect("write");
    let path = other.path().to_str().expect("utf-8");
    let bind = format!("{path}:/src");
    let run = ["run", "--rm", "-v", &bind, "busybox", "cat", "/src/file"];
    let refused = vm.docker_fails(125, &run);
    assert!(
        refused.contains(path) && refused.contains("not shared") && refused.contains("--share"),
        "{refused}"
    );
    expect_success(
        &vm.longshore(&["start", "--share", path]),
        "sharing without a restart",
    );
    assert_eq!(vm.docker(&run), "found");
}

#[test]
fn the_docker_socket_in_a_container_is_the_guests() {
    let folder = tempfile::tempdir().expect("a folder");
    let vm = booted_with(folder.path());
    let said = vm.docker(&[
        "run",
        "--rm",
        "-v",
        "/var/run/docker.sock:/var/run/docker.sock",
        "busybox",
        "sh",
        "-c",
        "test -S /var/run/docker.sock && echo socket",
    ]);
    assert_eq!(said, "socket");
}
