//! The power goes at any moment: what was acknowledged is there afterwards, and whole.
//!
//! A killed QEMU proves nothing, as the host keeps what it wrote. So QEMU records each write and flush, and the disk is put together
//! again as it may have been at a moment: all that was flushed before, and of the rest nothing, or any part.

mod common;

use common::cold_engine::ColdEngine;
use common::journal::{Fact, Journal, Shown};
use common::random::Random;
use common::recorded_disk::{Entry, Record, Recorder, Replay, Unflushed};
use common::registry::Registry;
use common::{Instance, expect_success, text};
use std::io::Read;

const DISK: u64 = 1 << 30;
/// Moments of the first boot.
const BEGINNINGS: usize = 10;
/// Where ext4's label is.
const LABEL: usize = 1024 + 0x78;

/// What one client does, and notes.
struct Client<'a> {
    vm: &'a Instance,
    journal: Journal<'a>,
    pulled: String,
}

impl Client<'_> {
    fn load(&mut self) {
        self.vm.load("busybox");
        self.journal
            .acknowledged(Fact::Image("busybox:latest".into()));
    }

    /// Makes one of each, and takes away what round `old` made.
    fn round(&mut self, round: usize, old: Option<usize>) {
        let name = |kind: &str| format!("{kind}{round}");
        let (volume, container, image) = (name("volume"), name("container"), name("image"));
        self.vm.docker(&["pull", "-q", &self.pulled]);
        self.journal.acknowledged(Fact::Image(self.pulled.clone()));

        self.vm.docker(&["volume", "create", &volume]);
        self.journal.acknowledged(Fact::Volume(volume.clone()));
        let mount = format!("{volume}:/data");
        let script = format!("echo -n {volume} > /data/file && sync");
        self.vm
            .docker(&["run", "--rm", "-v", &mount, "busybox", "sh", "-c", &script]);
        self.journal
            .acknowledged(Fact::Written(volume.clone(), volume));

        let script = format!("echo made by {container} > /made; sync; exit 3");
        self.vm.docker(&[
            "run", "-d", "--name", &container, "busybox", "sh", "-c", &script,
        ]);
        self.vm.docker(&["wait", &container]);
        self.journal
            .acknowledged(Fact::Exited(container.clone(), 3));
        let made = format!("made by {container}");
        self.journal
            .acknowledged(Fact::File(container.clone(), "/made".into(), made.clone()));

        self.vm.docker(&["commit", &container, &image]);
        self.journal
            .acknowledged(Fact::Image(format!("{image}:latest")));
        self.journal
            .acknowledged(Fact::Unpacked(image.clone(), "/made".into(), made));
        let network = name("network");
        self.vm.docker(&["network", "create", &network]);
        self.journal.acknowledged(Fact::Network(network));

        let Some(old) = old else { return };
        let [container, volume, image] =
            ["container", "volume", "image"].map(|kind| format!("{kind}{old}"));
        self.journal.removes(|fact| match fact {
            Fact::Exited(name, _) | Fact::File(name, _, _) => *name == container,
            Fact::Volume(name) | Fact::Written(name, _) => *name == volume,
            Fact::Image(name) => *name == format!("{image}:latest") || *name == self.pulled,
            Fact::Unpacked(name, _, _) => *name == image,
            Fact::Network(_) => false,
        });
        self.vm.docker(&["rm", &container]);
        self.vm.docker(&["volume", "rm", &volume]);
        self.vm.docker(&["rmi", &image, &self.pulled]);
    }

    fn prune(&mut self) {
        self.journal.removes(|_| true);
        self.vm.docker(&["system", "prune", "-af", "--volumes"]);
        self.vm.docker(&["volume", "prune", "-af"]);
    }
}

/// A moment of the record: so many entries have been made.
type Moment = (usize, Unflushed);

/// Up to `most` moments: each acknowledgement with nothing kept that no flush had covered, then flushes, and moments between with
/// any part kept.
fn moments(
    record: &Record,
    journal: &Journal,
    begin: u64,
    most: usize,
    random: &mut Random,
) -> Vec<Moment> {
    let entries = &record.entries;
    let reached = |position: u64| entries.partition_point(|entry| entry.position < position);
    let first = reached(begin);
    let all: Vec<usize> = (first..=entries.len()).collect();
    let flushes: Vec<usize> = (first..entries.len())
        .filter(|at| entries[*at].is_flush())
        .map(|at| at + 1)
        .collect();
    let mut chosen: Vec<Moment> = Vec::new();
    let acknowledged: Vec<usize> = journal
        .moments()
        .map(reached)
        .filter(|at| *at >= first)
        .collect();
    for (from, unflushed, share) in [
        (&acknowledged, Unflushed::Lost, 3),
        (&flushes, Unflushed::Lost, 6),
        (&all, Unflushed::Random, 1),
    ] {
        let wanted = (most / share).min(most - chosen.len().min(most));
        let mut left = from.clone();
        for _ in 0..wanted.min(left.len()) {
            let at = random.below(left.len() as u64) as usize;
            chosen.push((left.swap_remove(at), unflushed));
        }
    }
    chosen.sort_by_key(|(at, _)| *at);
    chosen
}

