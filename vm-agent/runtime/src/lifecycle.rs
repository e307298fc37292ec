//! Commands on a container that exists: start, kill, delete, pause, resume, and what they undo.

use std::io::Write;
use std::os::fd::AsRawFd;

use crate::cli::Invocation;
use crate::create::state_json;
use crate::error::{Context, Errno, Error, Result};
use crate::state::{Directory, State, Status, start_time};
use crate::{cgroup, hooks, sys};

pub fn start(call: &Invocation) -> Result<i32> {
    let directory = Directory::of(&call.global.root, call.id()?);
    let _lock = directory.lock()?;
    let state = directory.load()?;
    match directory.status(&state) {
        Status::Created => {}
        Status::Stopped => {
            return Err(Error::Config(
                "cannot start a container that has stopped".to_owned(),
            ));
        }
        Status::Running => {
            return Err(Error::Config(
                "cannot start an already running container".to_owned(),
            ));
        }
        status => {
            return Err(Error::WrongState {
                verb: "start",
                status: status.name(),
            });
        }
    }
    release(&directory)?;
    run_poststart(&state);
    Ok(0)
}

/// Lets the waiting process go on. It holds the fifo open itself, so that opening for writing
/// without blocking fails exactly when it is gone.
fn release(directory: &Directory) -> Result<()> {
    let path = directory.fifo();
    let fifo =
        sys::open(&path, libc::O_WRONLY | libc::O_NONBLOCK).map_err(|errno| match errno {
            Errno(libc::ENXIO) => Error::NotRunning,
            errno => Error::Step {
                step: format!("open {}", path.display()),
                errno,
            },
        })?;
    // Removed first: from here on the status is "running", and a second start is refused.
    std::fs::remove_file(&path).step(|| format!("remove {}", path.display()))?;
    sys::write(fifo.as_raw_fd(), b"s")
        .step(|| format!("write {}", path.display()))
        .map(drop)
}

/// Failures are only warned of: the container runs already.
pub fn run_poststart(state: &State) {
    if state.hooks.poststart.is_empty() {
        return;
    }
    let json = state_json(state, Status::Running);
    if let Err(error) = hooks::run("poststart", &state.hooks.poststart, &json) {
        crate::report::warn(&error.to_string());
    }
}

pub fn kill(call: &Invocation) -> Result<i32> {
    let directory = Directory::of(&call.global.root, call.id()?);
    let state = directory.load()?;
    let signal = signal_number(call.args.get(1).map_or("SIGTERM", String::as_str))?;
    let status = directory.status(&state);
    if call.is_set("all") {
        return kill_every(&state, signal).map(|()| 0);
    }
    if status == Status::Stopped {
        // Without a namespace of its own, others may have outlived the first process.
        if signal == libc::SIGKILL && !state.owns_pid_namespace() && state.pid > 0 {
            return cgroup::kill_all(&state.cgroup).map(|()| 0);
        }
        return Err(Error::NotRunning);
    }
    if signal == libc::SIGKILL && !state.owns_pid_namespace() {
        return cgroup::kill_all(&state.cgroup).map(|()| 0);
    }
    send(&state, signal)?;
    Ok(0)
}

/// Through a descriptor that is opened before the start time is compared: a reused process number
/// cannot get another's signal.
fn send(state: &State, signal: i32) -> Result<()> {
    let gone = |errno| match errno {
        Errno(libc::ESRCH) => Error::NotRunning,
        errno => Error::Step {
            step: format!("signal process {}", state.pid),
            errno,
        },
    };
    let pidfd = sys::pidfd_open(state.pid).map_err(gone)?;
    if start_time(state.pid) != Some(state.start_time) {
        return Err(Error::NotRunning);
    }
    sys::pidfd_send_signal(pidfd.as_raw_fd(), signal).map_err(gone)
}

fn kill_every(state: &State, signal: i32) -> Result<()> {
    if signal == libc::SIGKILL {
        return cgroup::kill_all(&state.cgroup);
    }
    for pid in cgroup::processes(&state.cgroup) {
        match sys::kill(pid, signal) {
            Ok(()) | Err(Errno(libc::ESRCH)) => {}
            Err(errno) => Err(errno).step(|| format!("signal process {pid}"))?,
        }
    }
    Ok(())
}

