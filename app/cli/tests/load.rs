//! A hundred clients at once for minutes, then twenty while the engine's processes are killed: every answer right, and
//! nothing left of it afterwards.

mod common;

use common::load::{Load, expect_no_objects};
use common::random::{Random, kills};
use common::remains::{Remains, expect_nothing_left, resident};
use common::shared;
use std::time::Duration;

/// Two containers of each client live all the time.
const CLIENTS: &str = "100";
const CLIENTS_IN_A_STORM: &str = "20";
/// Before memory is looked at for the first time, and then until the second.
const WARM_UP: Duration = Duration::from_secs(60);
const LOAD: Duration = Duration::from_secs(240);
const IDLE: Duration = Duration::from_secs(30);
/// What memory may grow by from a minute of load to four more, in KiB: allocators do not give back at once.
const GROWTH: u64 = 8 << 10;
const SERVICES: [&str; 2] = ["longshore-daemon", "longshore-supervisor"];

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
    let kills = kills();
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
