//! The VM's size is changed again and again, and everything in it stays.

mod common;

use common::random::Random;
use common::{Instance, expect_success};

/// The data disk only grows; so it begins small.
const FIRST_DISK: u64 = 1;

fn change_again_and_again(times: usize) {
    let mut random = Random::seeded();
    let vm = Instance::new();
    let first = format!("disk={FIRST_DISK}g");
    expect_success(&vm.longshore(&["settings", "set", &first]), "settings");
    vm.start(&[]);
    vm.load("busybox");
    let write = "dd if=/dev/urandom of=/data/file bs=1M count=20 && echo kept > /kept";
    vm.docker(&[
        "run",
        "--name",
        "keeper",
        "-v",
        "data:/data",
        "busybox",
        "sh",
        "-c",
        write,
    ]);
    vm.docker(&["commit", "keeper", "made"]);
    let sum = |vm: &Instance| {
        vm.docker(&[
            "run",
            "--rm",
            "-v",
            "data:/data",
            "made",
            "sh",
            "-c",
            "cat /kept; sha256sum /data/file",
        ])
    };
    let before = sum(&vm);
    let mut disk = FIRST_DISK;
    for time in 0..times {
        let (cpus, memory) = (1 + random.below(4), 512 + 256 * random.below(5));
        disk += random.below(3);
        let settings = [
            format!("cpus={cpus}"),
            format!("memory={memory}m"),
            format!("disk={disk}g"),
        ];
        let mut set = vec!["settings", "set"];
        set.extend(settings.iter().map(String::as_str));
        expect_success(&vm.longshore(&set), "settings");
        expect_success(&vm.longshore(&["restart"]), "restart");
        let what = format!("change {time}: {settings:?}");
        assert_eq!(sum(&vm), before, "{what}");
        assert!(vm.docker(&["ps", "-a"]).contains("keeper"), "{what}");
        let found = vm.guest("nproc; df -k /var/lib/longshore | tail -1 | awk '{print $2}'");
        let (processors, size) = found.split_once('\n').expect("two lines");
        assert_eq!(processors, cpus.to_string(), "{what}");
        let size: u64 = size.parse().expect("KiB");
        // Tables and the journal take their part.
        assert!(size > (disk << 20) * 8 / 10, "{what}: {size} KiB");
    }
    expect_success(&vm.longshore(&["doctor", "--store"]), "the store is whole");
}

#[test]
fn what_is_in_the_vm_outlives_changes_of_its_size() {
    change_again_and_again(2);
}

#[test]
#[ignore = "minutes"]
fn what_is_in_the_vm_outlives_fifty_changes_of_its_size() {
    change_again_and_again(50);
}
