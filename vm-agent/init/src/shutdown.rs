//! The orderly end: the containers and the daemon, then everything else, then the disks, then the power.

use crate::cgroup::CONTAINERS;
use crate::log;
use crate::services::DAEMON;
use crate::supervise::Init;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long services have to end after SIGTERM.
const SERVICE_DEADLINE: Duration = Duration::from_secs(3);
/// How long containers have, as `docker stop` gives them.
const CONTAINER_DEADLINE: Duration = Duration::from_secs(10);
const KILL_DEADLINE: Duration = Duration::from_secs(2);
/// Tells the daemon that it ends with the machine: it starts nothing more, and goes when it has written down how the containers ended.
const MARKER: &str = "/run/longshore/powering-off";
const DATA: &str = "/var/lib/longshore";
/// The agent switches it on.
const SWAP: &std::ffi::CStr = c"/var/lib/longshore/swap";

pub fn orderly(mut init: Init, reason: &str) -> ! {
    log::error(&format!("powering off ({reason})"));
    if let Err(error) = std::fs::write(MARKER, reason) {
        log::error(&format!("{MARKER}: {error}"));
    }
    ask_to_end(&init, |name| name == DAEMON);
    end_containers();
    see_the_end(&mut init, |name| name == DAEMON);
    ask_to_end(&init, |_| true);
    see_the_end(&mut init, |_| true);
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    // Everything is a child of init by now, and killed.
    while waitpid(None, None).is_ok() {}
    unmount_disks();
    power_off();
    loop {
        nix::unistd::pause();
    }
}

/// Ends the machine.
pub fn power_off() -> ExitCode {
    nix::unistd::sync();
    // It only comes back with an error.
    let Err(errno) = reboot(RebootMode::RB_POWER_OFF);
    log::error(&format!("power off: {errno}"));
    ExitCode::FAILURE
}

/// The processes of services, by their names.
fn pids(init: &Init, which: impl Fn(&str) -> bool) -> Vec<Pid> {
    let chosen = init
        .services
        .iter()
        .filter(|service| which(service.plan.name));
    chosen.filter_map(|service| service.pid()).collect()
}

fn ask_to_end(init: &Init, which: impl Fn(&str) -> bool) {
    for pid in pids(init, which) {
        let _ = kill(pid, Signal::SIGTERM);
    }
}

fn see_the_end(init: &mut Init, which: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + SERVICE_DEADLINE;
    // A service that has ended goes to "back off" and, with nobody to start it, stays there.
    while !pids(init, &which).is_empty() && init.wait_for_child(deadline) {}
    for pid in pids(init, &which) {
        log::error(&format!("process {pid} does not end: killed"));
        let _ = kill(pid, Signal::SIGKILL);
    }
}

/// SIGTERM for every process that would heed it, SIGKILL for the rest, and for all of them at the deadline.
/// Supervisor and shims still run and tell the daemon how each container ended.
fn end_containers() {
    let Ok(mut events) = File::open(format!("{CONTAINERS}/cgroup.events")) else {
        return;
    };
    if !populated(&mut events) {
        return;
    }
    for pid in processes(Path::new(CONTAINERS)) {
        let signal = if heeds_sigterm(pid) {
            Signal::SIGTERM
        } else {
            Signal::SIGKILL
        };
        let _ = kill(pid, signal);
    }
    if !wait_empty(&mut events, CONTAINER_DEADLINE) {
        log::error("containers do not end: killed");
        let _ = std::fs::write(format!("{CONTAINERS}/cgroup.kill"), "1");
        wait_empty(&mut events, KILL_DEADLINE);
    }
}

/// Waits for the cgroup to be empty: a change of cgroup.events is a priority event (cgroups(7)).
fn wait_empty(events: &mut File, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    while populated(events) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut watched = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        if let Err(errno) = poll(&mut watched, timeout)
            && errno != Errno::EINTR
        {
            return false;
        }
    }
    true
}

fn populated(events: &mut File) -> bool {
    let mut text = String::new();
    events.rewind().is_ok()
        && events.read_to_string(&mut text).is_ok()
        && text.contains("populated 1")
}

fn processes(folder: &Path) -> Vec<Pid> {
    let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<Pid> = text
        .lines()
        .filter_map(|line| line.parse().ok())
        .map(Pid::from_raw)
        .collect();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(processes(&entry.path()));
        }
    }
    pids
}

/// A PID namespace's first process without a handler for SIGTERM never sees it: waiting for it would waste the deadline.
fn heeds_sigterm(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
        .is_ok_and(|status| status_heeds_sigterm(&status))
}

fn status_heeds_sigterm(status: &str) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let first_of_namespace =
        field("NSpid:").and_then(|pids| pids.split_whitespace().last()) == Some("1");
    let caught = field("SigCgt:")
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    !first_of_namespace || caught & (1 << (Signal::SIGTERM as u32 - 1)) != 0
}

/// Unmounts what was mounted last first; what will not go is made read-only, so that it is clean.
fn unmount_disks() {
    nix::unistd::sync();
    // A file that is swapped to keeps its disk mounted. Whoever swapped has ended by now, so that little comes back.
    // SAFETY: the path ends in NUL; it is no error that matters if nothing is swapped there.
    unsafe { nix::libc::swapoff(SWAP.as_ptr()) };
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines().rev() {
        let mut words = line.split(' ');
        let (Some(_), Some(target), Some(kind)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let target = target.replace("\\040", " ");
        if target.starts_with(DATA) || kind == "virtiofs" {
            let _ = umount2(target.as_str(), MntFlags::empty());
        }
    }
    if std::fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| mounts.contains(DATA)) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        if let Err(errno) = mount(None::<&str>, DATA, None::<&str>, flags, None::<&str>) {
            log::error(&format!("the data disk stays mounted: {errno}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_heeds_sigterm() {
        let cases = [
            ("NSpid:\t120\nSigCgt:\t0000000000000000\n", true),
            ("NSpid:\t120\t1\nSigCgt:\t0000000000000000\n", false),
            ("NSpid:\t120\t1\nSigCgt:\t0000000000004000\n", true),
            ("NSpid:\t120\t7\nSigCgt:\t0000000000000000\n", true),
        ];
        for (status, heeds) in cases {
            assert_eq!(status_heeds_sigterm(status), heeds, "{status}");
        }
    }
}
