//! Other people's clients on our socket: Docker's SDK for Python, Testcontainers for Python, dockerode.

mod common;

use common::registry::Registry;
use common::{Instance, expect_success, finish, repository};
use std::path::PathBuf;
use std::process::Command;

/// The libraries that scripts/clients fetched.
fn libraries() -> PathBuf {
    let path = common::target_folder().join("clients");
    assert!(
        path.join("made-of").exists(),
        "{} is missing: run scripts/clients",
        path.display()
    );
    path
}

/// Runs a scenario against a VM of its own, with a registry that has busybox; nothing may be left.
fn scenario(program: &str, script: &str) {
    let registry = Registry::start();
    registry.push("busybox");
    let host = format!("host.docker.internal:{}", registry.port);
    let vm = Instance::new();
    let setting = format!("insecure_registries+={host}");
    expect_success(&vm.longshore(&["settings", "set", &setting]), "settings");
    vm.start(&[]);
    let libraries = libraries();
    let mut command = match program {
        "python" => Command::new(libraries.join("python/bin/python")),
        _ => Command::new(program),
    };
    command
        .arg(repository().join("app/cli/tests/clients").join(script))
        .arg(&host)
        .env("DOCKER_HOST", vm.docker_host())
        .env("DOCKER_CONFIG", vm.home.path().join("docker-config"))
        .env("NODE_PATH", libraries.join("node/node_modules"));
    expect_success(&finish(command, script), script);
    assert_eq!(vm.docker(&["ps", "-aq"]), "");
    let networks = vm.docker(&["network", "ls", "-q", "--filter", "type=custom"]);
    assert_eq!(networks, "");
    assert_eq!(vm.docker(&["volume", "ls", "-q"]), "");
}

#[test]
fn dockers_python_sdk() {
    scenario("python", "python_sdk.py");
}

#[test]
fn testcontainers_for_python() {
    scenario("python", "testcontainers_python.py");
}

#[test]
fn dockerode() {
    scenario("node", "dockerode.cjs");
}
