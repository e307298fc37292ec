//! `run` and `exec` without `--detach`: waiting, passing signals on, and carrying a terminal.

use std::os::fd::{AsRawFd, OwnedFd};

use crate::error::{Context, Result};
use crate::spec::ConsoleSize;
use crate::sys::{self, SysResult};

pub struct Foreground {
    signals: OwnedFd,
    /// Where the child sends its terminal's master.
    console: Option<OwnedFd>,
}

/// Passed on to the container's process.
const FORWARDED: [i32; 9] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGCONT,
    libc::SIGTSTP,
];

impl Foreground {
    /// From here on signals wait to be read, so that none is lost while the container starts.
    pub fn new() -> Result<Self> {
        let mut list = FORWARDED.to_vec();
        list.extend([libc::SIGCHLD, libc::SIGWINCH]);
        let signals = sys::signal_fd(&list).step(|| "signalfd".to_owned())?;
        Ok(Foreground {
            signals,
            console: None,
        })
    }

    pub fn console_socket(&mut self) -> Result<OwnedFd> {
        let (ours, theirs) = sys::socketpair().step(|| "create console socket".to_owned())?;
        self.console = Some(ours);
        Ok(theirs)
    }

    /// Until the process ends; returns its exit code, or 128 plus the signal that killed it.
    pub fn wait(self, pid: i32) -> Result<i32> {
        let master = match &self.console {
            Some(socket) => {
                Some(sys::receive_fd(socket.as_raw_fd()).step(|| "receive terminal".to_owned())?)
            }
            None => None,
        };
        let raw = master.as_ref().and_then(|_| RawMode::enter());
        if let Some(master) = &master {
            copy_size(master);
        }
        let code = self.serve(pid, master.as_ref());
        drop(raw);
        code
    }

    fn serve(&self, pid: i32, master: Option<&OwnedFd>) -> Result<i32> {
        let entry = |fd: i32| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let output = master.map_or(-1, AsRawFd::as_raw_fd);
        // Negative descriptors are skipped by poll.
        let mut list = [
            entry(self.signals.as_raw_fd()),
            entry(output),
            entry(if master.is_some() { 0 } else { -1 }),
        ];
        loop {
            sys::poll(&mut list, -1).step(|| "poll".to_owned())?;
            if list[1].revents != 0 && !copy(output, 1) {
                list[1].fd = -1;
            }
            if list[2].revents != 0 && !copy(0, output) {
                list[2].fd = -1;
            }
            if list[0].revents != 0
                && let Some(code) = self.signal(pid, master)?
            {
                while list[1].fd >= 0 && readable(output) && copy(output, 1) {}
                return Ok(code);
            }
        }
    }

    fn signal(&self, pid: i32, master: Option<&OwnedFd>) -> Result<Option<i32>> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        sys::read(self.signals.as_raw_fd(), &mut info).step(|| "read signalfd".to_owned())?;
        let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
        match number {
            libc::SIGCHLD if sys::has_exited(pid) => {
                return sys::wait(pid).step(|| "wait".to_owned()).map(Some);
            }
            libc::SIGCHLD => {}
            libc::SIGWINCH => {
                if let Some(master) = master {
                    copy_size(master);
                }
            }
            other => {
                let _ = sys::kill(pid, other);
            }
        }
        Ok(None)
    }
}

fn readable(fd: i32) -> bool {
    let mut list = [libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    }];
    sys::poll(&mut list, 0).is_ok_and(|count| count > 0) && list[0].revents & libc::POLLIN != 0
}

/// Copies what is there; false at the end.
fn copy(from: i32, to: i32) -> bool {
    let mut buffer = [0u8; 4096];
    let Ok(count) = sys::read(from, &mut buffer) else {
        return false;
    };
    let mut rest = &buffer[..count];
    while !rest.is_empty() {
        let Ok(written) = sys::write(to, rest) else {
            return false;
        };
        rest = &rest[written..];
    }
    count > 0
}

fn copy_size(master: &OwnedFd) {
    let mut window = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    if sys::ioctl_with(0, libc::TIOCGWINSZ, &mut window).is_ok() {
        let size = ConsoleSize {
            height: window.ws_row,
            width: window.ws_col,
        };
        let _ = crate::terminal::set_size(master.as_raw_fd(), size);
    }
}

/// Our own terminal in raw mode, for as long as this lives.
struct RawMode {
    before: libc::termios,
}

impl RawMode {
    fn enter() -> Option<Self> {
        let before = sys::terminal_mode(0).ok()?;
        let mut raw = before;
        // SAFETY: raw is a valid termios.
        unsafe { libc::cfmakeraw(&mut raw) };
        set(&raw).ok()?;
        Some(RawMode { before })
    }
}

fn set(mode: &libc::termios) -> SysResult<()> {
    sys::set_terminal_mode(0, mode)
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = set(&self.before);
    }
}
