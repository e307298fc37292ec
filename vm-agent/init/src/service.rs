//! One service: started, found dead, started again with back-off.
//!
//! ```text
//! waiting ──► running ──► back off ──► running …
//!                │  (one-shot)
//!                ├──► done
//!                └──► failed
//! ```

use crate::cgroup;
use crate::log;
use crate::sockets::{self, Socket, SocketError};
use crate::spawn::{Program, spawn};
use crate::status::ServiceStatus;
use nix::unistd::Pid;
use std::ffi::CStr;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

/// A service that has run this long is well: its next death is answered at once.
const WELL_AFTER: Duration = Duration::from_secs(10);
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Runs for ever.
    Daemon,
    /// Runs to its end once.
    OneShot,
}

/// What the table says of a service.
pub struct Plan {
    pub name: &'static str,
    pub kind: Kind,
    pub program: &'static CStr,
    pub arguments: &'static [&'static CStr],
    pub cgroup: &'static str,
    pub sockets: &'static [Socket],
    /// A one-shot that must have ended well before.
    pub after: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Waiting,
    Running { pid: Pid, since: Instant },
    BackOff { until: Instant },
    Done,
    Failed,
}

pub struct Service {
    pub plan: &'static Plan,
    pub state: State,
    listeners: Vec<(&'static str, UnixListener)>,
    starts: u32,
    /// Deaths in a row, each soon after its start.
    deaths: u32,
    last_exit: Option<String>,
}

impl Service {
    /// Makes the sockets: from now on clients can connect, and wait.
    pub fn new(plan: &'static Plan) -> Result<Self, SocketError> {
        let listener = |(path, name): &Socket| Ok((*name, sockets::listen(path)?));
        let listeners = plan
            .sockets
            .iter()
            .map(listener)
            .collect::<Result<_, SocketError>>()?;
        let service = Self {
            plan,
            state: State::Waiting,
            listeners,
            starts: 0,
            deaths: 0,
            last_exit: None,
        };
        service.tell();
        Ok(service)
    }

    pub fn pid(&self) -> Option<Pid> {
        match self.state {
            State::Running { pid, .. } => Some(pid),
            _ => None,
        }
    }

    /// When it is to be started again, if it waits for that.
    pub fn due(&self) -> Option<Instant> {
        match self.state {
            State::BackOff { until } => Some(until),
            _ => None,
        }
    }

    pub fn start(&mut self) {
        self.starts += 1;
        let started = cgroup::open_service(self.plan.cgroup)
            .map_err(|error| error.to_string())
            .and_then(|cgroup| {
                let program = Program {
                    name: self.plan.name,
                    path: self.plan.program,
                    arguments: self.plan.arguments,
                    sockets: &self.listeners,
                    cgroup: &cgroup,
                };
                spawn(&program).map_err(|error| error.to_string())
            });
        match started {
            Ok(pid) => {
                self.state = State::Running {
                    pid,
                    since: Instant::now(),
                }
            }
            Err(error) => {
                log::error(&format!("start {}: {error}", self.plan.name));
                self.state = self.after_death(Duration::ZERO);
            }
        }
        self.tell();
    }

    /// Its process has ended; `exit` says how, `well` whether that is what a one-shot should do.
    pub fn ended(&mut self, exit: String, well: bool) {
        let State::Running { since, .. } = self.state else {
            return;
        };
        self.state = match self.plan.kind {
            Kind::OneShot if well => State::Done,
            Kind::OneShot => State::Failed,
            Kind::Daemon => self.after_death(since.elapsed()),
        };
        if !(self.plan.kind == Kind::OneShot && well) {
            log::error(&format!("{} ended: {exit}", self.plan.name));
        }
        self.last_exit = Some(exit);
        self.tell();
    }

    fn after_death(&mut self, ran: Duration) -> State {
        self.deaths = if ran >= WELL_AFTER {
            1
        } else {
            self.deaths + 1
        };
        State::BackOff {
            until: Instant::now() + back_off(self.deaths),
        }
    }

    fn tell(&self) {
        let status = ServiceStatus {
            name: self.plan.name,
            state: match self.state {
                State::Waiting => "waiting",
                State::Running { .. } => "running",
                State::BackOff { .. } => "back_off",
                State::Done => "done",
                State::Failed => "failed",
            },
            pid: self.pid().map(Pid::as_raw),
            starts: self.starts,
            last_exit: self.last_exit.as_deref(),
        };
        status.write();
    }
}

/// At once the first time, then doubling.
fn back_off(deaths: u32) -> Duration {
    match deaths {
        0 | 1 => Duration::ZERO,
        _ => (FIRST_BACK_OFF * 2u32.saturating_pow((deaths - 2).min(16))).min(LONGEST_BACK_OFF),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_death_is_answered_at_once() {
        let cases = [
            (1, 0),
            (2, 100),
            (3, 200),
            (5, 800),
            (8, 6400),
            (9, 10_000),
            (4_000_000, 10_000),
        ];
        for (deaths, milliseconds) in cases {
            assert_eq!(
                back_off(deaths),
                Duration::from_millis(milliseconds),
                "after {deaths}"
            );
        }
    }
}
