//! A container's cgroup (v2 only): its processes, its out-of-memory kills, its end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const ROOT: &str = "/sys/fs/cgroup";
/// Deeper trees than systemd in a container makes.
const MAX_DEPTH: usize = 32;

/// One cgroup folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The cgroup of a process; `None` for the root one, which is no container's.
    pub fn of_process(pid: i32) -> Option<Cgroup> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let inside = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
        (!inside.is_empty()).then(|| Cgroup::at(inside))
    }

    /// The cgroup at a path under the cgroup root.
    pub fn at(inside: &str) -> Cgroup {
        Cgroup {
            path: Path::new(ROOT).join(inside.trim_start_matches('/')),
        }
    }

    /// The path under the cgroup root.
    pub fn inside(&self) -> String {
        self.path
            .strip_prefix(ROOT)
            .unwrap_or(&self.path)
            .to_string_lossy()
            .into_owned()
    }

    /// Moves a process here.
    pub fn join(&self, pid: u32) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }

    /// Kills every process in it and below.
    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.kill"), "1")
    }

    /// The text of one of its files; empty if the controller is off.
    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path.join(file)).unwrap_or_default()
    }

    /// The number in one of its files; "max" is `u64::MAX`.
    pub fn number(&self, file: &str) -> u64 {
        match self.read(file).trim() {
            "max" => u64::MAX,
            text => text.parse().unwrap_or(0),
        }
    }

    /// All processes in it and below.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        collect_pids(&self.path, &mut pids, 0);
        pids
    }

    /// How often the kernel has killed a process here for want of memory.
    pub fn oom_kills(&self) -> u64 {
        value(&self.read("memory.events"), "oom_kill")
    }

    /// Watches for changes of `memory.events`.
    pub fn watch_memory_events(&self) -> io::Result<MemoryEvents> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        inotify.add_watch(&self.path.join("memory.events"), AddWatchFlags::IN_MODIFY)?;
        let fd = std::os::fd::OwnedFd::from(inotify);
        // SAFETY: an OwnedFd stays open and the same until the AsyncFd drops it.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        Ok(MemoryEvents(fd.map_err(io::Error::from)?))
    }
}

/// A watch of a cgroup's `memory.events`.
#[derive(Debug)]
pub struct MemoryEvents(AsyncFd<std::os::fd::OwnedFd>);

impl MemoryEvents {
    /// The next change.
    pub async fn changed(&self) -> io::Result<()> {
        let mut buffer = [0; 1024];
        let read = |fd: &std::os::fd::OwnedFd| Ok(nix::unistd::read(fd, &mut buffer)?);
        self.0.async_io(Interest::READABLE, read).await.map(drop)
    }
}

/// The value of a key in a flat keyed file (cgroup-v2.rst, "Format").
pub fn value(text: &str, key: &str) -> u64 {
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    found
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

fn collect_pids(dir: &Path, pids: &mut Vec<u32>, depth: usize) {
    if let Ok(text) = fs::read_to_string(dir.join("cgroup.procs")) {
        pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    }
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
    {
        if depth < MAX_DEPTH {
            collect_pids(&entry.path(), pids, depth + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let text = "oom 1\noom_kill 3\noom_group_kill 0\n";
        for (key, expected) in [("oom", 1), ("oom_kill", 3), ("none", 0)] {
            assert_eq!(value(text, key), expected);
        }
    }

    #[test]
    fn pids_of_a_tree() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("cgroup.procs"), "1\n2\n").unwrap();
        fs::write(dir.path().join("sub/cgroup.procs"), "3\n").unwrap();
        let cgroup = Cgroup {
            path: dir.path().to_owned(),
        };
        assert_eq!(cgroup.pids(), [1, 2, 3]);
    }
}
