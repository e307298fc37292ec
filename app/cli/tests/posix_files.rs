//! What files do, case by case (`scripts/posix-cases`): in a container on a shared folder, while Longshore runs as an ordinary user, and on a
//! volume, which is a local ext4. Each difference is known, with its reason.

mod common;

use common::{Instance, USER, expect_success, finish_within, target_folder, text, users_folder};
use std::collections::BTreeMap;
use std::os::unix::fs::chown;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Fewer would not be the suite.
const LEAST_CASES: usize = 600;

/// What differs on a shared folder, by the beginning of the cases' names, and why.
const KNOWN: [(&str, &str); 8] = [
    (
        "O_TMPFILE, and a name for it",
        "virtiofsd has no FUSE_TMPFILE; programs fall back to a name, as on any FUSE",
    ),
    (
        "a set-user-ID program runs as its owner",
        "shares are mounted nosuid: the bit is kept and shown, and not acted on",
    ),
    (
        "open: a device",
        "shares are mounted nodev: the node is kept and shown, and not opened",
    ),
    (
        "extended attribute user.note",
        "the guest has no extended attributes on shares: the record of owners is one",
    ),
    (
        "chown: a link",
        "symbolic links on the host hold no user.* attributes: they belong to whoever asks",
    ),
    ("in a set-group-ID folder: a link", "the same"),
    (
        "sticky folder: its owner removes a link",
        "the same: the kernel takes whoever looked last for the owner, for a second",
    ),
    ("sticky folder: its owner renames a link", "the same"),
];

/// The cases as a static program, which runs in any container.
fn program() -> std::path::PathBuf {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut build = Command::new(env!("CARGO"));
    build
        .args([
            "build",
            "--release",
            "--quiet",
            "-p",
            "longshore-posix-cases",
            "--target",
            &target,
        ])
        .arg("--target-dir")
        .arg(target_folder())
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .current_dir(common::repository());
    expect_success(&build.output().expect("cargo"), "building the cases");
    target_folder()
        .join(target)
        .join("release/longshore-posix-cases")
}

/// Each case with what it found: nothing is right.
fn cases(said: &str) -> BTreeMap<String, String> {
    let verdict = |line: &str| match line.split_once(' ')? {
        ("pass", name) => Some((name.to_owned(), String::new())),
        ("fail", rest) => {
            let (name, what) = rest.rsplit_once(": ")?;
            Some((name.to_owned(), what.to_owned()))
        }
        _ => None,
    };
    said.lines().filter_map(verdict).collect()
}

#[test]
fn a_shared_folder_does_what_a_local_ext4_does_but_for_what_is_known() {
    let (home, shared) = (users_folder("home-"), users_folder("shared-"));
    let vm = Instance::of_user(home.path());
    for name in ["data", "program"] {
        let path = shared.path().join(name);
        std::fs::create_dir(&path).expect("a folder");
        chown(&path, Some(USER), Some(USER)).expect("chown");
    }
    std::fs::copy(program(), shared.path().join("program/cases")).expect("the cases");
    vm.start(&["--share", shared.path().to_str().expect("utf-8")]);
    vm.load("busybox");
    let run = |place: &str| {
        let place = format!("{place}:/data");
        let program = format!("{}:/program:ro", shared.path().join("program").display());
        let words = [
            "run",
            "--rm",
            "-v",
            &place,
            "-v",
            &program,
            "busybox",
            "/program/cases",
            "/data",
        ];
        let child = vm
            .docker_command(&words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let began = Instant::now();
        let output = finish_within(
            Duration::from_secs(600),
            child.expect("docker"),
            "the cases",
        );
        expect_success(&output, "the cases");
        let cases = cases(&text(&output.stdout));
        let passed = cases.values().filter(|what| what.is_empty()).count();
        println!(
            "{place}: {passed} of {} in {:?}",
            cases.len(),
            began.elapsed()
        );
        cases
    };
    let local = run("volume");
    let ours = run(shared.path().join("data").to_str().expect("utf-8"));
    assert!(local.len() >= LEAST_CASES, "{} cases", local.len());
    assert!(local.keys().eq(ours.keys()), "not the same cases");

    let reason = |name: &str| KNOWN.iter().find(|(known, _)| name.starts_with(known));
    let mut unknown = Vec::new();
    for (name, what) in ours.iter().filter(|(name, what)| **what != local[*name]) {
        println!("differs: {name}: {what}");
        if reason(name).is_none() {
            unknown.push(format!("{name}: {what}; on ext4: {}", local[name]));
        }
    }
    assert!(
        unknown.is_empty(),
        "unknown differences:\n{}",
        unknown.join("\n")
    );
    // On a machine that is slow enough, that second is over.
    let lasting = KNOWN
        .iter()
        .filter(|(known, _)| !known.starts_with("sticky"));
    for (known, _) in lasting {
        let still = ours
            .iter()
            .any(|(name, what)| name.starts_with(*known) && *what != local[name]);
        assert!(
            still,
            "{known} is no difference any more: take it off the list"
        );
    }
    let left = std::fs::read_dir(shared.path().join("data")).expect("the folder");
    assert_eq!(left.count(), 0, "the cases leave nothing behind");
}
