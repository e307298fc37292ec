//! What a user entrusts to docker is in no log and no trace, on either side.

mod common;

use common::registry::{Registry, USERS};
use common::{expect_success, finish, text};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

/// The password of `USERS`, as it travels: in `X-Registry-Auth` and in HTTP's basic scheme.
const PASSWORD: &str = "secret";
const BASIC: &str = "bWU6c2VjcmV0";
/// In no other word.
const PLANTED: &str = "zx9planted";

/// All files below a folder, but for sockets and the data disk.
fn files(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let kind = entry.file_type().expect("its kind");
        if kind.is_dir() {
            files(&path, found);
        } else if kind.is_file()
            && entry.file_name() != "data.img"
            && entry.file_name() != "initramfs"
        {
            let content = std::fs::read(&path).expect("a file");
            found.push((path.display().to_string(), text(&content)));
        }
    }
}

/// What `longshore diagnose` writes, file by file, of an instance whose settings hold a secret, too.
fn diagnostics(vm: &common::Instance) -> Vec<(String, String)> {
    let proxies = format!(
        "engine+={{\"proxies\": {{\"http-proxy\": \"http://me:{PLANTED}@127.0.0.1:9\"}}, \"labels\": [\"api_token={PLANTED}\"]}}"
    );
    expect_success(&vm.longshore(&["settings", "set", &proxies]), "settings");
    let labelled = format!("password={PLANTED}");
    vm.docker(&["volume", "create", "--label", &labelled, "kept"]);
    let command = format!("echo {PLANTED}; sleep 1000");
    vm.docker(&[
        "run", "-d", "--name", "three", "busybox", "sh", "-c", &command,
    ]);
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("bundle.tar.gz");
    let path = archive.to_str().expect("utf-8");
    expect_success(&vm.longshore(&["diagnose", "-o", path]), "diagnose");
    // One that is there already is not written over.
    assert!(!vm.longshore(&["diagnose", "-o", path]).status.success());
    let unpacked = std::process::Command::new("tar")
        .args(["-xzf", path, "-C"])
        .arg(folder.path())
        .status();
    assert!(unpacked.expect("tar").success());
    let mut found = Vec::new();
    files(&folder.path().join("longshore-diagnostics"), &mut found);
    let all: String = found.iter().map(|(_, text)| text.as_str()).collect();
    for wanted in [
        "/three",
        "kept",
        "http-proxy",
        "ServerVersion",
        "\"checks\"",
        "Linux version",
    ] {
        assert!(all.contains(wanted), "the archive has no {wanted}");
    }
    assert!(
        found
            .iter()
            .any(|(name, text)| name.ends_with("daemon.log") && text.len() > 100)
    );
    expect_success(&vm.longshore(&["settings", "set", "engine="]), "settings");
    found
}

#[test]
fn what_users_entrust_is_in_no_log_and_no_trace() {
    let registry = Registry::start_with(Some(USERS));
    let mut vm = common::Instance::new();
    vm.environment.push(("LONGSHORE_LOG", "debug".into()));
    let setting = format!("insecure_registries+={}", registry.host());
    expect_success(&vm.longshore(&["settings", "set", &setting]), "settings");
    vm.start(&[]);
    vm.load("busybox");

    let mut login = vm.docker_command(&["login", "-u", "me", "--password-stdin", &registry.host()]);
    let mut login = login
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("docker login");
    let input = login.stdin.take().expect("a pipe");
    { input }
        .write_all(PASSWORD.as_bytes())
        .expect("a password");
    expect_success(&common::finish_child(login, "docker login"), "docker login");
    let image = format!("{}/mine:1", registry.host());
    vm.docker(&["tag", "busybox", &image]);
    vm.docker(&["push", "-q", &image]);
    vm.docker(&["rmi", &image]);
    vm.docker(&["pull", "-q", &image]);
    // And one that the registry refuses.
    let wrong = ["login", "-u", "me", "-p", PLANTED, &registry.host()];
    assert!(!vm.docker_output(&wrong).status.success());

    let variable = format!("TOKEN={PLANTED}");
    vm.docker(&["run", "--name", "one", "-e", &variable, "busybox", "true"]);
    vm.docker(&["run", "-d", "--name", "two", "busybox", "sleep", "1000"]);
    vm.docker(&["exec", "-e", &variable, "two", "true"]);
    vm.docker(&["rm", "-f", "two"]);
    vm.docker_output(&[
        "run",
        "--rm",
        "-e",
        &variable,
        "busybox",
        "/no/such/program",
    ]);
    let build = tempfile::tempdir().expect("a folder");
    for (last, good) in [
        ("RUN true", true),
        ("RUN false", false),
        ("NONSENSE", false),
    ] {
        let dockerfile = format!("FROM busybox\nARG TOKEN\n{last}\n");
        std::fs::write(build.path().join("Dockerfile"), dockerfile).expect("write");
        let folder = build.path().to_str().expect("utf-8");
        let mut command = vm.docker_command(&["build", "--build-arg", &variable, folder]);
        command.env("DOCKER_BUILDKIT", "0");
        assert_eq!(
            finish(command, "docker build").status.success(),
            good,
            "{last}"
        );
    }

    let mut logs = Vec::new();
    files(vm.home.path(), &mut logs);
    // The client's own configuration is where the client keeps its password.
    logs.retain(|(path, _)| !path.contains("docker-config"));
    let guest = vm.guest("cat /run/longshore/log/* /run/longshore/trace/* /run/containerd/*/*/*/*.log 2>/dev/null; dmesg");
    assert!(guest.contains("/images/create"), "the traces are there");
    logs.push(("the guest's logs and traces".into(), guest));
    for source in ["host", "console", "daemon", "supervisor", "agent"] {
        let log = vm.longshore(&["logs", source]);
        logs.push((format!("longshore logs {source}"), text(&log.stdout)));
    }
    logs.extend(diagnostics(&vm));
    for (name, content) in logs {
        for planted in [PLANTED, BASIC, "\"password\"", "secret\""] {
            if let Some(at) = content.find(planted) {
                let around: String = content[..at].chars().rev().take(200).collect();
                let around: String = around.chars().rev().collect();
                panic!("{name} has {planted}: …{around}{planted}");
            }
        }
    }
}
