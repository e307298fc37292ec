//! The agent, shims, the host service and the VM's process die at random moments under load: every client gets an answer or an
//! error, what was acknowledged is there, and nothing is left behind.
//!
//! LONGSHORE_KILLS=100 LONGSHORE_SEED=7 for more of each kind, and for the same moments again.

mod common;

use common::journal::{Fact, Shown};
use common::load::{Load, expect_no_objects};
use common::random::{Random, kills};
use common::remains::{Remains, expect_nothing_left};
use common::shims::{self, kill_shim, kill_starting_shim};
use common::{Instance, expect_success, finish, finish_child, shared, text};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: &str = "20";
/// Beside the containers whose shims die: they must not notice.
const BYSTANDERS: &str = "8";
/// A start under emulation takes about this long; a kill falls anywhere in it.
const START: u64 = 8_000;
/// Clients whose journals are held against the engine of the next start.
const JOURNALS: usize = 3;

/// How long users had to wait after each kill.
struct Tally {
    kind: &'static str,
    waits: Vec<(&'static str, Duration)>,
    killed: u64,
}

impl Tally {
    fn new(kind: &'static str) -> Self {
        Self {
            kind,
            waits: Vec::new(),
            killed: 0,
        }
    }

    /// Does `step` until it succeeds; what it is for was usable `since` the kill.
    fn until(&mut self, what: &'static str, since: Instant, step: impl Fn() -> bool) {
        common::eventually(what, step);
        self.waits.push((what, since.elapsed()));
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let mut whats: Vec<_> = self.waits.iter().map(|(what, _)| *what).collect();
        whats.dedup();
        whats.sort_unstable();
        whats.dedup();
        println!("{} killed {} times", self.kind, self.killed);
        for what in whats {
            let of_it = self.waits.iter().filter(|(name, _)| *name == what);
            let mut waits: Vec<_> = of_it.map(|(_, wait)| *wait).collect();
            waits.sort_unstable();
            let (median, worst) = (waits[waits.len() / 2], waits[waits.len() - 1]);
            println!("  {what}: median {median:.1?}, worst {worst:.1?}");
        }
    }
}

/// `kill -9` of a process of this machine.
fn kill_here(pid: i32) {
    // SAFETY: plain kill(2) on a process that the instance of the test has named a moment ago.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

fn answers(vm: &Instance) -> bool {
    vm.docker_output(&["version"]).status.success()
}

/// A container that serves a published port; the port.
fn serve_a_page(vm: &Instance) -> String {
    let web = ["run", "-d", "--name", "web", "-p", "80"];
    vm.docker(&[&web[..], &["busybox", "httpd", "-f", "-h", "/bin"]].concat());
    let port = vm.docker(&["port", "web", "80"]);
    port.lines().next().expect("a port").to_owned()
}

fn page_is_served(port: &str) -> bool {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--max-time", "10", "--output"]);
    curl.args(["/dev/null", &format!("http://{port}/busybox")]);
    finish(curl, "curl").status.success()
}

/// Twenty clients; `kill` at random moments, and each time until everything is usable again.
fn storm(kind: &'static str, kill: impl Fn(&Instance)) {
    let mut random = Random::seeded();
    let vm = shared();
    let port = serve_a_page(vm);
    let before = Remains::after_first_use(vm);
    let load = Load::start(vm, &[CLIENTS, "storm"]);
    let mut tally = Tally::new(kind);
    for _ in 0..kills() {
        std::thread::sleep(Duration::from_millis(random.below(10_000)));
        let since = Instant::now();
        kill(vm);
        tally.killed += 1;
        tally.until("status", since, || {
            let status = vm.longshore(&["status"]);
            text(&status.stdout).starts_with("state ")
        });
        tally.until("docker version", since, || answers(vm));
        let shell = ["shell", "--", "true"];
        tally.until("shell", since, || vm.longshore(&shell).status.success());
        tally.until("published port", since, || page_is_served(&port));
    }
    println!("{}", load.end());
    drop(tally);
    let lived = ["inspect", "-f", "{{.RestartCount}} {{.State.Status}}"];
    assert_eq!(vm.docker(&[&lived[..], &["web"]].concat()), "0 running");
    expect_nothing_left(vm, &before);
    vm.docker(&["rm", "-f", "web"]);
    expect_no_objects(vm);
}

#[test]
#[ignore = "minutes"]
fn twenty_clients_while_the_agent_is_killed() {
    storm("agent", |vm| {
        // The shell that does it runs through the agent, so nobody tells how it ended.
        let kill = "kill -9 $(pidof longshore-agent)";
        let _ = vm.longshore(&["shell", "--", "sh", "-c", kill]);
    });
}

#[test]
#[ignore = "minutes"]
fn twenty_clients_while_the_host_service_is_killed() {
    storm("host service", |vm| {
        kill_here(vm.host_pid().expect("a host service"));
    });
}

/// What a shim's container is doing when it dies.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Living,
    Restarted,
    Starting,
    Ending,
}

const MOMENTS: [Moment; 4] = [
    Moment::Living,
    Moment::Restarted,
    Moment::Starting,
    Moment::Ending,
];

#[test]
#[ignore = "minutes"]
fn shims_are_killed_and_no_other_container_notices() {
    let mut random = Random::seeded();
    let vm = shared();
    let before = Remains::after_first_use(vm);
    // Not in a storm: whatever these clients see of the kills is an error.
    let load = Load::start(vm, &[BYSTANDERS]);
    let mut tally = Tally::new("shim");
    for number in 0..kills() {
        let moment = MOMENTS[random.below(MOMENTS.len() as u64) as usize];
        let name = format!("victim{number}");
        let delay = random.below(1000);
        println!("{name}: {moment:?}, {delay} ms");
        match moment {
            Moment::Living => kill_of_a_living(vm, &name, delay, &mut tally),
            Moment::Restarted => kill_of_a_restarted(vm, &name, &mut tally),
            Moment::Starting => kill_of_a_starting(vm, &name, delay, &mut tally),
            Moment::Ending => kill_of_an_ending(vm, &name, delay, &mut tally),
        }
        let left = shims::remove(vm, &name);
        assert_eq!(left, "", "{name}: processes are left");
    }
    println!("{}", load.end());
    drop(tally);
    expect_no_objects(vm);
    expect_nothing_left(vm, &before);
}

fn state(vm: &Instance, container: &str) -> String {
    let format = "{{.State.Status}} {{.State.ExitCode}}";
    vm.docker(&["inspect", "-f", format, container])
}

/// With a volume, a published port and a command inside.
fn kill_of_a_living(vm: &Instance, name: &str, delay: u64, tally: &mut Tally) {
    let run = ["run", "-d", "--name", name, "-p", "80", "-v", "/data"];
    let script = "while :; do echo line; sleep 0.1; done";
    vm.docker(&[&run[..], &["busybox", "sh", "-c", script]].concat());
    let mut exec = vm.docker_command(&["exec", name, "sleep", "1000"]);
    let exec = exec.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let exec = exec.expect("docker exec");
    let mut follow = vm.docker_command(&["logs", "-f", name]);
    let follow = follow.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let follow = follow.expect("docker logs");
    std::thread::sleep(Duration::from_millis(delay));
    let since = Instant::now();
    tally.killed += u64::from(kill_shim(vm, name));
    tally.until("its end is known", since, || {
        state(vm, name) == "exited 137"
    });
    assert_eq!(vm.docker(&["wait", name]), "137");
    finish_child(exec, "a command in a container whose shim was killed");
    finish_child(follow, "who follows its log");
    let since = Instant::now();
    vm.docker(&["start", name]);
    assert_eq!(vm.docker(&["exec", name, "echo", "again"]), "again");
    tally.waits.push(("started again", since.elapsed()));
}

fn kill_of_a_restarted(vm: &Instance, name: &str, tally: &mut Tally) {
    vm.keep_running(name);
    let since = Instant::now();
    tally.killed += u64::from(kill_shim(vm, name));
    let format = "{{.RestartCount}} {{.State.Status}}";
    tally.until("restarted by its policy", since, || {
        vm.docker(&["inspect", "-f", format, name]) == "1 running"
    });
    assert_eq!(vm.docker(&["exec", name, "echo", "again"]), "again");
}

/// Whoever started it is told something, and afterwards it runs or does not, and can be started.
fn kill_of_a_starting(vm: &Instance, name: &str, delay: u64, tally: &mut Tally) {
    let create = ["create", "--name", name, "busybox", "sh", "-c"];
    vm.docker(&[&create[..], &["echo up; exec sleep 1000"]].concat());
    let mut start = vm.docker_command(&["start", "-a", name]);
    let start = start.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let start = start.expect("docker start");
    tally.killed += u64::from(kill_starting_shim(vm, name, delay));
    let since = Instant::now();
    let output = finish_child(start, "docker start -a");
    tally.waits.push(("its starter is told", since.elapsed()));
    tally.until("it does not run", since, || {
        !state(vm, name).starts_with("running")
    });
    assert!(!output.status.success(), "{name} was not started whole");
    vm.docker(&["start", name]);
    assert_eq!(vm.docker(&["exec", name, "echo", "again"]), "again");
}

fn kill_of_an_ending(vm: &Instance, name: &str, delay: u64, tally: &mut Tally) {
    let run = ["run", "-d", "--name", name, "busybox", "sh", "-c"];
    let script = format!("sleep {}.{:03}; exit 7", delay / 1000, delay % 1000);
    vm.docker(&[&run[..], &[&script]].concat());
    let since = Instant::now();
    tally.killed += u64::from(kill_shim(vm, name));
    tally.until("its end is known", since, || {
        let state = state(vm, name);
        // As it was, if the shim had written it down.
        ["exited 7", "exited 137"].contains(&state.as_str())
    });
}

/// What one client was told is done, and does for as long as the engine lives.
fn keep_a_journal(vm: &Instance, client: usize, round: u64, over: &AtomicBool) -> Vec<Fact> {
    let mut facts: Vec<Fact> = Vec::new();
    for count in 0.. {
        if let Err(error) = one_of_each(vm, &format!("{round}-{client}-{count}"), &mut facts) {
            assert!(over.load(Ordering::SeqCst), "before the kill: {error}");
            break;
        }
    }
    facts
}

fn one_of_each(vm: &Instance, name: &str, facts: &mut Vec<Fact>) -> Result<(), String> {
    let ask = |arguments: &[&str]| {
        let output = vm.docker_output(arguments);
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("{arguments:?}: {}", text(&output.stderr))),
        }
    };
    let (volume, container) = (format!("volume{name}"), format!("container{name}"));
    let (image, network) = (format!("image{name}"), format!("network{name}"));
    ask(&["volume", "create", &volume])?;
    facts.push(Fact::Volume(volume.clone()));
    let (mount, write) = (
        format!("{volume}:/data"),
        format!("echo -n {volume} > /data/file && sync"),
    );
    ask(&["run", "--rm", "-v", &mount, "busybox", "sh", "-c", &write])?;
    facts.push(Fact::Written(volume.clone(), volume));
    let script = format!("echo made by {container} > /made; sync; exit 3");
    let run = ["run", "-d", "--name", &container, "busybox", "sh", "-c"];
    ask(&[&run[..], &[&script]].concat())?;
    ask(&["wait", &container])?;
    facts.push(Fact::Exited(container.clone(), 3));
    let made = format!("made by {container}");
    facts.push(Fact::File(container.clone(), "/made".into(), made));
    ask(&["commit", &container, &image])?;
    facts.push(Fact::Image(format!("{image}:latest")));
    ask(&["network", "create", &network])?;
    facts.push(Fact::Network(network));
    Ok(())
}

