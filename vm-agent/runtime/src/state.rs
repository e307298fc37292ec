//! What is remembered of a container under `--root/ID`, and the status derived from it.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Errno, Error, Result};
use crate::spec::{Hooks, Namespace, Process};
use crate::sys;

/// The file `state.json`. Everything that a later command needs is in it, so that nobody reads
/// the bundle again: its owner may have changed it since.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub oci_version: String,
    pub id: String,
    pub pid: i32,
    /// Field 22 of /proc/PID/stat: tells the process from a later one with the same number.
    pub start_time: u64,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    pub created: String,
    /// Below the cgroup mount, with a leading slash.
    pub cgroup: String,
    pub namespaces: Vec<Namespace>,
    pub process: Process,
    pub hooks: Hooks,
    pub annotations: BTreeMap<String, String>,
    /// SECCOMP_FILTER_FLAG_* for the program beside this file, if there is one.
    pub seccomp_flags: Option<u64>,
    pub new_keyring: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// The state that `state` prints and hooks read (runtime-spec, runtime.md, "State").
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report<'a> {
    pub oci_version: &'a str,
    pub id: &'a str,
    pub pid: i32,
    pub status: &'a str,
    pub bundle: &'a Path,
    pub rootfs: &'a Path,
    pub created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
    pub owner: &'a str,
}

/// A container's directory under the root.
pub struct Directory {
    pub path: PathBuf,
}

impl Directory {
    pub fn of(root: &str, id: &str) -> Self {
        Directory {
            path: Path::new(root).join(id),
        }
    }

    /// Makes the directory; that it did not exist before is what makes an ID unique.
    pub fn create(root: &str, id: &str) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let directory = Directory::of(root, id);
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        match builder.create(&directory.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                fs::create_dir_all(root).step(|| format!("mkdir {root}"))?;
                builder.create(&directory.path)
            }
            result => result,
        }
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::Exists,
            _ => Error::Step {
                step: format!("mkdir {}", directory.path.display()),
                errno: error.into(),
            },
        })?;
        Ok(directory)
    }

    pub fn fifo(&self) -> PathBuf {
        self.path.join("exec.fifo")
    }

    pub fn seccomp_program(&self) -> PathBuf {
        self.path.join("seccomp.bpf")
    }

    /// Serialises commands that change the container; released when the descriptor closes.
    pub fn lock(&self) -> Result<OwnedFd> {
        let fd = sys::open(&self.path, libc::O_RDONLY | libc::O_DIRECTORY)
            .map_err(|errno| self.missing(errno))?;
        sys::lock_exclusive(fd.as_raw_fd()).step(|| format!("lock {}", self.path.display()))?;
        Ok(fd)
    }

    fn missing(&self, errno: Errno) -> Error {
        match errno {
            Errno(libc::ENOENT) => Error::NotExist,
            errno => Error::Step {
                step: format!("open {}", self.path.display()),
                errno,
            },
        }
    }

    pub fn load(&self) -> Result<State> {
        let path = self.path.join("state.json");
        let bytes = fs::read(&path).map_err(|error| self.missing(error.into()))?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Parse {
            path: path.display().to_string(),
            reason: error.to_string(),
        })
    }

    /// Becomes visible whole or not at all. No fsync: `--root` is a tmpfs, and after a power cut
    /// there is no container left to describe.
    pub fn save(&self, state: &State) -> Result<()> {
        let text = serde_json::to_vec(state).map_err(|error| Error::Parse {
            path: "state.json".to_owned(),
            reason: error.to_string(),
        })?;
        write_atomically(&self.path.join("state.json"), &text)
    }

    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).step(|| format!("remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    pub fn status(&self, state: &State) -> Status {
        if state.pid <= 0 || start_time(state.pid) != Some(state.start_time) {
            Status::Stopped
        } else if crate::cgroup::is_frozen(&state.cgroup) {
            Status::Paused
        } else if self.fifo().exists() {
            Status::Created
        } else {
            Status::Running
        }
    }
}

/// Writes a file that appears with its whole content or not at all.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    fs::write(&temporary, content).step(|| format!("write {}", temporary.display()))?;
    fs::rename(&temporary, path).step(|| format!("rename to {}", path.display()))
}

impl State {
    pub fn report<'a>(&'a self, status: Status) -> Report<'a> {
        Report {
            oci_version: &self.oci_version,
            id: &self.id,
            pid: if status == Status::Stopped {
                0
            } else {
                self.pid
            },
            status: status.name(),
            bundle: &self.bundle,
            rootfs: &self.rootfs,
            created: &self.created,
            annotations: &self.annotations,
            owner: "",
        }
    }

    /// Whether the container's first process is PID 1 of a namespace of its own, so that its end
    /// ends all the others.
    pub fn owns_pid_namespace(&self) -> bool {
        self.namespaces
            .iter()
            .any(|namespace| namespace.kind == "pid" && namespace.path.is_empty())
    }
}

/// When a living process was started, in clock ticks since boot; None for one that is gone or a
/// zombie.
pub fn start_time(pid: i32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The command name may hold spaces and parentheses: fields count from the last parenthesis.
fn parse_stat(stat: &str) -> Option<u64> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let living = !matches!(fields.next()?, "Z" | "X" | "x");
    fields.nth(18)?.parse().ok().filter(|_| living)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_fields_survive_odd_names() {
        let rest = "1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1000 1";
        assert_eq!(parse_stat(&format!("42 (a) b (c)) S {rest}")), Some(777));
        assert_eq!(parse_stat(&format!("42 (x) Z {rest}")), None);
        assert_eq!(parse_stat("42 (x"), None);
        assert_eq!(parse_stat("42 (x) S 1 2"), None);
    }

    #[test]
    fn own_start_time_is_known() {
        assert!(start_time(std::process::id() as i32).is_some());
        assert_eq!(start_time(i32::MAX), None);
    }
}
