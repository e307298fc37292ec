//! The data disk moves to another folder and back, and nothing in it is lost: not when it cannot, nor when the service is killed in the middle, nor
//! when there is no room for it.

mod common;

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::small_disk::SmallDisk;
use common::{Instance, eventually, expect_success, finish_child, halt, text};

/// Another file system than the one of temporary folders, on every Linux machine with containers.
const OTHER: &str = "/dev/shm";

/// A move of the data to `folder` that has begun to copy.
fn in_the_middle_of_moving(vm: &Instance, folder: &Path) -> Child {
    let moving = vm
        .longshore_command()
        .args(["settings", "move-data"])
        .arg(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("longshore");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !folder.join("data.img.part").exists() {
        assert!(Instant::now() < deadline, "nothing is copied");
        std::thread::sleep(Duration::from_millis(1));
    }
    moving
}

#[test]
fn the_data_moves_and_nothing_is_lost() {
    let other = tempfile::Builder::new()
        .prefix("longshore-data-")
        .tempdir_in(OTHER)
        .expect("a folder on another file system");
    let vm = Instance::new();
    expect_success(
        &vm.longshore(&["settings", "set", "memory=1g", "disk=4g"]),
        "settings",
    );
    vm.start(&[]);
    vm.load("busybox");
    let write = "dd if=/dev/urandom of=/data/file bs=1M count=400 2>/dev/null; sync";
    vm.docker(&[
        "run",
        "--rm",
        "-v",
        "data:/data",
        "busybox",
        "sh",
        "-c",
        write,
    ]);
    vm.keep_running("stays");
    let sum = || {
        vm.docker(&[
            "run",
            "--rm",
            "-v",
            "data:/data",
            "busybox",
            "sha256sum",
            "/data/file",
        ])
    };
    let before = sum();
    let here = vm.home.path().join("data.img");
    let move_to = |folder: &Path| {
        let folder = folder.to_str().expect("utf-8");
        vm.longshore(&["settings", "move-data", folder])
    };

    // What cannot be is refused before anything is stopped.
    let taken = other.path().join("taken");
    std::fs::create_dir(&taken).expect("a folder");
    std::fs::write(taken.join("data.img"), "someone's").expect("a file");
    let refused = move_to(&taken);
    assert!(!refused.status.success());
    assert!(
        text(&refused.stderr).contains("already"),
        "{}",
        text(&refused.stderr)
    );
    assert_eq!(
        vm.docker(&[
            "inspect",
            "-f",
            "{{.State.Running}} {{.RestartCount}}",
            "stays"
        ]),
        "true 0"
    );
    assert_eq!(
        std::fs::read(taken.join("data.img")).expect("it"),
        b"someone's"
    );

    // The service is killed while it copies; the data is where it was.
    let away = other.path().join("away");
    let service = vm.host_pid().expect("a service");
    let moving = in_the_middle_of_moving(&vm, &away);
    // SAFETY: plain kill(2) on the service of this home, which status named a moment ago.
    unsafe { libc::kill(service, libc::SIGKILL) };
    assert!(!finish_child(moving, "move-data").status.success());
    // It may still be in the middle of a write, with its sockets open.
    let deadline = Instant::now() + Duration::from_secs(60);
    while Path::new(&format!("/proc/{service}")).exists() {
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(
        vm.home.path().join("data.moving.json").exists(),
        "it was not in the middle"
    );
    vm.start(&[]);
    assert_eq!(sum(), before);
    assert!(here.exists());
    assert_eq!(std::fs::read_dir(&away).expect("a folder").count(), 0);
    assert!(!vm.home.path().join("data.moving.json").exists());

    // Now to its end, and the engine with it.
    let moved = move_to(&away);
    expect_success(&moved, "move-data");
    assert!(!here.exists() && away.join("data.img").exists());
    assert_eq!(sum(), before);
    assert_eq!(
        vm.docker(&["inspect", "-f", "{{.State.Running}}", "stays"]),
        "true"
    );
    expect_success(&vm.longshore(&["doctor", "--store"]), "the store is whole");

    // A drive that is not there is no empty engine.
    expect_success(&vm.longshore(&["stop"]), "stop");
    let gone = other.path().join("gone");
    std::fs::rename(&away, &gone).expect("rename");
    let lost = vm.longshore(&["start"]);
    assert!(!lost.status.success());
    assert!(
        text(&lost.stderr).contains("moved to"),
        "{}",
        text(&lost.stderr)
    );
    assert!(!away.exists() && !here.exists());
    std::fs::rename(&gone, &away).expect("rename");

    // Back, of a stopped engine, which stays so.
    expect_success(&move_to(vm.home.path()), "move-data");
    assert!(here.exists() && !away.join("data.img").exists());
    assert_eq!(vm.status()["state"], "stopped");
    vm.start(&[]);
    assert_eq!(sum(), before);
}

/// The disk that it is to go to is too small, or somebody else fills it meanwhile.
#[test]
#[ignore = "minutes"]
fn the_data_stays_where_it_is_when_there_is_no_room() {
    let other = tempfile::tempdir().expect("a folder");
    let vm = Instance::new();
    let settings = ["settings", "set", "memory=1g", "disk=4g"];
    expect_success(&vm.longshore(&settings), "settings");
    vm.start(&[]);
    vm.load("busybox");
    let shell = |script: &str| {
        vm.docker(&[
            "run",
            "--rm",
            "-v",
            "data:/data",
            "busybox",
            "sh",
            "-c",
            script,
        ])
    };
    shell("dd if=/dev/urandom of=/data/file bs=1M count=400 2>/dev/null; sync");
    let before = shell("sha256sum /data/file");
    vm.keep_running("stays");
    let started = || vm.docker(&["inspect", "-f", "{{.State.StartedAt}}", "stays"]);
    let first = started();
    let nothing_there = |folder: &Path| {
        let entries = std::fs::read_dir(folder).expect("a folder").count();
        assert_eq!(entries, 0, "{}", folder.display());
        assert!(vm.home.path().join("data.img").exists());
        for file in ["data.json", "data.moving.json"] {
            assert!(!vm.home.path().join(file).exists(), "{file}");
        }
    };

    // Too small from the beginning: nothing is stopped for it.
    let small = other.path().join("small");
    std::fs::create_dir(&small).expect("a folder");
    let _small = SmallDisk::mount(&small, "200m");
    let refused = vm.longshore(&["settings", "move-data", small.to_str().expect("utf-8")]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{said}");
    let want = format!("are free on the disk of {}", small.display());
    assert!(
        said.contains("the data takes ") && said.contains(&want),
        "{said}"
    );
    assert_eq!(started(), first, "a container was stopped");
    nothing_there(&small);

    // Filled by somebody else while the data is copied: it is where it was, and what ran runs again.
    let filling = other.path().join("filling");
    std::fs::create_dir(&filling).expect("a folder");
    let disk = SmallDisk::mount(&filling, "2g");
    let service = vm.host_pid().expect("a service");
    let moving = in_the_middle_of_moving(&vm, &filling);
    // It holds still while the room is taken away.
    halt(service);
    disk.resize("300m");
    // SAFETY: plain kill(2) on the service of this home, which stands.
    unsafe { libc::kill(service, libc::SIGCONT) };
    let failed = finish_child(moving, "move-data");
    let said = text(&failed.stderr);
    assert_eq!(failed.status.code(), Some(4), "{said}");
    for expected in [
        format!(
            "the data could not be moved to {}: No space left on device",
            filling.display()
        ),
        "it is where it was, and whole".to_owned(),
    ] {
        assert!(said.contains(&expected), "{expected:?} in {said}");
    }
    nothing_there(&filling);
    assert_eq!(vm.status()["state"], "running");
    eventually("what ran runs again", || started() != first);
    assert_eq!(shell("sha256sum /data/file"), before);
    expect_success(&vm.longshore(&["doctor", "--store"]), "the store is whole");
}
