//! Other people's clients on our socket: Docker's SDK for Python, Testcontainers for Python and Node, dockerode, dev containers.

mod common;

use common::registry::Registry;
use common::{Instance, eventually, expect_success, finish, repository, text};
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

fn script(name: &str) -> PathBuf {
    repository().join("app/cli/tests/clients").join(name)
}

/// The command that runs a script with those libraries against this VM.
fn client(vm: &Instance, program: &str, name: &str) -> Command {
    let libraries = libraries();
    let mut command = match program {
        "python" => Command::new(libraries.join("python/bin/python")),
        _ => Command::new(program),
    };
    command
        .arg(script(name))
        .env("DOCKER_HOST", vm.docker_host())
        .env("DOCKER_CONFIG", vm.home.path().join("docker-config"))
        .env("NODE_PATH", libraries.join("node/node_modules"));
    command
}

/// What a client made and did not remove: containers, networks, volumes.
fn left(vm: &Instance) -> [String; 3] {
    let shown = "{{.Names}} {{.Status}} {{.Command}}";
    [
        vm.docker(&["ps", "-a", "--no-trunc", "--format", shown]),
        vm.docker(&["network", "ls", "-q", "--filter", "type=custom"]),
        vm.docker(&["volume", "ls", "-q"]),
    ]
}

/// Runs a scenario against a VM of its own, with a registry that has busybox; nothing may be left.
fn scenario(program: &str, script: &str) {
    let registry = Registry::start();
    registry.push("busybox");
    let (host, vm) = (registry.host(), registry.instance());
    let mut command = client(&vm, program, script);
    command.arg(&host);
    expect_success(&finish(command, script), script);
    assert_eq!(left(&vm), ["", "", ""]);
}

#[test]
#[ignore = "long; needs scripts/clients"]
fn dockers_python_sdk() {
    scenario("python", "python_sdk.py");
}

#[test]
#[ignore = "long; needs scripts/clients"]
fn testcontainers_for_python() {
    scenario("python", "testcontainers_python.py");
}

#[test]
#[ignore = "long; needs scripts/clients"]
fn dockerode() {
    scenario("node", "dockerode.cjs");
}

#[test]
#[ignore = "long; needs scripts/clients"]
fn testcontainers_for_node() {
    scenario("node", "testcontainers_node.cjs");
}

/// Its reaper reaches the engine through the socket that the client has, and tidies up after a client that just ends. The reaper is a
/// stand-in that speaks its protocol (clients/reaper.py), as its own image is in no registry at hand.
#[test]
#[ignore = "long; needs scripts/clients and scripts/images app"]
fn testcontainers_with_their_reaper() {
    let vm = Instance::new();
    vm.start(&[]);
    vm.load("busybox");
    vm.load("app");
    let context = tempfile::tempdir().expect("a folder");
    let dockerfile =
        "FROM python-app\nCOPY reaper.py /\nCMD [\"python3\", \"-u\", \"/reaper.py\"]\n";
    std::fs::write(context.path().join("Dockerfile"), dockerfile).expect("write");
    std::fs::copy(script("reaper.py"), context.path().join("reaper.py")).expect("copy");
    let path = context.path().to_str().expect("UTF-8");
    let mut build = vm.docker_command(&["build", "-q", "-t", "reaper:1", path]);
    build.env("DOCKER_BUILDKIT", "0");
    expect_success(&finish(build, "docker build"), "docker build");

    for (program, script) in [("python", "reaper_python.py"), ("node", "reaper_node.cjs")] {
        let mut command = client(&vm, program, script);
        command
            .env("RYUK_CONTAINER_IMAGE", "reaper:1")
            .env("RYUK_RECONNECTION_TIMEOUT", "1s")
            .env("TESTCONTAINERS_RYUK_RECONNECTION_TIMEOUT", "1s");
        let output = finish(command, script);
        expect_success(&output, script);
        assert!(text(&output.stdout).contains("left a running container"));
        eventually("the reaper has removed all, and itself", || {
            left(&vm) == ["", "", ""]
        });
    }
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
#[ignore = "long; needs scripts/clients"]
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
        text(&output.stdout)
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
