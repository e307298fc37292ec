//! The sockets: inherited from init (`LISTEN_FDS`, `LISTEN_FDNAMES`), else bound here.

use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::error::{IoStep, Result};

/// systemd's protocol: inherited descriptors start here.
const FIRST: RawFd = 3;

pub struct Listeners {
    pub grpc: UnixListener,
    pub ttrpc: UnixListener,
}

impl Listeners {
    pub fn open(address: &Path) -> Result<Self> {
        let inherited = inherited();
        let take = |name: &str| {
            let at = inherited.iter().position(|inherited| inherited == name)?;
            // SAFETY: LISTEN_PID says that the descriptors from 3 on are ours; each name is taken once.
            Some(unsafe { UnixListener::from_raw_fd(FIRST + at as RawFd) })
        };
        let ttrpc_path = format!("{}.ttrpc", address.display());
        let listeners = Self {
            grpc: take("grpc").map_or_else(|| bind(address), Ok)?,
            ttrpc: take("ttrpc").map_or_else(|| bind(Path::new(&ttrpc_path)), Ok)?,
        };
        for listener in [&listeners.grpc, &listeners.ttrpc] {
            listener
                .set_nonblocking(true)
                .step(|| "preparing a listener".into())?;
            // Children (shims) must not keep our sockets open.
            nix::fcntl::fcntl(
                listener,
                nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
            )
            .step(|| "preparing a listener".into())?;
        }
        Ok(listeners)
    }
}

fn inherited() -> Vec<String> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<usize>().ok();
    let ours = number("LISTEN_PID").is_none_or(|pid| pid == std::process::id() as usize);
    let count = number("LISTEN_FDS").filter(|_| ours).unwrap_or(0);
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    names.split(':').take(count).map(str::to_owned).collect()
}

fn bind(path: &Path) -> Result<UnixListener> {
    let step = || format!("listening on {}", path.display());
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).step(step)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).step(step),
        _ => {}
    }
    let listener = UnixListener::bind(path).step(step)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).step(step)?;
    Ok(listener)
}
