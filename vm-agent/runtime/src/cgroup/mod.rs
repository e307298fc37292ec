//! One container's cgroup (version 2 only): its path, creation, freezing, killing and removal.

pub mod devices;
pub mod resources;
pub mod stats;

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::{Context, Errno, Error, Result};
use crate::sys;

pub const MOUNT: &str = "/sys/fs/cgroup";

/// The directory of a cgroup given by its path below the mount.
pub fn directory(cgroup: &str) -> PathBuf {
    Path::new(MOUNT).join(cgroup.trim_start_matches('/'))
}

fn cgroup_error(step: String) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::Cgroup {
        step,
        errno: error.into(),
    }
}

/// Resolves `linux.cgroupsPath` as runc's cgroupfs driver does: absolute below the mount, else
/// beside our own cgroup (not below it: a cgroup with processes cannot have controllers for
/// children); the container's ID when empty.
pub fn resolve(cgroups_path: &str, id: &str) -> Result<String> {
    let clean = |path: &str| -> Result<String> {
        let mut parts = Vec::new();
        for part in path
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
        {
            if part == ".." {
                return Err(Error::Config(format!(
                    "cgroupsPath {path:?} must not contain .."
                )));
            }
            parts.push(part);
        }
        Ok(format!("/{}", parts.join("/")))
    };
    if cgroups_path.starts_with('/') {
        return clean(cgroups_path);
    }
    let name = if cgroups_path.is_empty() {
        id
    } else {
        cgroups_path
    };
    let own = of_process("self").unwrap_or_default();
    let parent = own.rsplit_once('/').map_or("", |(parent, _)| parent);
    clean(&format!("{parent}/{name}"))
}

/// The cgroup that a process is in ("self" or a number), below the mount.
pub fn of_process(pid: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(str::to_owned)
}

/// Makes the cgroup with every available controller switched on, and opens it for
/// CLONE_INTO_CGROUP.
pub fn create(cgroup: &str) -> Result<OwnedFd> {
    let path = directory(cgroup);
    if let Err(error) = fs::create_dir(&path)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        fs::create_dir_all(&path).map_err(cgroup_error(format!("mkdir {}", path.display())))?;
    }
    enable_controllers(&path);
    open(cgroup).map_err(|errno| Error::Cgroup {
        step: format!("open {}", path.display()),
        errno,
    })
}

pub fn open(cgroup: &str) -> std::result::Result<OwnedFd, Errno> {
    sys::open(&directory(cgroup), libc::O_RDONLY | libc::O_DIRECTORY)
}

/// Switches controllers on from the top down, unless they already are. What cannot be switched
/// on (threaded or busy ancestors) shows when a limit that needs it is written.
fn enable_controllers(path: &Path) {
    let list =
        |path: &Path| fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
    let root = Path::new(MOUNT);
    let wanted = list(root);
    if list(path).split_ascii_whitespace().count() == wanted.split_ascii_whitespace().count() {
        return;
    }
    let mut ancestors: Vec<_> = path
        .ancestors()
        .skip(1)
        .take_while(|dir| dir.starts_with(root))
        .collect();
    ancestors.reverse();
    for dir in ancestors {
        let request: Vec<_> = wanted
            .split_ascii_whitespace()
            .map(|name| format!("+{name}"))
            .collect();
        let file = dir.join("cgroup.subtree_control");
        if fs::write(&file, request.join(" ")).is_err() {
            // One that is refused must not cost the others.
            for one in &request {
                let _ = fs::write(&file, one);
            }
        }
    }
}

/// Reads one of the cgroup's files; None when the controller is not there.
pub fn read(cgroup: &str, file: &str) -> Option<String> {
    fs::read_to_string(directory(cgroup).join(file)).ok()
}

fn event(cgroup: &str, name: &str) -> Option<bool> {
    let text = read(cgroup, "cgroup.events")?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(value == "1")
}

pub fn is_frozen(cgroup: &str) -> bool {
    read(cgroup, "cgroup.freeze").is_some_and(|value| value.trim() == "1")
}

/// Freezes or thaws, and waits until the kernel says that it is so.
pub fn set_frozen(cgroup: &str, frozen: bool) -> Result<()> {
    let path = directory(cgroup).join("cgroup.freeze");
    fs::write(&path, if frozen { "1" } else { "0" })
        .map_err(cgroup_error(format!("write {}", path.display())))?;
    wait_for(cgroup, "frozen", frozen, 10)
}

/// Waits on `cgroup.events` (POLLPRI on change) until a value is reached.
fn wait_for(cgroup: &str, name: &str, value: bool, seconds: i32) -> Result<()> {
    let path = directory(cgroup).join("cgroup.events");
    let Ok(events) = sys::open(&path, libc::O_RDONLY) else {
        return Ok(());
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(seconds as u64);
    loop {
        // The descriptor must be read before each poll to arm it for the next change.
        let mut buffer = [0u8; 256];
        let _ = sys::read(events.as_raw_fd(), &mut buffer);
        if event(cgroup, name).is_none_or(|now| now == value) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return Err(Error::Cgroup {
                step: format!("wait for {name} {} in {}", u8::from(value), path.display()),
                errno: Errno(libc::ETIMEDOUT),
            });
        }
        let mut poll = [libc::pollfd {
            fd: events.as_raw_fd(),
            events: libc::POLLPRI,
            revents: 0,
        }];
        sys::poll(&mut poll, left.as_millis() as i32).step(|| "poll cgroup.events".to_owned())?;
    }
}

/// SIGKILL for every process in the cgroup and below, forks included (Linux 5.14).
pub fn kill_all(cgroup: &str) -> Result<()> {
    let path = directory(cgroup).join("cgroup.kill");
    match fs::write(&path, "1") {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(cgroup_error(format!("write {}", path.display()))),
    }
}

/// The processes in the cgroup and below.
pub fn processes(cgroup: &str) -> Vec<i32> {
    let mut pids = Vec::new();
    collect_processes(&directory(cgroup), &mut pids);
    pids.sort_unstable();
    pids
}

fn collect_processes(dir: &Path, pids: &mut Vec<i32>) {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for child in children(dir) {
        collect_processes(&child, pids);
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Removes the cgroup and what was made below it, killing what still lives there.
pub fn remove(cgroup: &str) -> Result<()> {
    let path = directory(cgroup);
    if path == Path::new(MOUNT) || remove_tree(&path).is_ok() {
        return Ok(());
    }
    if event(cgroup, "populated") == Some(true) {
        kill_all(cgroup)?;
        // A frozen cgroup's processes die all the same: SIGKILL wakes them (cgroup v2).
        wait_for(cgroup, "populated", false, 10)?;
    }
    remove_tree(&path).map_err(cgroup_error(format!("rmdir {}", path.display())))
}

fn remove_tree(dir: &Path) -> std::io::Result<()> {
    match fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    for child in children(dir) {
        remove_tree(&child)?;
    }
    fs::remove_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_are_cleaned_and_cannot_climb() {
        assert_eq!(resolve("/docker/abc", "abc").unwrap(), "/docker/abc");
        assert_eq!(resolve("//a/./b/", "x").unwrap(), "/a/b");
        assert!(resolve("/a/../../b", "x").is_err());
        assert!(resolve("a/../b", "x").is_err());
    }

    #[test]
    fn relative_paths_and_none_end_with_the_name() {
        assert!(resolve("", "abc").unwrap().ends_with("/abc"));
        assert!(resolve("pod/abc", "x").unwrap().ends_with("/pod/abc"));
    }
}
