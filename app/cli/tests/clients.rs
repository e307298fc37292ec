//! Other people's clients on our socket: Docker's SDK for Python, Testcontainers for Python and Node, dockerode, dev containers.

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
    let (host, vm) = (registry.host(), registry.instance());
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
    assert_eq!(
        vm.docker(&[
            "ps",
            "-a",
            "--no-trunc",
            "--format",
            "{{.Names}} {{.Status}} {{.Command}}"
        ]),
        ""
    );
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

#[test]
fn testcontainers_for_node() {
    scenario("node", "testcontainers_node.cjs");
}

const DEV_CONTAINER: &str = r#"{
  "name": "developed",
  "image": "busybox",
  "remoteUser": "root",
  "containerEnv": { "GREETING": "hello" },
  "mounts": ["source=developed,target=/kept,type=volume"],
  "postCreateCommand": "echo $GREETING > made-inside; echo created > /kept/created"
}"#;

/// VS Code's command: a project in a shared folder, developed in a container of a ready-made image.
#[test]
fn dev_containers() {
    let vm = Instance::new();
    let project = tempfile::tempdir().expect("a folder");
    let path = project.path().to_str().expect("UTF-8");
    vm.start(&["--share", path]);
    vm.load("busybox");
    let configuration = project.path().join(".devcontainer");
    std::fs::create_dir(&configuration).expect("a folder");
    std::fs::write(configuration.join("devcontainer.json"), DEV_CONTAINER).expect("write");
    std::fs::write(project.path().join("source"), "from the host\n").expect("write");
    let run = |words: &[&str]| {
        let mut command = Command::new("node");
        command
            .arg(libraries().join("node/node_modules/@devcontainers/cli/devcontainer.js"))
            .args(words)
            .args(["--workspace-folder", path])
            .args(if words[0] == "exec" {
                &["sh", "-c", "cat source /kept/created; echo later > later"][..]
            } else {
                &[]
            })
            .env("DOCKER_HOST", vm.docker_host())
            .env("DOCKER_CONFIG", vm.home.path().join("docker-config"));
        let output = finish(command, words[0]);
        expect_success(&output, words[0]);
        common::text(&output.stdout)
    };
    let up = run(&["up"]);
    assert!(up.contains(r#""outcome":"success""#), "{up}");
    assert_eq!(run(&["exec"]), "from the host\ncreated\n");
    let read = |name: &str| std::fs::read_to_string(project.path().join(name)).expect("a file");
    assert_eq!(
        (read("made-inside").as_str(), read("later").as_str()),
        ("hello\n", "later\n")
    );
    // It finds its container again.
    let again = run(&["up"]);
    let id = vm.docker(&["ps", "-q", "--no-trunc"]);
    assert!(up.contains(&id) && again.contains(&id), "{id}: {again}");
}
