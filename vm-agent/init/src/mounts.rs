//! Mounting, with errors that name the step.

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use std::path::Path;

#[derive(Debug, thiserror::Error)]
#[error("mount {kind} {source_name} on {target}: {errno}")]
pub struct MountError {
    kind: &'static str,
    source_name: String,
    target: String,
    errno: Errno,
}

/// Kernel file systems hold no programs and no devices.
pub const KERNEL_FS: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

/// Mounts a file system of `kind`; the target folder is made when missing.
pub fn mount_new(
    kind: &'static str,
    source: &str,
    target: &str,
    flags: MsFlags,
    options: &str,
) -> Result<(), MountError> {
    let fail = |errno| MountError {
        kind,
        source_name: source.into(),
        target: target.into(),
        errno,
    };
    if !Path::new(target).is_dir() {
        std::fs::create_dir_all(target)
            .map_err(|error| fail(Errno::from_raw(error.raw_os_error().unwrap_or(0))))?;
    }
    mount(Some(source), target, Some(kind), flags, Some(options)).map_err(fail)
}

/// Moves a mount to another place.
pub fn mount_move(from: &str, to: &str) -> Result<(), MountError> {
    let flags = MsFlags::MS_MOVE;
    mount(Some(from), to, None::<&str>, flags, None::<&str>).map_err(|errno| MountError {
        kind: "moved",
        source_name: from.into(),
        target: to.into(),
        errno,
    })
}

/// Puts a file on a read-only mount of its own: nobody can write to it through that path, nor through the /proc/PID/exe of a
/// process that runs from it.
pub fn protect_file(path: &str) -> Result<(), MountError> {
    let bind = MsFlags::MS_BIND;
    for flags in [
        bind,
        bind | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NODEV,
    ] {
        mount(Some(path), path, None::<&str>, flags, None::<&str>).map_err(|errno| MountError {
            kind: "read-only",
            source_name: path.to_owned(),
            target: path.to_owned(),
            errno,
        })?;
    }
    Ok(())
}

/// Lets mounts made below `/` reach the mount namespaces cloned from it, as container programs expect.
pub fn share_root() -> Result<(), MountError> {
    let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(|errno| MountError {
        kind: "shared",
        source_name: "/".into(),
        target: "/".into(),
        errno,
    })
}
