//! One process of the container, its init or an exec, and its states.
//!
//! ```text
//!            start             pause
//! Created ──────────▶ Running ◀─────▶ Paused      (only init is paused)
//!    │                   │               │
//!    └───────────────────┴───────────────┴──▶ Stopped ──▶ deleted
//!                      exit
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};

use containerd_shim_protos::types::task::Status as WireStatus;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokio::sync::{Mutex as AsyncMutex, watch};

use crate::error::{Error, Result, Step};
use crate::reaper::Exit;
use crate::runtime::ChildStdio;
use crate::stdio::{Stdio, StdioSpec};

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }

    pub fn wire(self) -> WireStatus {
        match self {
            Status::Created => WireStatus::CREATED,
            Status::Running => WireStatus::RUNNING,
            Status::Paused => WireStatus::PAUSED,
            Status::Stopped => WireStatus::STOPPED,
        }
    }
}

#[derive(Debug)]
struct State {
    pid: i32,
    status: Status,
}

/// A process of the container.
#[derive(Debug)]
pub struct Process {
    /// Empty for the container's init.
    pub exec_id: String,
    pub spec: StdioSpec,
    /// OCI `Process` JSON of an exec.
    pub exec_spec: Vec<u8>,
    /// Held by start and by the handling of the exit, so that events keep their order.
    pub gate: AsyncMutex<()>,
    pub stdio: AsyncMutex<Stdio>,
    /// The child's descriptors of an exec that has not been started.
    child_stdio: Mutex<Option<ChildStdio>>,
    state: Mutex<State>,
    exit: watch::Sender<Option<Exit>>,
}

impl Process {
    pub fn new(
        exec_id: &str,
        spec: StdioSpec,
        stdio: Stdio,
        child_stdio: Option<ChildStdio>,
        exec_spec: Vec<u8>,
    ) -> Process {
        Process {
            exec_id: exec_id.to_owned(),
            spec,
            exec_spec,
            gate: AsyncMutex::new(()),
            stdio: AsyncMutex::new(stdio),
            child_stdio: Mutex::new(child_stdio),
            state: Mutex::new(State {
                pid: 0,
                status: Status::Created,
            }),
            exit: watch::Sender::new(None),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn status(&self) -> Status {
        self.state().status
    }

    pub fn set_status(&self, status: Status) {
        self.state().status = status;
    }

    /// 0 before the process exists.
    pub fn pid(&self) -> i32 {
        self.state().pid
    }

    pub fn set_pid(&self, pid: i32) {
        self.state().pid = pid;
    }

    pub fn take_child_stdio(&self) -> Option<ChildStdio> {
        self.child_stdio
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// The exit, if it has ended.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    pub fn set_exit(&self, exit: Exit) {
        self.set_status(Status::Stopped);
        self.exit.send_replace(Some(exit));
    }

    /// Waits for the exit.
    pub async fn wait(&self) -> Result<Exit> {
        let mut exit = self.exit.subscribe();
        let found = exit
            .wait_for(Option::is_some)
            .await
            .map_err(std::io::Error::other);
        let found = *found.step("wait for the process")?;
        Ok(found.unwrap_or(Exit {
            code: 255,
            time: std::time::SystemTime::now(),
        }))
    }

    /// Fails unless the process is in one of `allowed`.
    pub fn expect(&self, action: &'static str, allowed: &[Status]) -> Result<()> {
        let status = self.status();
        match allowed.contains(&status) {
            true => Ok(()),
            false => Err(Error::WrongState {
                action,
                status: status.name(),
            }),
        }
    }

    /// Sends a signal. The process is our child and not reaped, so its pid is its own.
    pub fn kill(&self, signal: u32) -> Result<()> {
        let pid = self.pid();
        let gone = || Error::NotFound {
            what: "process",
            id: self.exec_id.clone(),
        };
        if pid <= 0 {
            return self.expect("kill", &[]);
        }
        if self.status() == Status::Stopped {
            return Err(gone());
        }
        // SAFETY: kill only takes numbers; nix's own wrapper knows no realtime signals.
        let sent = unsafe { libc::kill(pid, signal as i32) };
        match Errno::result(sent) {
            Ok(_) => Ok(()),
            Err(Errno::ESRCH) => Err(gone()),
            Err(errno) => Err(errno).step("send the signal"),
        }
    }

    /// True while the kernel knows the process.
    pub fn exists(&self) -> bool {
        self.pid() > 0 && kill(Pid::from_raw(self.pid()), None).is_ok()
    }
}
