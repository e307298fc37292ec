//! Process 1 of a container with `--init`: runs the command, hands signals on, reaps whatever is left to it.
//!
//! It is this program itself, bound into the container as `/sbin/docker-init`, so it must be linked statically.

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, execvp, fork};
use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;

/// The name that the daemon binds it under.
pub const NAME: &str = "docker-init";

/// Runs `docker-init -- COMMAND…`; returns the exit code.
pub fn run() -> i32 {
    let words = std::env::args_os().skip(1).skip_while(|word| word == "--");
    let command: Vec<CString> = words
        .filter_map(|word| CString::new(word.into_vec()).ok())
        .collect();
    if command.is_empty() {
        eprintln!("docker-init: no command");
        return 2;
    }
    // All signals are taken one by one below; the command gets the mask that we were given.
    let mut before = SigSet::empty();
    if let Err(error) = sigprocmask(
        SigmaskHow::SIG_BLOCK,
        Some(&SigSet::all()),
        Some(&mut before),
    ) {
        eprintln!("docker-init: blocking signals: {error}");
        return 1;
    }
    // SAFETY: this process has one thread, and the child only restores its mask and calls exec.
    match unsafe { fork() } {
        Err(error) => {
            eprintln!("docker-init: fork: {error}");
            1
        }
        Ok(ForkResult::Child) => become_command(&command, &before),
        Ok(ForkResult::Parent { child }) => watch(child),
    }
}

fn become_command(command: &[CString], mask: &SigSet) -> ! {
    let own = Pid::from_raw(0);
    // A group of its own, in the foreground of the terminal if there is one, so that Ctrl-C reaches it once.
    let _ = nix::unistd::setpgid(own, own);
    let _ = nix::unistd::tcsetpgrp(std::io::stdin(), nix::unistd::getpid());
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None);
    let error = execvp(&command[0], command).unwrap_err();
    eprintln!(
        "[FATAL docker-init] exec {} failed: {}",
        command[0].to_string_lossy(),
        error.desc()
    );
    let code = if error == nix::errno::Errno::ENOENT {
        127
    } else {
        126
    };
    std::process::exit(code)
}

fn watch(child: Pid) -> i32 {
    let all = SigSet::all();
    loop {
        match all.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = reap(child) {
                    return code;
                }
            }
            Ok(signal) => drop(kill(child, signal)),
            Err(_) => {}
        }
    }
}

/// Reaps all that have ended; the command's exit code when it is among them.
fn reap(child: Pid) -> Option<i32> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => code = Some(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                code = Some(128 + signal as i32);
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return code,
            Ok(_) => {}
        }
    }
}
