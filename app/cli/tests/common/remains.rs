//! What work leaves behind in the guest when something is not given back: counted before and after.

use super::{Instance, eventually};

/// Everything that a leak would make grow: what it is, and a command that lists it, a line each.
const LISTS: [(&str, &str); 12] = [
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
    ("links", "ls /sys/class/net"),
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

pub struct Remains(Vec<Vec<String>>);

impl Remains {
    /// Now, but for what is made once, at first use: that is no leak.
    pub fn after_first_use(vm: &Instance) -> Self {
        vm.docker(&["run", "--rm", "-p", "80", "busybox", "true"]);
        Self::of(vm)
    }

    pub fn of(vm: &Instance) -> Self {
        let lists: Vec<String> = LISTS
            .iter()
            .map(|(_, list)| format!("{{ {list}; }} 2>/dev/null; echo ---"))
            .collect();
        let listed = vm.guest(&lists.join("\n"));
        let lines = |list: &str| list.lines().map(str::to_owned).collect();
        Remains(
            listed
                .trim_end_matches("---")
                .split("---\n")
                .map(lines)
                .collect(),
        )
    }

    /// What is there more than `before`, in words.
    fn beyond(&self, before: &Remains) -> Vec<String> {
        let mut grown = Vec::new();
        for ((what, _), (now, then)) in LISTS.iter().zip(self.0.iter().zip(&before.0)) {
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
        let grown = Remains::of(vm).beyond(before);
        if grown != last {
            eprintln!("{}", grown.join("\n"));
        }
        last = grown;
        last.is_empty()
    });
}

/// Resident memory of a process of the guest, in KiB.
pub fn resident(vm: &Instance, program: &str) -> u64 {
    let script =
        format!("sed -n 's/VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$(pidof {program})/status");
    vm.guest(&script).parse().expect("a number")
}
