//! Collects the exit statuses of all children: runtimes, containers and execs.
//!
//! The shim is a subreaper, so a container's process is its child although the runtime forked it.
//! Everything runs on one thread: between a spawn and its registration nothing is reaped.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::error::{Result, Step};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, or 128 + signal.
    pub code: u32,
    pub time: SystemTime,
}

#[derive(Debug, Default)]
struct Children {
    awaited: HashMap<i32, oneshot::Sender<Exit>>,
    /// Exits of processes whose pid nobody knows yet; kept while the runtime is making some.
    unclaimed: HashMap<i32, Exit>,
    holds: usize,
}

/// Shared handle of the one reaper.
#[derive(Debug, Clone, Default)]
pub struct Reaper {
    children: Arc<Mutex<Children>>,
}

/// While it lives, exits of unknown processes are kept for [`Reaper::watch`].
#[derive(Debug)]
pub struct Hold(Reaper);

impl Drop for Hold {
    fn drop(&mut self) {
        let mut children = self.0.lock();
        children.holds -= 1;
        if children.holds == 0 {
            children.unclaimed = HashMap::new();
        }
    }
}

impl Reaper {
    fn lock(&self) -> MutexGuard<'_, Children> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps exits of unknown processes from now on.
    pub fn hold(&self) -> Hold {
        self.lock().holds += 1;
        Hold(self.clone())
    }

    /// Starts a program; the receiver gets its exit.
    pub fn spawn(&self, command: &mut Command) -> Result<(i32, oneshot::Receiver<Exit>)> {
        let name = command.get_program().to_owned();
        let child = command.spawn().at("start", name)?;
        let pid = child.id() as i32;
        Ok((pid, self.watch(pid)))
    }

    /// The exit of a child that is running or, under a [`Hold`], has just ended.
    pub fn watch(&self, pid: i32) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        let mut children = self.lock();
        match children.unclaimed.remove(&pid) {
            // The receiver is in hand, so it cannot be closed.
            Some(exit) => drop(sender.send(exit)),
            None => drop(children.awaited.insert(pid, sender)),
        }
        receiver
    }

    /// Reaps for ever.
    pub async fn run(self) -> Result<()> {
        let mut signals = signal(SignalKind::child()).step("listen for SIGCHLD")?;
        loop {
            self.reap_all();
            signals.recv().await;
        }
    }

    fn reap_all(&self) {
        loop {
            let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid.as_raw(), code as u32),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid.as_raw(), 128 + signal as u32),
                Ok(WaitStatus::StillAlive) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(_) => return,
            };
            let exit = Exit {
                code,
                time: SystemTime::now(),
            };
            let mut children = self.lock();
            match children.awaited.remove(&pid) {
                Some(sender) => drop(sender.send(exit)),
                None if children.holds > 0 => drop(children.unclaimed.insert(pid, exit)),
                // An orphan of the container that was reparented to us.
                None => {}
            }
        }
    }
}
