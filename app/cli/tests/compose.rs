//! `docker compose` (Debian's plugin) brings up, changes and takes down a project of four services.

mod common;

use common::remains::{Remains, expect_nothing_left};
use common::{Instance, eventually, expect_success, finish, image_archive, repository, text};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

struct Project {
    vm: Instance,
    folder: PathBuf,
    files: Vec<&'static str>,
    port: u16,
    before: Remains,
}

/// A command that runs beside the test, ended with it.
struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Project {
    /// The shop: a booted instance that shares its folder and has its images and the plugin.
    fn shop(files: &[&'static str]) -> Self {
        let images = ["busybox", "nginx", "redis", "postgres", "app"];
        let folder = repository().join("app/cli/tests/compose-project");
        Self::prepared(folder, files, &images)
    }

    fn prepared(folder: PathBuf, files: &[&'static str], images: &[&str]) -> Self {
        let vm = Instance::new();
        vm.start(&["--share", folder.to_str().expect("utf-8")]);
        for image in images {
            vm.load(image);
        }
        let plugins = vm.home.path().join("docker-config/cli-plugins");
        std::fs::create_dir_all(&plugins).expect("a folder for plugins");
        unpack(&image_archive("compose"), &plugins);
        Project {
            before: Remains::after_first_use(&vm),
            vm,
            folder,
            files: files.to_vec(),
            port: free_port(),
        }
    }

    /// `docker compose ARGUMENTS`.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut words = vec!["compose"];
        for file in &self.files {
            words.extend(["-f", file]);
        }
        words.extend(arguments);
        let mut command = self.vm.docker_command(&words);
        command
            .current_dir(&self.folder)
            .env("DOCKER_BUILDKIT", "0")
            .env("WEB_PORT", self.port.to_string());
        command
    }

    /// The same, whatever its outcome.
    fn output(&self, arguments: &[&str]) -> Output {
        let what = format!("docker compose {}", arguments.join(" "));
        finish(self.command(arguments), &what)
    }

    /// The same, started, with the lines that it prints.
    fn beside(&self, arguments: &[&str]) -> (Beside, impl Iterator<Item = String>) {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stdin(Stdio::null());
        let mut child = command.spawn().expect("docker compose");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        (Beside(child), lines.map_while(Result::ok))
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

/// Waits for a line that holds this.
fn expect_line(lines: &mut impl Iterator<Item = String>, expected: &str) {
    let mut seen = Vec::new();
    for line in lines.by_ref() {
        if line.contains(expected) {
            return;
        }
        seen.push(line);
    }
    panic!("no {expected:?} in {}", seen.join("\n"));
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
    let project = Project::shop(&["compose.yaml"]);
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
    let (logs, mut logged) = project.beside(&["logs", "--follow", "--no-log-prefix", "app"]);
    expect_line(&mut logged, "the shop is open");
    // Who is in a profile comes when it is asked for.
    project.compose(&["--profile", "count", "up", "--detach", "counter"]);
    project.compose(&["wait", "counter"]);
    assert_eq!(
        project.compose(&["logs", "--no-log-prefix", "counter"]),
        "counted"
    );

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

    // It followed the service through its restarts until here.
    expect_line(&mut logged, "the shop is open");
    drop(logs);
    // Down and up again: the volumes keep what was written.
    let rows = number(&project.visit(), "rows=");
    project.compose(&["down", "--timeout", "1"]);
    project.compose(&["up", "--detach"]);
    eventually("the shop answers again", || {
        project.visit().contains("rows=")
    });
    assert!(number(&project.visit(), "rows=") > rows);

    let all = ["--profile", "*", "down", "--timeout", "1", "--volumes"];
    project.compose(&all);
    nothing_is_left(&project);
}

#[test]
#[ignore = "long; health checks decide the order"]
fn services_wait_for_the_health_of_those_they_need() {
    let project = Project::shop(&["compose.yaml", "health.yaml"]);
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
    nothing_is_left(&project);
}

const WATCHED: [(&str, &str); 4] = [
    (
        "compose.yaml",
        "name: watched\nservices:\n  page:\n    build: .\n    stop_grace_period: 0s\n    develop:\n      watch:\n        \
         - { action: sync, path: ./src, target: /www }\n        \
         - { action: sync+restart, path: ./conf, target: /conf }\n        \
         - { action: rebuild, path: ./Dockerfile }\n",
    ),
    (
        "Dockerfile",
        "FROM busybox\nCOPY src /www\nCOPY conf /conf\nENV BUILD=1\n\
         CMD [\"sh\", \"-c\", \"echo serves $(cat /conf/c) of build $BUILD; exec httpd -f -p 80 -h /www\"]\n",
    ),
    ("src/page", "first"),
    ("conf/c", "one"),
];

/// Classic builds, as this engine has no BuildKit.
#[test]
#[ignore = "long; needs scripts/images compose"]
fn watched_files_reach_the_container_restart_it_and_build_it_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, content).expect("write");
    };
    for (name, content) in WATCHED {
        write(name, content);
    }
    let files = ["compose.yaml"];
    let project = Project::prepared(folder.path().to_owned(), &files, &["busybox"]);
    project.compose(&["up", "--detach", "--build"]);
    let (watch, mut told) = project.beside(&["watch", "--no-up"]);
    expect_line(&mut told, "Watch enabled");
    let (logs, mut logged) = project.beside(&["logs", "--follow", "--no-log-prefix", "page"]);
    expect_line(&mut logged, "serves one of build 1");

    write("src/page", "second");
    expect_line(&mut told, "Syncing");
    eventually("the container has the new page", || {
        project.compose(&["exec", "-T", "page", "cat", "/www/page"]) == "second"
    });
    write("conf/c", "two");
    expect_line(&mut logged, "serves two of build 1");
    write("Dockerfile", &WATCHED[1].1.replace("BUILD=1", "BUILD=2"));
    expect_line(&mut told, "successfully built");
    // Compose lists containers, then asks for their logs: meanwhile the old one may go.
    eventually("the new image serves", || {
        let asked = project.output(&["logs", "--no-log-prefix", "page"]);
        text(&asked.stdout).contains("serves two of build 2")
    });
    drop((watch, logs));
    project.compose(&["down", "--timeout", "1", "--rmi", "local"]);
    project.vm.docker(&["image", "prune", "--force"]);
    nothing_is_left(&project);
}

fn nothing_is_left(project: &Project) {
    let vm = &project.vm;
    assert_eq!(vm.docker(&["ps", "--all", "--quiet"]), "");
    assert_eq!(vm.docker(&["volume", "ls", "--quiet"]), "");
    let networks = vm.docker(&["network", "ls", "--format", "{{.Name}}"]);
    let networks: BTreeSet<&str> = networks.lines().collect();
    assert_eq!(networks, ["bridge", "host", "none"].into());
    expect_nothing_left(vm, &project.before);
}
