//! What work leaves behind in the guest when something is not given back: counted before and after.

use super::{Instance, eventually};

/// Everything that a leak would make grow: what it is, and a command that lists it, a line each.
const LISTS: [(&str, &str); 14] = [
    (
        "descriptors of the daemon",
        "ls /proc/$(pidof longshore-daemon)/fd",
    ),
    (
        "descriptors of the supervisor",
        "ls /proc/$(pidof longshore-supervisor)/fd",
    ),
    (
        "descriptors of the agent",
        "ls /proc/$(pidof longshore-agent)/fd",
    ),
    (
        "processes",
        "for p in /proc/[0-9]*; do readlink $p/exe; done",
    ),
    ("mounts", "cat /proc/mounts"),
    ("network namespaces", "ls /run/docker/netns"),
    ("records of sandboxes", "ls /run/docker/sandboxes"),
    ("links", "ls /sys/class/net"),
    // An element of a set or map on each line.
    (
        "rules of the packet filter",
        "nft list ruleset | tr , '\\n'",
    ),
    (
        "cgroups",
        "find /sys/fs/cgroup/docker /sys/fs/cgroup/longshore -type d",
    ),
    (
        "folders of containers",
        "find /var/lib/docker/containers /run/docker/containers /run/longshore/runtime -mindepth 1 -maxdepth 1",
    ),
    (
        "bundles of tasks",
        "find /run/containerd /var/lib/containerd/io.containerd.runtime.v2.task -mindepth 2",
    ),
    (
        "snapshots",
        "ls /var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots",
    ),
    (
        "unfinished content",
        "ls /var/lib/containerd/io.containerd.content.v1.content/ingest",
    ),
];

pub struct Remains {
    lists: Vec<Vec<String>>,
    /// The lowest address that is free goes to the next container, so one that is never given back moves it.
    next_address: String,
}

impl Remains {
    /// Now, but for what is made once, at first use: that is no leak.
    pub fn after_first_use(vm: &Instance) -> Self {
        vm.docker(&["run", "--rm", "-p", "80", "busybox", "true"]);
        let next_address = next_address(vm);
        let mut lists = Self::lists(vm);
        // What the last container leaves for a moment would hide as much.
        eventually("nothing changes any more", || {
            let before = std::mem::replace(&mut lists, Self::lists(vm));
            lists == before
        });
        Remains {
            lists,
            next_address,
        }
    }

    fn lists(vm: &Instance) -> Vec<Vec<String>> {
        let lists: Vec<String> = LISTS
            .iter()
            .map(|(_, list)| format!("{{ {list}; }} 2>/dev/null; echo ---"))
            .collect();
        let listed = vm.guest(&lists.join("\n"));
        let lines = |list: &str| list.lines().map(str::to_owned).collect();
        listed
            .trim_end_matches("---")
            .split("---\n")
            .map(lines)
            .collect()
    }

    /// What is there now and was not then, in words.
    fn grown_since(&self, vm: &Instance) -> Vec<String> {
        let mut grown = Vec::new();
        for ((what, _), (now, then)) in LISTS.iter().zip(Self::lists(vm).iter().zip(&self.lists)) {
            if now.len() > then.len() {
                let mut new = now.clone();
                new.retain(|line| !then.contains(line));
                new.truncate(5);
                let more = new.join(", ");
                grown.push(format!("{what}: {} → {} ({more} …)", then.len(), now.len()));
            }
        }
        grown
    }
}

/// Waits until nothing is there that was not there `before`: namespaces and snapshots go a moment after their containers.
pub fn expect_nothing_left(vm: &Instance, before: &Remains) {
    let mut last = Vec::new();
    eventually("everything is given back", || {
        let grown = before.grown_since(vm);
        if grown != last {
            eprintln!("{}", grown.join("\n"));
        }
        last = grown;
        last.is_empty()
    });
    assert_eq!(next_address(vm), before.next_address, "an address is kept");
}

fn next_address(vm: &Instance) -> String {
    vm.docker(&["run", "--rm", "busybox", "hostname", "-i"])
}

/// Resident memory of a program of the guest that runs once, in KiB.
pub fn resident(vm: &Instance, program: &str) -> u64 {
    kibibytes(vm, "VmRSS", &format!("$(pidof {program})"))
}

/// Greatest resident memory that a process of the guest ever had, in KiB.
pub fn peak(vm: &Instance, pid: &str) -> u64 {
    kibibytes(vm, "VmHWM", pid)
}

/// A line of /proc/PID/status.
fn kibibytes(vm: &Instance, what: &str, pid: &str) -> u64 {
    let script = format!("sed -n 's/{what}:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/{pid}/status");
    vm.guest(&script).parse().expect("a number")
}
