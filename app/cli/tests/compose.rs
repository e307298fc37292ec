//! `docker compose` (Debian's plugin) brings up, changes and takes down a project of four services.

mod common;

use common::{Instance, eventually, expect_success, finish, image_archive, repository, text};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

struct Project {
    vm: Instance,
    files: Vec<&'static str>,
    port: u16,
}

impl Project {
    /// A booted instance that shares the project's folder and has its images and the plugin.
    fn prepared(files: &[&'static str]) -> Self {
        let vm = Instance::new();
        let folder = folder();
        vm.start(&["--share", folder.to_str().expect("utf-8")]);
        for image in ["busybox", "nginx", "redis", "postgres", "app"] {
            vm.load(image);
        }
        let plugins = vm.home.path().join("docker-config/cli-plugins");
        std::fs::create_dir_all(&plugins).expect("a folder for plugins");
        unpack(&image_archive("compose"), &plugins);
        Project {
            vm,
            files: files.to_vec(),
            port: free_port(),
        }
    }

    /// `docker compose ARGUMENTS`, whatever its outcome.
    fn output(&self, arguments: &[&str]) -> Output {
        let mut words = vec!["compose"];
        for file in &self.files {
            words.extend(["-f", file]);
        }
        words.extend(arguments);
        let mut command = self.vm.docker_command(&words);
        command
            .current_dir(folder())
            .env("WEB_PORT", self.port.to_string());
        finish(command, &format!("docker {}", words.join(" ")))
    }

    /// The same, which must succeed; its standard output, trimmed.
    fn compose(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        expect_success(&output, &format!("docker compose {}", arguments.join(" ")));
        text(&output.stdout).trim().to_owned()
    }

    fn visit(&self) -> String {
        let address = format!("http://127.0.0.1:{}/", self.port);
        let output = Command::new("curl")
            .args(["--silent", "--max-time", "20", &address])
            .output()
            .expect("curl");
        text(&output.stdout).trim().to_owned()
    }

    fn running(&self, service: &str) -> usize {
        let listed = self.compose(&["ps", "--status", "running", "--quiet", service]);
        listed.lines().count()
    }
}

fn folder() -> std::path::PathBuf {
    repository().join("app/cli/tests/compose-project")
}

fn unpack(archive: &Path, into: &Path) {
    let done = Command::new("tar")
        .arg("-xf")
        .arg(archive)
        .arg("-C")
        .arg(into)
        .status();
    assert!(done.expect("tar").success());
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bind");
    listener.local_addr().expect("an address").port()
}

/// The number behind `hits=` or `rows=` of an answer.
fn number(answer: &str, key: &str) -> u64 {
    let found = answer
        .split_whitespace()
        .find_map(|word| word.strip_prefix(key));
    found
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("no {key} in {answer:?}"))
}

#[test]
#[ignore = "long; needs scripts/images redis postgres app compose"]
fn a_project_of_four_services_lives_through_its_day() {
    let project = Project::prepared(&["compose.yaml"]);
    project.compose(&["up", "--detach"]);
    eventually("the shop answers", || project.visit().contains("hits="));
    let first = project.visit();
    assert!(first.starts_with("welcome to the shop"), "{first}");
    let second = project.visit();
    assert_eq!(number(&second, "hits="), number(&first, "hits=") + 1);
    assert_eq!(number(&second, "rows="), number(&first, "rows=") + 1);

    let listed = project.compose(&["ps", "--format", "{{.Service}} {{.State}}"]);
    let listed: BTreeSet<&str> = listed.lines().collect();
    let expected = [
        "app running",
        "cache running",
        "database running",
        "web running",
    ];
    assert_eq!(listed, expected.into());
    let logs = project.compose(&["logs", "--no-log-prefix", "app"]);
    assert!(logs.contains("the shop is open"), "{logs}");

    let hits = project.compose(&["exec", "-T", "cache", "redis-cli", "get", "hits"]);
    assert_eq!(hits, number(&second, "hits=").to_string());
    let greeting = project.compose(&[
        "run",
        "--rm",
        "-T",
        "--no-deps",
        "app",
        "sh",
        "-c",
        "echo $GREETING",
    ]);
    assert_eq!(greeting, "welcome to the shop");
    // `back` is internal: who is only there reaches no one outside.
    let outside = project.output(&[
        "exec",
        "-T",
        "cache",
        "sh",
        "-c",
        "echo > /dev/tcp/10.0.2.2/1",
    ]);
    assert!(!outside.status.success());

    project.compose(&["restart", "--timeout", "1", "cache", "app"]);
    eventually("the shop answers after a restart", || {
        project.visit().contains("hits=")
    });

    project.compose(&["up", "--detach", "--scale", "app=3", "--no-recreate"]);
    assert_eq!(project.running("app"), 3);
    let mut seen = BTreeSet::new();
    eventually("every one of three serves", || {
        let answer = project.visit();
        seen.extend(answer.split("from=").nth(1).map(str::to_owned));
        seen.len() == 3
    });
    project.compose(&["up", "--detach", "--scale", "app=1", "--no-recreate"]);
    assert_eq!(project.running("app"), 1);

    // Down and up again: the volumes keep what was written.
    let rows = number(&project.visit(), "rows=");
    project.compose(&["down", "--timeout", "1"]);
    project.compose(&["up", "--detach"]);
    eventually("the shop answers again", || {
        project.visit().contains("rows=")
    });
    assert!(number(&project.visit(), "rows=") > rows);

    project.compose(&["down", "--timeout", "1", "--volumes"]);
    nothing_is_left(&project.vm);
}

#[test]
#[ignore = "long; health checks decide the order"]
fn services_wait_for_the_health_of_those_they_need() {
    let project = Project::prepared(&["compose.yaml", "health.yaml"]);
    project.compose(&["up", "--detach"]);
    let listed = project.compose(&["ps", "--format", "{{.Service}} {{.Health}}"]);
    assert!(
        listed.lines().any(|line| line == "cache healthy"),
        "{listed}"
    );
    assert!(
        listed.lines().any(|line| line == "database healthy"),
        "{listed}"
    );
    eventually("the shop answers", || project.visit().contains("hits="));
    project.compose(&["down", "--timeout", "1", "--volumes"]);
    nothing_is_left(&project.vm);
}

fn nothing_is_left(vm: &Instance) {
    assert_eq!(vm.docker(&["ps", "--all", "--quiet"]), "");
    assert_eq!(vm.docker(&["volume", "ls", "--quiet"]), "");
    let networks = vm.docker(&["network", "ls", "--format", "{{.Name}}"]);
    let networks: BTreeSet<&str> = networks.lines().collect();
    assert_eq!(networks, ["bridge", "host", "none"].into());
    // A namespace's links end a moment after it.
    eventually("no link of a container is left", || {
        vm.guest("ip -o link | grep -c -e veth -e br- || true") == "0"
    });
    assert_eq!(vm.guest("ls /run/docker/netns | wc -l"), "0");
    assert_eq!(
        vm.guest("grep -c /var/lib/docker/volumes /proc/mounts || true"),
        "0"
    );
}
