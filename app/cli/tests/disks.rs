//! Data disks that this version must not touch.

mod common;

use common::{Instance, expect_success, finish, text};
use std::io::Read;
use std::path::Path;
use std::process::Command;

fn label(disk: &Path, label: &str) {
    let mut name = Command::new("tune2fs");
    name.args(["-L", label]).arg(disk);
    // Where an ordinary user's path does not have it.
    name.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    expect_success(&finish(name, "tune2fs"), "tune2fs");
}

/// Mounting writes to it.
fn beginning(disk: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let disk = std::fs::File::open(disk).expect("the disk");
    disk.take(1 << 20).read_to_end(&mut bytes).expect("read");
    bytes
}

#[test]
fn what_a_newer_version_or_another_program_wrote_is_refused_and_left_as_it_is() {
    let vm = Instance::new();
    let disk = vm.home.path().join("data.img");
    vm.start(&[]);
    vm.docker(&["volume", "create", "kept"]);
    expect_success(&vm.longshore(&["stop"]), "stop");
    for (name, words) in [
        (
            "longshore-data.2",
            "is a data disk of layout 2, made by a newer Longshore",
        ),
        ("photos", "its file system is named \"photos\""),
    ] {
        label(&disk, name);
        let before = beginning(&disk);
        let refused = vm.longshore(&["start"]);
        assert!(!refused.status.success());
        let said = text(&refused.stderr);
        assert!(said.contains(words), "{said}");
        expect_success(&vm.longshore(&["stop"]), "stop");
        assert!(beginning(&disk) == before, "{name}: it was written to");
    }
    label(&disk, "longshore-data");
    vm.start(&[]);
    assert_eq!(vm.docker(&["volume", "ls", "-q"]), "kept");
}
