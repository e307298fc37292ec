//! A hundred clients at once for minutes, then twenty while the engine's processes are killed: every answer right, and
//! nothing left of it afterwards.

mod common;

use common::random::Random;
use common::remains::{Remains, expect_nothing_left, resident};
use common::{Instance, finish_within, repository, shared, target_folder, text};
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Two containers of each client live all the time.
const CLIENTS: &str = "100";
const CLIENTS_IN_A_STORM: &str = "20";
/// Before memory is looked at for the first time, and then until the second.
const WARM_UP: Duration = Duration::from_secs(60);
const LOAD: Duration = Duration::from_secs(240);
const IDLE: Duration = Duration::from_secs(30);
/// The last scenarios and the containers that lived on: how long it takes them to end.
const END: Duration = Duration::from_secs(600);
/// What memory may grow by from a minute of load to four more, in KiB: allocators do not give back at once.
const GROWTH: u64 = 8 << 10;
/// Kills of each service; LONGSHORE_KILLS says otherwise.
const KILLS: u64 = 5;
const SERVICES: [&str; 2] = ["longshore-daemon", "longshore-supervisor"];

/// clients/load.py, which goes on until its standard input ends.
struct Load(Child);

impl Load {
    fn start(vm: &Instance, arguments: &[&str]) -> Self {
        let mut load = Command::new(target_folder().join("clients/python/bin/python"));
        load.arg(repository().join("app/cli/tests/clients/load.py"))
            .arg("busybox")
            .args(arguments)
            .env("DOCKER_HOST", vm.docker_host())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut load = load.spawn().expect("run scripts/clients first");
        // Says so when the containers that live all the time do; at a failure its output ends.
        let output = load.stdout.as_mut().expect("a pipe");
        let (mut said, mut byte) = (Vec::new(), [0]);
        while output.read(&mut byte).is_ok_and(|read| read > 0) && byte != *b"\n" {
            said.extend(byte);
        }
        println!("{}", text(&said));
        Load(load)
    }

    /// What it did; fails when it found anything wrong.
    fn end(mut self) -> String {
        drop(self.0.stdin.take());
        let output = finish_within(END, self.0, "load.py");
        common::expect_success(&output, "load.py");
        text(&output.stdout)
    }
}

fn expect_no_objects(vm: &Instance) {
    assert_eq!(vm.docker(&["ps", "-aq"]), "");
    assert_eq!(vm.docker(&["volume", "ls", "-q"]), "");
    let networks = vm.docker(&["network", "ls", "--filter", "type=custom", "-q"]);
    assert_eq!(networks, "");
}

#[test]
#[ignore = "ten minutes"]
fn a_hundred_clients_get_right_answers_and_leave_nothing() {
    let vm = shared();
    let before = Remains::after_first_use(vm);
    let mut memory = Vec::new();
    for duration in [WARM_UP, LOAD] {
        let load = Load::start(vm, &[CLIENTS]);
        std::thread::sleep(duration);
        println!("{duration:?}: {}", load.end());
        expect_no_objects(vm);
        expect_nothing_left(vm, &before);
        // What they keep when nothing happens: idle threads end first, and then the heap is given back.
        std::thread::sleep(IDLE);
        memory.push(SERVICES.map(|service| resident(vm, service)));
        println!("KiB of {SERVICES:?}: {:?}", memory.last());
    }
    for (warm, loaded) in memory[0].iter().zip(memory[1]) {
        assert!(loaded < warm + GROWTH, "memory grows: {memory:?}");
    }
}

#[test]
#[ignore = "minutes"]
fn twenty_clients_while_the_daemon_is_killed() {
    storm(&[SERVICES[0]]);
}

#[test]
#[ignore = "minutes"]
fn twenty_clients_while_the_supervisor_is_killed() {
    storm(&[SERVICES[1]]);
}

#[test]
#[ignore = "minutes"]
fn twenty_clients_while_both_are_killed() {
    storm(&SERVICES);
}

/// LONGSHORE_KILLS=100 LONGSHORE_SEED=7 for more, and for the same again.
fn storm(services: &[&str]) {
    let told = std::env::var("LONGSHORE_KILLS").ok();
    let kills = told.and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    println!("{kills} kills of {services:?}");
    let mut random = Random::seeded();
    let vm = shared();
    let before = Remains::after_first_use(vm);
    let load = Load::start(vm, &[CLIENTS_IN_A_STORM, "storm"]);
    for _ in 0..kills {
        // The moment is what is random.
        std::thread::sleep(Duration::from_millis(random.below(10_000)));
        for service in services {
            vm.guest(&format!("kill -9 $(pidof {service}) || true"));
        }
    }
    println!("{}", load.end());
    expect_no_objects(vm);
    expect_nothing_left(vm, &before);
}
