//! What the root needs before the first service: the rest of the mounts, limits, the loopback interface.

use crate::cgroup::{self, CgroupError};
use crate::mounts::{KERNEL_FS, MountError, mount_new, protect_file, share_root};
use crate::{log, status};
use nix::mount::MsFlags;
use nix::sys::reboot::set_cad_enabled;
use nix::sys::resource::{Resource, setrlimit};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;

/// As many as Docker's own services have, and so what containers start with.
const OPEN_FILES: u64 = 1_048_576;
/// Sized for many containers: the kernel's defaults are for one desktop.
const SYSCTLS: &[(&str, &str)] = &[
    ("fs/inotify/max_user_instances", "8192"),
    ("fs/inotify/max_user_watches", "524288"),
    ("vm/max_map_count", "1048576"),
    ("kernel/keys/maxkeys", "20000"),
    ("kernel/keys/maxbytes", "2000000"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
];

/// On a mount that is read-only, so that it need not execute itself again from such a mount for each container (CVE-2019-5736).
const RUNTIME: &str = "/usr/bin/longshore-runtime";

#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("make {path}: {source}")]
    Make {
        path: &'static str,
        source: std::io::Error,
    },
}

pub fn set_up() -> Result<(), SystemError> {
    let no_programs = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let scratch = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_new(
        "devpts",
        "devpts",
        "/dev/pts",
        no_programs,
        "gid=5,mode=620,ptmxmode=666",
    )?;
    mount_new("tmpfs", "shm", "/dev/shm", scratch, "mode=1777")?;
    mount_new("mqueue", "mqueue", "/dev/mqueue", KERNEL_FS, "")?;
    mount_new("tmpfs", "tmp", "/tmp", scratch, "mode=1777")?;
    mount_new("bpf", "bpf", "/sys/fs/bpf", KERNEL_FS, "mode=700")?;
    cgroup::set_up()?;
    share_root()?;
    protect_file(RUNTIME)?;
    for (path, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "fd/0"),
        ("/dev/stdout", "fd/1"),
        ("/dev/stderr", "fd/2"),
    ] {
        let _ = symlink(target, path);
    }
    for path in [
        "/run/lock",
        "/run/longshore/log",
        "/run/longshore/trace",
        status::FOLDER,
    ] {
        std::fs::create_dir_all(path).map_err(|source| SystemError::Make { path, source })?;
    }
    raise_limits();
    if let Err(error) = loopback_up() {
        log::error(&format!("bring the loopback interface up: {error}"));
    }
    Ok(())
}

fn raise_limits() {
    for (name, value) in SYSCTLS {
        if let Err(error) = std::fs::write(format!("/proc/sys/{name}"), value) {
            log::error(&format!("set {name} to {value}: {error}"));
        }
    }
    if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES) {
        log::error(&format!("raise the number of open files: {error}"));
    }
    let unlimited = nix::libc::RLIM_INFINITY;
    let _ = setrlimit(Resource::RLIMIT_NPROC, unlimited, unlimited);
    // Ctrl-alt-del comes as SIGINT, for an orderly end.
    let _ = set_cad_enabled(false);
    let _ = nix::unistd::sethostname("longshore");
}

fn loopback_up() -> std::io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: an all-zero ifreq is a valid value of this plain C struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(*b"lo") {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request outlives the call, and SIOCSIFFLAGS reads only its name and flags, both set.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
