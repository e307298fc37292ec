//! Three hundred small containers at once in a guest of 4 GiB, and a list of five hundred that touches none of their files.

mod common;

use common::Instance;
use common::remains::{Remains, expect_nothing_left, resident};

const RUNNING: usize = 300;
const CREATED: usize = 200;
/// `docker` commands at a time.
const AT_A_TIME: usize = 8;

/// `docker ARGUMENTS --name PREFIX-N busybox sleep 10000`, many times.
fn many(vm: &Instance, arguments: &[&str], prefix: &str, count: usize) {
    std::thread::scope(|scope| {
        for lane in 0..AT_A_TIME {
            scope.spawn(move || {
                for number in (lane..count).step_by(AT_A_TIME) {
                    let name = format!("{prefix}-{number}");
                    let rest = ["--name", &name, "busybox", "sleep", "10000"];
                    vm.docker(&[arguments, &rest].concat());
                }
            });
        }
    });
}

/// System calls that name a file, which the daemon makes while `docker ARGUMENTS` runs: the kernel's own account of them.
fn files_touched(vm: &Instance, arguments: &[&str]) -> String {
    const CALLS: &str = "openat openat2 newfstatat statx readlinkat access faccessat2";
    vm.guest(&format!(
        "mount -t tracefs t /sys/kernel/tracing; cd /sys/kernel/tracing && \
         echo 1 > options/event-fork && ls /proc/$(pidof longshore-daemon)/task > set_event_pid && echo > trace && \
         for call in {CALLS}; do echo 1 > events/syscalls/sys_enter_$call/enable; done"
    ));
    vm.docker(arguments);
    // AT_EMPTY_PATH: of a file that is open anyway, such as the ring of spans.
    vm.guest(
        "cd /sys/kernel/tracing && grep sys_ trace | grep -v 'flags: 1000,' || true; \
         echo 0 > events/enable; echo > set_event_pid; cd / && umount /sys/kernel/tracing",
    )
}

#[test]
#[ignore = "minutes"]
fn three_hundred_containers_live_at_once_and_listing_touches_no_file_of_theirs() {
    let vm = Instance::with_memory("4g");
    let before = Remains::after_first_use(&vm);
    many(&vm, &["run", "-d"], "live", RUNNING);
    assert_eq!(vm.docker(&["ps", "-q"]).lines().count(), RUNNING);
    for number in [0, RUNNING / 2, RUNNING - 1] {
        let name = format!("live-{number}");
        assert_eq!(vm.docker(&["exec", &name, "echo", "here"]), "here");
    }
    println!("{}", vm.guest("free -m"));
    println!(
        "KiB: daemon {}, supervisor {}",
        resident(&vm, "longshore-daemon"),
        resident(&vm, "longshore-supervisor")
    );
    many(&vm, &["create"], "idle", CREATED);
    // That the trace sees what it is asked for.
    let touched = files_touched(&vm, &["logs", "live-0"]);
    assert!(touched.contains("openat"), "nothing was traced: {touched}");
    let list = ["ps", "-a", "--no-trunc"];
    assert_eq!(files_touched(&vm, &list), "", "docker ps touches files");
    assert_eq!(vm.docker(&["ps", "-aq"]).lines().count(), RUNNING + CREATED);
    let all = vm.docker(&["ps", "-aq"]);
    let ids: Vec<&str> = all.lines().collect();
    for some in ids.chunks(50) {
        vm.docker(&[&["rm", "-f"][..], some].concat());
    }
    expect_nothing_left(&vm, &before);
}
