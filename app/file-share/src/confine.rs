//! Which sandbox this machine allows: tried out in a process of its own, since a failed try cannot be undone.

use std::path::Path;
use std::process::{Command, Stdio};

use virtiofsd::idmap::{GidMap, UidMap};
use virtiofsd::sandbox::{Sandbox as Jail, SandboxMode};

use crate::Sandbox;

/// The strongest sandbox that works here.
pub fn choose(wanted: Sandbox, shared_dir: &Path) -> SandboxMode {
    match wanted {
        Sandbox::Namespace => SandboxMode::Namespace,
        Sandbox::Chroot => SandboxMode::Chroot,
        Sandbox::None => SandboxMode::None,
        Sandbox::Auto if works(shared_dir) => SandboxMode::Namespace,
        Sandbox::Auto if nix::unistd::geteuid().is_root() => {
            tracing::warn!(
                "no namespaces here: the share is confined by chroot and a system call filter"
            );
            SandboxMode::Chroot
        }
        Sandbox::Auto => {
            tracing::warn!(
                "no user namespaces here: the share is confined by a system call filter only"
            );
            SandboxMode::None
        }
    }
}

/// Our own program, told to enter the namespaces and end.
fn works(shared_dir: &Path) -> bool {
    let Ok(program) = std::env::current_exe() else {
        return false;
    };
    let status = Command::new(program)
        .args(["--probe", "--sandbox", "namespace", "--shared-dir"])
        .arg(shared_dir)
        .env("LONGSHORE_LOG", "off")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|s| s.success())
}

/// The sandbox before it is entered. In a user namespace this process is root, and root there is the user
/// outside, to whom everything belongs on disk.
pub fn jail(shared_dir: &str, mode: SandboxMode) -> Jail {
    let (uid, gid) = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    if mode != SandboxMode::Namespace || uid == 0 {
        return Jail::new(shared_dir.to_owned(), mode, Vec::new(), Vec::new());
    }
    let uids = UidMap {
        inside_uid: 0,
        outside_uid: uid,
        count: 1,
    };
    let gids = GidMap {
        inside_gid: 0,
        outside_gid: gid,
        count: 1,
    };
    Jail::new(shared_dir.to_owned(), mode, vec![uids], vec![gids])
}
