//! Who runs in the guest: init, the services, the shims, and what each shim has started.

use crate::status;
use longshore_protocol::control::{KillableService, LayerProcess, Layers};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};
use std::fs::read_to_string;
use std::time::Duration;

const GROUPS: [(&str, &str); 4] = [
    ("agent", "agent"),
    ("supervisor", "supervisor"),
    ("daemon", "daemon"),
    ("shims", "shim"),
];
/// The reply must stay within a line; nobody looks at more.
const MOST: usize = 500;
/// Of one shim.
const MOST_CHILDREN: usize = 20;
/// The longest name, in characters.
const LONGEST: usize = 128;

pub fn gather() -> Layers {
    let now_ms = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |now| Duration::from(now).as_millis() as u64);
    let mut pids = vec![(1, "init")];
    for (group, layer) in GROUPS {
        let path = format!("/sys/fs/cgroup/longshore/{group}/cgroup.procs");
        let text = read_to_string(path).unwrap_or_default();
        pids.extend(
            text.lines()
                .filter_map(|line| Some((line.parse().ok()?, layer))),
        );
    }
    let mut processes = Vec::new();
    let mut left_out = 0;
    for (pid, layer) in pids {
        let children = match layer {
            "shim" => children(pid),
            _ => Vec::new(),
        };
        if processes.len() + 1 + children.len() > MOST {
            left_out += 1 + children.len() as u32;
            continue;
        }
        processes.extend(process(pid, layer, now_ms));
        let children = children.into_iter();
        processes.extend(children.filter_map(|child| process(child, "container", now_ms)));
    }
    Layers {
        uptime_ms: now_ms,
        services: status::services(),
        processes,
        left_out,
    }
}

/// Ends a service's process as hard as can be; init starts it again.
pub fn kill_service(service: KillableService) -> anyhow::Result<()> {
    let services = status::services();
    let found = services
        .iter()
        .find(|status| status.name == service.as_str());
    let pid = found
        .and_then(|status| status.pid)
        .ok_or_else(|| anyhow::anyhow!("the {} does not run just now", service.as_str()))?;
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL)?;
    Ok(())
}

/// What a process has started, whichever of its threads did.
fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter();
    let lists = tasks
        .flatten()
        .flatten()
        .filter_map(|task| read_to_string(task.path().join("children")).ok());
    let all: Vec<u32> = lists
        .flat_map(|list| {
            let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<u32>>()
        })
        .collect();
    all.into_iter().take(MOST_CHILDREN).collect()
}

/// `None` when it has ended meanwhile.
fn process(pid: u32, layer: &str, now_ms: u64) -> Option<LayerProcess> {
    let read = |name: &str| read_to_string(format!("/proc/{pid}/{name}"));
    let stat = Stat::parse(&read("stat").ok()?)?;
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    // What a container runs is told by the name that it gives itself.
    let program = program.filter(|_| layer != "container");
    let name = program
        .as_deref()
        .and_then(|path| path.file_name()?.to_str().map(String::from))
        .unwrap_or(stat.name);
    let subject = match layer {
        "shim" => std::fs::read(format!("/proc/{pid}/cmdline"))
            .ok()
            .and_then(|line| subject(&line)),
        _ => None,
    };
    let short = |text: String| text.chars().take(LONGEST).collect::<String>();
    Some(LayerProcess {
        pid,
        parent: stat.parent,
        layer: layer.into(),
        name: short(name),
        subject: subject.map(short),
        rss_kib: stat.rss_pages * page_kib(),
        cpu_ms: milliseconds(stat.cpu_ticks),
        uptime_ms: now_ms.saturating_sub(milliseconds(stat.start_ticks)),
    })
}

/// The value of `-id` on a shim's command line.
fn subject(line: &[u8]) -> Option<String> {
    let mut words = line.split(|byte| *byte == 0);
    words.find(|word| *word == b"-id")?;
    Some(String::from_utf8_lossy(words.next()?).into_owned())
}

/// Of /proc/PID/stat (proc_pid_stat(5)); the name may hold spaces and parentheses.
struct Stat {
    name: String,
    parent: u32,
    cpu_ticks: u64,
    start_ticks: u64,
    rss_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        let (head, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // The third field is the first here.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            name: head.split_once('(')?.1.to_owned(),
            parent: number(4)? as u32,
            cpu_ticks: number(14)? + number(15)?,
            start_ticks: number(22)?,
            rss_pages: number(24)?,
        })
    }
}

fn milliseconds(ticks: u64) -> u64 {
    ticks * 1000 / system(SysconfVar::CLK_TCK, 100)
}

fn page_kib() -> u64 {
    system(SysconfVar::PAGE_SIZE, 4096) / 1024
}

fn system(variable: SysconfVar, usual: u64) -> u64 {
    let value = sysconf(variable).ok().flatten();
    value.map_or(usual, |value| value.max(1) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_from_its_files() {
        let text = "12 (a) b) S 7 1 1 0 -1 4194560 10 0 0 0 150 50 0 0 20 0 1 0 500 9999 33 1";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.name.as_str(), stat.parent), ("a) b", 7));
        assert_eq!(
            (stat.cpu_ticks, stat.start_ticks, stat.rss_pages),
            (200, 500, 33)
        );
        assert!(Stat::parse("12 (a").is_none() && Stat::parse("1 (a) S 1").is_none());
        let line = b"/usr/bin/shim\0-namespace\0moby\0-id\0abc\0";
        assert_eq!(subject(line).as_deref(), Some("abc"));
        assert_eq!(subject(b"shim\0-id"), None);
        let own = process(std::process::id(), "agent", u64::MAX).unwrap();
        assert!(own.rss_kib > 0 && own.uptime_ms > 0);
    }
}