/// Processes of this machine whose command line names the folder, but for the host service.
fn processes_here(home: &Path) -> Vec<String> {
    let home = home.to_str().expect("utf-8");
    let processes = std::fs::read_dir("/proc").expect("proc").flatten();
    let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| text(&line).replace('\0', " "))
        .filter(|line| line.contains(home) && !line.contains("longshore-host"))
        .collect()
}

fn process_of_the_vm(vm: &Instance) -> Option<i32> {
    let pid = std::fs::read_to_string(vm.home.path().join("vm/lock")).ok()?;
    pid.trim().parse().ok()
}

#[derive(Debug, PartialEq)]
enum Victim {
    Nobody,
    VmProcess,
    HostService,
}

/// A start during which somebody dies; whoever asked for it is told, in time.
fn disturbed_start(vm: &Instance, victim: &Victim, delay: u64) {
    let mut start = vm.longshore_command();
    start.arg("start").stdout(Stdio::piped());
    let child = start.stderr(Stdio::piped()).spawn();
    let child = child.expect("longshore start");
    std::thread::sleep(Duration::from_millis(delay));
    match victim {
        Victim::Nobody => {}
        Victim::HostService => vm.host_pid().into_iter().for_each(kill_here),
        Victim::VmProcess => {
            if !processes_here(vm.home.path()).is_empty() {
                process_of_the_vm(vm).into_iter().for_each(kill_here);
            }
        }
    }
    let output = finish_child(child, "longshore start");
    println!(
        "  start with {victim:?} killed after {delay} ms: {}",
        text(&output.stderr).lines().last().unwrap_or("it came up")
    );
}

