//! What a terminal needs: raw mode, its size, text without control characters.

/// Seconds with one decimal.
pub fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

/// Guests and logs must not send escape sequences to the user's terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() || *c == '\t')
        .collect()
}

#[cfg(unix)]
pub fn end_quietly_on_closed_pipe() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: the default action is no handler, so that nothing can run at a wrong moment.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

#[cfg(not(unix))]
pub fn end_quietly_on_closed_pipe() {}

/// Rows and columns of the terminal on standard output.
#[cfg(unix)]
pub fn size() -> Option<(u16, u16)> {
    use std::os::fd::AsRawFd;
    mod ioctl {
        nix::ioctl_read_bad!(window_size, nix::libc::TIOCGWINSZ, nix::libc::winsize);
    }
    let mut size = nix::libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptor is open, and the kernel writes one winsize to the pointer.
    unsafe { ioctl::window_size(std::io::stdout().as_raw_fd(), &mut size) }.ok()?;
    Some((size.ws_row, size.ws_col))
}

#[cfg(not(unix))]
pub fn size() -> Option<(u16, u16)> {
    None
}

/// Raw mode of the terminal on standard input, for as long as this lives.
#[cfg(unix)]
pub struct Raw(nix::sys::termios::Termios);

#[cfg(unix)]
impl Raw {
    pub fn enter() -> Option<Self> {
        use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw).ok()?;
        Some(Self(before))
    }
}

#[cfg(unix)]
impl Drop for Raw {
    fn drop(&mut self) {
        use nix::sys::termios::{SetArg, tcsetattr};
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}

#[cfg(not(unix))]
pub struct Raw;

#[cfg(not(unix))]
impl Raw {
    pub fn enter() -> Option<Self> {
        None
    }
}

/// Changes of the terminal's size.
#[cfg(unix)]
pub struct Resizes(Option<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Resizes {
    pub fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self(signal(SignalKind::window_change()).ok())
    }

    pub async fn next(&mut self) {
        match &mut self.0 {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    }
}

#[cfg(not(unix))]
pub struct Resizes;

#[cfg(not(unix))]
impl Resizes {
    pub fn new() -> Self {
        Self
    }

    pub async fn next(&mut self) {
        std::future::pending().await
    }
}
