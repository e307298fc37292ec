//! Pseudo-terminals: opened in the container's devpts, handed over a console socket.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::error::{Context, Errno, Result};
use crate::rootfs::target;
use crate::spec::ConsoleSize;
use crate::sys::{self, SysResult};

const TIOCGPTPEER: u64 = 0x5441;
/// sun_path without its NUL.
const SOCKET_PATH_MAX: usize = 107;

pub struct Terminal {
    pub master: OwnedFd,
    pub slave: OwnedFd,
    /// "/dev/pts/N" as the container sees it.
    pub name: String,
}

/// Connects to the socket that wants the terminal's master.
pub fn connect(path: &str) -> Result<OwnedFd> {
    let connected = if path.len() <= SOCKET_PATH_MAX {
        UnixStream::connect(path)
    } else {
        // A long path is reached through its directory's descriptor.
        let path = Path::new(path);
        let parent = path.parent().unwrap_or(Path::new("/"));
        let directory = sys::open(parent, libc::O_PATH | libc::O_DIRECTORY)
            .step(|| format!("open {}", parent.display()))?;
        let name = path.file_name().unwrap_or_default();
        let through = format!("/proc/self/fd/{}", directory.as_raw_fd());
        UnixStream::connect(Path::new(&through).join(name))
    };
    connected
        .map(OwnedFd::from)
        .step(|| format!("connect to console socket {path}"))
}

/// Opens a new pair in the devpts mounted below `root`.
pub fn open(root: BorrowedFd<'_>, size: Option<ConsoleSize>) -> Result<Terminal> {
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let master = match target::open(root, Path::new("/dev/pts/ptmx"), flags) {
        Err(Errno(libc::ENOENT)) => target::open(root, Path::new("/dev/ptmx"), flags),
        result => result,
    }
    .step(|| "open /dev/ptmx".to_owned())?;
    prepare(master, size).step(|| "set up terminal".to_owned())
}

fn prepare(master: OwnedFd, size: Option<ConsoleSize>) -> SysResult<Terminal> {
    let fd = master.as_raw_fd();
    let mut unlock: libc::c_int = 0;
    sys::ioctl_with(fd, libc::TIOCSPTLCK, &mut unlock)?;
    let mut number: libc::c_uint = 0;
    sys::ioctl_with(fd, libc::TIOCGPTN, &mut number)?;
    // By the master's descriptor, not by a name that somebody could have replaced.
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    let slave = sys::ioctl_int(fd, TIOCGPTPEER, flags.into())?;
    // SAFETY: the kernel has just returned this descriptor to us.
    let slave = unsafe { std::os::fd::FromRawFd::from_raw_fd(slave) };
    if let Some(size) = size {
        set_size(fd, size)?;
    }
    Ok(Terminal {
        master,
        slave,
        name: format!("/dev/pts/{number}"),
    })
}

pub fn set_size(fd: i32, size: ConsoleSize) -> SysResult<()> {
    let mut window = libc::winsize {
        ws_row: size.height,
        ws_col: size.width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    sys::ioctl_with(fd, libc::TIOCSWINSZ, &mut window)
}

impl Terminal {
    pub fn send_master(&self, socket: BorrowedFd<'_>) -> Result<()> {
        sys::send_fd(
            socket.as_raw_fd(),
            self.master.as_raw_fd(),
            self.name.as_bytes(),
        )
        .step(|| "send terminal over console socket".to_owned())
    }

    /// Makes the slave this session's terminal and its standard streams.
    pub fn become_controlling(&self) -> Result<()> {
        for fd in 0..3 {
            sys::dup2(self.slave.as_raw_fd(), fd).step(|| "duplicate terminal".to_owned())?;
        }
        sys::ioctl_int(0, libc::TIOCSCTTY, 0)
            .step(|| "set controlling terminal".to_owned())
            .map(drop)
    }
}
