//! What can go wrong, in the words that Docker's clients know from runc.

use std::fmt;
use std::io;

pub type Result<T> = std::result::Result<T, Error>;

/// An errno that prints as Go's `syscall.Errno` does ("no such file or directory"): Docker's
/// client and daemon look for those words when they choose the exit codes 126 and 127.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    pub fn last() -> Self {
        io::Error::last_os_error().into()
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        Errno(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = io::Error::from_raw_os_error(self.0).to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        f.write_str(&text.to_lowercase())
    }
}

impl std::error::Error for Errno {}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Usage(String),
    #[error("invalid container ID format: {0:?}")]
    InvalidId(String),
    #[error("container with given ID already exists")]
    Exists,
    #[error("container does not exist")]
    NotExist,
    #[error("container not running")]
    NotRunning,
    #[error("cannot {verb} a container in the {status} state")]
    WrongState {
        verb: &'static str,
        status: &'static str,
    },
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped { id: String, status: &'static str },
    #[error("{path}: {reason}")]
    Parse { path: String, reason: String },
    #[error("{0}")]
    Config(String),
    #[error("{step}: {errno}")]
    Step { step: String, errno: Errno },
    #[error("unable to apply cgroup configuration: {step}: {errno}")]
    Cgroup { step: String, errno: Errno },
    #[error("error setting cgroup config for procHooks process: {step}: {errno}")]
    CgroupSet { step: String, errno: Errno },
    #[error("error mounting {source_name:?} to rootfs at {destination:?}: {reason}")]
    Mount {
        source_name: String,
        destination: String,
        reason: String,
    },
    #[error("exec: {name:?}: {reason}")]
    Lookup { name: String, reason: String },
    #[error("exec {path}: {errno}")]
    Exec { path: String, errno: Errno },
    #[error("chdir to cwd ({cwd:?}) set in config.json failed: {reason}")]
    Cwd { cwd: String, reason: String },
    #[error("seccomp: {0}")]
    Seccomp(String),
    #[error("error running {kind} hook #{index}: {reason}")]
    Hook {
        kind: &'static str,
        index: usize,
        reason: String,
    },
    /// What the container's first process reported before it could execute the command.
    #[error("unable to start container process: error during container init: {0}")]
    Init(String),
    /// The same for `exec`, where runc has no words around it.
    #[error("{0}")]
    Child(String),
    /// What the parent failed at while it was bringing up a container or an exec.
    #[error("unable to start container process: {0}")]
    Start(Box<Error>),
    #[error("{program} {verb} failed: {cause}")]
    Command {
        program: &'static str,
        verb: &'static str,
        cause: Box<Error>,
    },
    #[error("exec failed: {0}")]
    ExecCommand(Box<Error>),
}

/// Names the step at which a system call failed.
pub trait Context<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Errno>> Context<T> for std::result::Result<T, E> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Step {
            step: step(),
            errno: error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_speaks_as_go_does() {
        assert_eq!(Errno(libc::ENOENT).to_string(), "no such file or directory");
        assert_eq!(Errno(libc::EACCES).to_string(), "permission denied");
        assert_eq!(Errno(libc::ENOEXEC).to_string(), "exec format error");
    }
}
