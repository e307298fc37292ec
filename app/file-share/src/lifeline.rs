//! Ends this process with the one that started it.
//!
//! PR_SET_PDEATHSIG does not do: changing to the sandbox's user clears it (prctl(2)).

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A descriptor of the parent, which says when it is gone; nothing on kernels that cannot.
pub fn parent() -> Option<OwnedFd> {
    // SAFETY: pidfd_open takes two numbers and returns a new descriptor or -1 (pidfd_open(2)).
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getppid(), 0) };
    // SAFETY: a descriptor that the kernel has just made for us, owned by nobody else.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Ends at SIGTERM, also as the first process of a PID namespace, for which the kernel drops a signal that nobody handles.
pub fn end_on_request() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

    extern "C" fn end(_: libc::c_int) {
        // SAFETY: _exit may be called in a signal handler (signal-safety(7)).
        unsafe { libc::_exit(0) }
    }
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler only calls _exit.
    let _ = unsafe { sigaction(Signal::SIGTERM, &action) };
}

/// Watches in a thread. It has to be started before the system call filter, which it is then free of.
pub fn hold(parent: OwnedFd) {
    std::thread::spawn(move || {
        loop {
            let mut polled = [PollFd::new(parent.as_fd(), PollFlags::POLLIN)];
            if matches!(poll(&mut polled, PollTimeout::NONE), Ok(1..)) {
                tracing::info!("the process that started this one is gone");
                std::process::exit(0);
            }
        }
    });
}
