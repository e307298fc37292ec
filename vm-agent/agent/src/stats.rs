//! Memory, disk and processor time of the guest and of our processes in it.

use longshore_protocol::control::{ProcessStats, Stats};
use nix::sys::statvfs::statvfs;
use nix::unistd::{SysconfVar, sysconf};

const GROUPS: [&str; 4] = ["agent", "supervisor", "daemon", "shims"];

pub fn gather() -> Stats {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let disk = statvfs("/var/lib/longshore").ok();
    let bytes = |blocks: fn(&nix::sys::statvfs::Statvfs) -> u64| {
        disk.as_ref()
            .map_or(0, |disk| blocks(disk) * disk.fragment_size())
    };
    Stats {
        memory_total_kib: field(&memory, "MemTotal:"),
        memory_available_kib: field(&memory, "MemAvailable:"),
        memory_free_kib: field(&memory, "MemFree:"),
        disk_total_bytes: bytes(|disk| disk.blocks()),
        disk_free_bytes: bytes(|disk| disk.blocks_available()),
        processes: our_processes().into_iter().filter_map(process).collect(),
    }
}

fn our_processes() -> Vec<u32> {
    let mut pids = vec![1];
    for group in GROUPS {
        let path = format!("/sys/fs/cgroup/longshore/{group}/cgroup.procs");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    }
    pids
}

/// `None` when it has ended meanwhile.
fn process(pid: u32) -> Option<ProcessStats> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
    let status = read("status").ok()?;
    let memory = read("smaps_rollup").unwrap_or_default();
    // The kernel cuts `comm` to 15 bytes; the program's path has the whole name.
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let name = program
        .as_deref()
        .and_then(|path| path.file_name()?.to_str().map(String::from));
    Some(ProcessStats {
        pid,
        name: name.unwrap_or_else(|| {
            status
                .lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("Name:\t")
                .into()
        }),
        rss_kib: field(&memory, "Rss:"),
        pss_kib: field(&memory, "Pss:"),
        threads: field(&status, "Threads:") as u32,
        cpu_ms: cpu_ms(&read("stat").ok()?),
    })
}

/// The first number behind a key.
fn field(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key));
    value
        .and_then(|value| value.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Fields 14 and 15 of /proc/PID/stat, in ticks (proc_pid_stat(5)); the second field may hold spaces and parentheses.
fn cpu_ms(stat: &str) -> u64 {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|text| text.parse::<u64>().ok())
        .sum();
    let per_second = sysconf(SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .unwrap_or(100)
        .max(1) as u64;
    ticks * 1000 / per_second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_in_their_files() {
        assert_eq!(field("MemTotal:  2048 kB\nMemFree: 1 kB\n", "MemFree:"), 1);
        assert_eq!(field("", "MemFree:"), 0);
        let stat = "12 (a) b) S 1 1 1 0 -1 4194560 10 0 0 0 150 50 0 0 20 0 1 0 5 1 1";
        let per_second = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap() as u64;
        assert_eq!(cpu_ms(stat), 200 * 1000 / per_second);
    }
}