#[test]
#[ignore = "minutes"]
fn the_vm_process_is_killed_and_what_was_acknowledged_is_there() {
    let mut random = Random::seeded();
    let vm = Instance::new();
    vm.start(&[]);
    vm.load("busybox");
    let mut port = serve_a_page(&vm);
    vm.docker(&["update", "--restart", "always", "web"]);
    let files = || {
        let listed = std::fs::read_dir(vm.home.path().join("vm")).expect("vm");
        let mut names: Vec<_> = listed.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    let files_before = files();
    let mut tally = Tally::new("VM's process");
    let (mut looked_for, mut lost) = (0, Vec::new());
    for round in 0..kills() {
        let over = AtomicBool::new(false);
        let facts = Mutex::new(Vec::new());
        let mut since = Instant::now();
        std::thread::scope(|scope| {
            for client in 0..JOURNALS {
                let (vm, facts, over) = (&vm, &facts, &over);
                scope.spawn(move || {
                    let done = keep_a_journal(vm, client, round, over);
                    facts.lock().expect("no panic").extend(done);
                });
            }
            std::thread::sleep(Duration::from_millis(random.below(12_000)));
            over.store(true, Ordering::SeqCst);
            since = Instant::now();
            kill_here(process_of_the_vm(&vm).expect("a VM"));
        });
        tally.killed += 1;
        tally.waits.push(("clients are told", since.elapsed()));
        tally.until("status tells that the VM is gone", since, || {
            vm.status()["state"] != "running"
        });
        tally.until("no process is left", since, || {
            processes_here(vm.home.path()).is_empty()
        });
        tally.until("the published port is given back", since, || {
            std::net::TcpStream::connect(&port).is_err()
        });
        let victim = match random.below(3) {
            0 => Victim::Nobody,
            1 => Victim::VmProcess,
            _ => Victim::HostService,
        };
        disturbed_start(&vm, &victim, random.below(START));
        let since = Instant::now();
        tally.until("started again", since, || {
            vm.longshore(&["start"]).status.success()
        });
        tally.until("docker version", since, || answers(&vm));
        // By its restart policy, a moment after the engine.
        let published = || text(&vm.docker_output(&["port", "web", "80"]).stdout);
        tally.until("published port", since, || {
            published().lines().next().is_some_and(page_is_served)
        });
        port = published().lines().next().expect("a port").to_owned();
        let facts = facts.into_inner().expect("no panic");
        let shown = Shown::ask(&vm).expect("lists");
        looked_for += facts.len();
        let gone = facts.iter().filter(|fact| !shown.has(&vm, fact));
        lost.extend(gone.map(|fact| format!("round {round}: {fact:?}")));
        vm.docker(&["container", "prune", "-f"]);
        vm.docker(&["volume", "prune", "-af"]);
        vm.docker(&["network", "prune", "-f"]);
        let made = vm.docker(&["images", "-q", "--filter", "reference=image*"]);
        let remove: Vec<_> = ["rmi"].into_iter().chain(made.lines()).collect();
        if remove.len() > 1 {
            vm.docker(&remove);
        }
        assert_eq!(files(), files_before, "files in vm/");
    }
    expect_success(&vm.longshore(&["doctor", "--store"]), "the store is whole");
    drop(tally);
    println!(
        "{looked_for} acknowledged things looked for, {} lost",
        lost.len()
    );
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}