const SIGNALS: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// "9", "KILL", "SIGKILL", "kill", "RTMIN+3".
fn signal_number(text: &str) -> Result<i32> {
    let unknown = || Error::Usage(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return Some(number)
            .filter(|number| (0..=64).contains(number))
            .ok_or_else(unknown);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let offset = if rest.is_empty() {
            0
        } else {
            rest.parse().map_err(|_| unknown())?
        };
        return Some(34 + offset)
            .filter(|number| (34..=64).contains(number))
            .ok_or_else(unknown);
    }
    SIGNALS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
        .ok_or_else(unknown)
}

pub fn delete(call: &Invocation) -> Result<i32> {
    let force = call.is_set("force");
    let directory = Directory::of(&call.global.root, call.id()?);
    let _lock = match directory.lock() {
        Err(Error::NotExist) if force => return Ok(0),
        result => result?,
    };
    let state = match directory.load() {
        // Made, but nothing was done in it: its maker died at once.
        Err(Error::NotExist | Error::Parse { .. }) if force => {
            return directory.remove().map(|()| 0);
        }
        result => result?,
    };
    match directory.status(&state) {
        Status::Stopped => {}
        Status::Created => kill_and_wait(&state)?,
        _ if force => kill_and_wait(&state)?,
        status => {
            return Err(Error::NotStopped {
                id: state.id.clone(),
                status: status.name(),
            });
        }
    }
    remove(&directory, &state)?;
    Ok(0)
}

fn kill_and_wait(state: &State) -> Result<()> {
    const SECONDS: i32 = 10;
    if !state.owns_pid_namespace() {
        cgroup::kill_all(&state.cgroup)?;
    }
    let Ok(pidfd) = sys::pidfd_open(state.pid) else {
        return Ok(());
    };
    if send(state, libc::SIGKILL).is_err() {
        return Ok(());
    }
    let mut poll = [libc::pollfd {
        fd: pidfd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    match sys::poll(&mut poll, SECONDS * 1000).step(|| "wait for container's end".to_owned())? {
        0 => Err(Error::Config(format!(
            "container {} did not die in {SECONDS} s",
            state.id
        ))),
        _ => Ok(()),
    }
}

/// Removes the cgroup and the state, then runs the poststop hooks.
pub fn remove(directory: &Directory, state: &State) -> Result<()> {
    cgroup::remove(&state.cgroup)?;
    directory.remove()?;
    if !state.hooks.poststop.is_empty() {
        let json = state_json(state, Status::Stopped);
        if let Err(error) = hooks::run("poststop", &state.hooks.poststop, &json) {
            crate::report::warn(&error.to_string());
        }
    }
    Ok(())
}

pub fn pause(call: &Invocation) -> Result<i32> {
    let directory = Directory::of(&call.global.root, call.id()?);
    let _lock = directory.lock()?;
    let state = directory.load()?;
    match directory.status(&state) {
        Status::Running | Status::Created => cgroup::set_frozen(&state.cgroup, true).map(|()| 0),
        status => Err(Error::WrongState {
            verb: "pause",
            status: status.name(),
        }),
    }
}

pub fn resume(call: &Invocation) -> Result<i32> {
    let directory = Directory::of(&call.global.root, call.id()?);
    let _lock = directory.lock()?;
    let state = directory.load()?;
    match directory.status(&state) {
        Status::Paused => cgroup::set_frozen(&state.cgroup, false).map(|()| 0),
        status => Err(Error::WrongState {
            verb: "resume",
            status: status.name(),
        }),
    }
}

pub fn state(call: &Invocation) -> Result<i32> {
    let directory = Directory::of(&call.global.root, call.id()?);
    let state = directory.load()?;
    let report = state.report(directory.status(&state));
    let text = serde_json::to_string_pretty(&report).unwrap_or_default();
    write!(std::io::stdout(), "{text}").step(|| "write to stdout".to_owned())?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_number_and_name() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGTERM", 15),
            ("sigusr1", 10),
            ("RTMIN+3", 37),
            ("0", 0),
        ] {
            assert_eq!(signal_number(text).unwrap(), number);
        }
        for text in ["65", "-1", "NOPE", "", "RTMIN+99", "RTMINx"] {
            assert!(signal_number(text).is_err(), "{text}");
        }
    }
}
