//! Starting a process: cloned right into its cgroup, with its sockets and its log, and nothing of init's.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::Pid;
use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("open {path}: {source}")]
    Open {
        path: String,
        source: std::io::Error,
    },
    #[error("clone a process: {0}")]
    Clone(Errno),
}

/// What to run.
pub struct Program<'a> {
    pub name: &'a str,
    pub path: &'a CStr,
    pub arguments: &'a [&'a CStr],
    pub sockets: &'a [(&'static str, UnixListener)],
    pub cgroup: &'a File,
}

/// First descriptor of a passed socket (sd_listen_fds(3)).
const FIRST_SOCKET: RawFd = 3;
/// Above every descriptor that a child gets.
const OUT_OF_THE_WAY: RawFd = 100;
/// linux/sched.h; the constant of the libc crate does not fit its type.
const CLONE_INTO_CGROUP: u64 = 1 << 33;
/// The kernel's out-of-memory killer leaves our services alone; what they start puts it back.
const OOM_SCORE: &str = "-999";

pub fn spawn(program: &Program) -> Result<Pid, SpawnError> {
    let open = |path: &str, options: &OpenOptions| {
        options.open(path).map_err(|source| SpawnError::Open {
            path: path.into(),
            source,
        })
    };
    let log = open(
        &format!("/run/longshore/log/{}.log", program.name),
        OpenOptions::new().append(true).create(true),
    )?;
    let null = open("/dev/null", OpenOptions::new().read(true))?;
    match clone_into(program.cgroup.as_raw_fd()).map_err(SpawnError::Clone)? {
        Some(child) => Ok(child),
        None => {
            let error = become_program(program, &log, &null);
            crate::log::error(&format!("start {}: {error}", program.name));
            // SAFETY: leaves the child without running init's own exit handlers.
            unsafe { libc::_exit(127) }
        }
    }
}

/// Runs `work` in a child of init, which ends with it.
pub fn fork(cgroup: &File, work: impl FnOnce()) -> Result<Pid, SpawnError> {
    match clone_into(cgroup.as_raw_fd()).map_err(SpawnError::Clone)? {
        Some(child) => Ok(child),
        None => {
            work();
            // SAFETY: as above.
            unsafe { libc::_exit(0) }
        }
    }
}

/// fork(2) into a cgroup; `None` in the child. Moving a process afterwards would wait for a grace period of the whole kernel.
fn clone_into(cgroup: RawFd) -> Result<Option<Pid>, Errno> {
    // SAFETY: an all-zero clone_args is a valid value, "nothing shared".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = CLONE_INTO_CGROUP;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = cgroup as u64;
    // SAFETY: init has one thread, so the child's copy of memory has no lock held; without a new stack the child goes on
    // with a copy of this one, as after fork.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &arguments, size_of::<libc::clone_args>()) };
    match Errno::result(result)? {
        0 => Ok(None),
        child => Ok(Some(Pid::from_raw(child as i32))),
    }
}

/// Comes back only when it failed.
fn become_program(program: &Program, log: &File, null: &File) -> Errno {
    let prepare = || -> Result<(), Errno> {
        nix::unistd::setsid()?;
        let high = |fd: RawFd| -> Result<RawFd, Errno> {
            // SAFETY: plain descriptor duplication; the descriptor belongs to a value that outlives this call.
            Errno::result(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, OUT_OF_THE_WAY) })
        };
        let log = high(log.as_raw_fd())?;
        let mut passed = vec![high(null.as_raw_fd())?, log, log];
        for (_, listener) in program.sockets {
            passed.push(high(listener.as_raw_fd())?);
        }
        for (place, fd) in passed.into_iter().enumerate() {
            // SAFETY: both are descriptors of this child; what was at `place` is init's copy, closed on exec anyway.
            Errno::result(unsafe { libc::dup2(fd, place as RawFd) })?;
        }
        let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
    };
    if let Err(errno) = prepare() {
        return errno;
    }
    let mut arguments = vec![program.path];
    arguments.extend(program.arguments);
    match nix::unistd::execve(program.path, &arguments, &environment(program)) {
        Ok(never) => match never {},
        Err(errno) => errno,
    }
}

/// `NAME=VALUE` lines that the agent has written for the services, if it has.
const ENVIRONMENT: &str = "/run/longshore/environment";

fn environment(program: &Program) -> Vec<CString> {
    let mut variables = vec![
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        "HOME=/root".into(),
    ];
    // `LONGSHORE_LOG=debug` on the kernel command line arrives in init's environment.
    let ours = std::env::vars().filter(|(name, _)| name.starts_with("LONGSHORE_"));
    variables.extend(ours.map(|(name, value)| format!("{name}={value}")));
    let written = std::fs::read_to_string(ENVIRONMENT).unwrap_or_default();
    variables.extend(written.lines().map(str::to_owned));
    if !program.sockets.is_empty() {
        let names: Vec<&str> = program.sockets.iter().map(|(name, _)| *name).collect();
        variables.push(format!("LISTEN_FDS={}", names.len()));
        variables.push(format!("LISTEN_FDNAMES={}", names.join(":")));
        variables.push(format!("LISTEN_PID={}", std::process::id()));
    }
    const { assert!(FIRST_SOCKET == 3) };
    variables
        .into_iter()
        .filter_map(|variable| CString::new(variable).ok())
        .collect()
}