/// What is wrong on a disk that was cut here, a line each.
fn examine(engine: &ColdEngine, journal: &Journal, position: u64) -> Vec<String> {
    let shown = match Shown::ask(engine) {
        Ok(shown) => shown,
        Err(error) => return vec![error],
    };
    let store = engine.store();
    let mut wrong: Vec<String> = match store["Problems"].as_array() {
        Some(problems) => problems
            .iter()
            .map(|line| format!("store: {line}"))
            .collect(),
        None => vec![format!("the store cannot be looked at: {}", engine.log())],
    };
    let lost = journal
        .due(position)
        .filter(|fact| !shown.has(engine, fact));
    wrong.extend(lost.map(|fact| format!("acknowledged and lost: {fact:?}")));
    // What was not acknowledged may be there or not, but no half of it.
    for name in shown.containers() {
        let copied = engine.docker(&["cp", &format!("{name}:/bin/busybox"), "-"]);
        if copied.stdout.len() < 500_000 {
            let error = text(&copied.stderr);
            wrong.push(format!(
                "container {name} has no whole /bin/busybox: {error}"
            ));
        }
    }
    wrong
}

/// Moments of the first boot, before the engine runs: whatever is on the disk, the next boot can begin with it.
fn examine_the_beginning(record: &Record, begin: u64, random: &mut Random) -> Vec<String> {
    let reached = record
        .entries
        .partition_point(|entry| entry.position < begin);
    let mut moments: Vec<usize> = (0..BEGINNINGS)
        .map(|_| random.below(reached as u64) as usize)
        .collect();
    moments.sort_unstable();
    let mut replay = Replay::new(record, DISK);
    let mut wrong = Vec::new();
    for moment in moments {
        let disk = replay.cut(moment, Unflushed::Random, random);
        let mut head = vec![0; 128 << 10];
        let read = std::fs::File::open(&disk).and_then(|mut disk| disk.read_exact(&mut head));
        read.expect("the disk");
        let label = text(&head[LABEL..LABEL + 16]);
        match label.trim_end_matches('\0') {
            "longshore-new" => {}
            "longshore-data" => {
                let engine = ColdEngine::start(&disk);
                wrong.extend(Shown::ask(&engine).err());
            }
            "" if head.iter().all(|byte| *byte == 0) => {}
            other => wrong.push(format!(
                "after {moment} writes: nobody's disk, label {other:?}"
            )),
        }
    }
    wrong
}

fn cut_the_power(rounds: usize, points: usize) {
    let mut random = Random::seeded();
    let recorder = Recorder::new();
    let registry = Registry::start();
    registry.push("layers");
    let mut vm = Instance::new();
    vm.environment.push(("LONGSHORE_QEMU", recorder.qemu()));
    let insecure = format!("insecure_registries+={}", registry.host());
    let set = vm.longshore(&["settings", "set", "disk=1g", &insecure]);
    expect_success(&set, "settings");
    vm.start(&[]);
    let begin = recorder.position();
    let mut client = Client {
        vm: &vm,
        journal: Journal::new(&recorder),
        pulled: format!("{}/layers:1", registry.host()),
    };
    for part in 0..2 {
        client.load();
        for round in 0..rounds {
            let first = part * rounds;
            client.round(first + round, round.checked_sub(2).map(|old| first + old));
        }
        client.prune();
    }
    let journal = client.journal;
    expect_success(&vm.longshore(&["stop"]), "longshore stop");

    let record = recorder.read();
    let chosen = moments(&record, &journal, begin, points, &mut random);
    let mut found = examine_the_beginning(&record, begin, &mut random);
    let mut replay = Replay::new(&record, DISK);
    let mut checked = 0;
    for (reached, unflushed) in &chosen {
        let position = record
            .entries
            .get(*reached)
            .map_or(u64::MAX, |entry: &Entry| entry.position);
        let disk = replay.cut(*reached, *unflushed, &mut random);
        let engine = ColdEngine::start(&disk);
        checked += journal.due(position).count();
        for wrong in examine(&engine, &journal, position) {
            found.push(format!(
                "after {reached} writes, unflushed ones {unflushed:?}: {wrong}"
            ));
        }
    }
    println!(
        "{} points of {} recorded writes and flushes, {checked} acknowledged things looked for, {} wrong",
        chosen.len(),
        record.entries.len(),
        found.len()
    );
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn what_was_acknowledged_outlives_a_power_cut() {
    cut_the_power(1, 24);
}

#[test]
#[ignore = "minutes"]
fn what_was_acknowledged_outlives_a_power_cut_at_every_step() {
    cut_the_power(4, 300);
}
