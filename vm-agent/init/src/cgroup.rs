//! The cgroup tree (v2 only): `/longshore/{agent,supervisor,daemon,shims}` for our processes, `/docker` for containers.

use crate::mounts::{KERNEL_FS, MountError, mount_new};
use std::fs::File;

pub const ROOT: &str = "/sys/fs/cgroup";
pub const CONTAINERS: &str = "/sys/fs/cgroup/docker";
const OURS: &str = "/sys/fs/cgroup/longshore";

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("make the cgroup {path}: {source}")]
    Make {
        path: String,
        source: std::io::Error,
    },
    #[error("read the controllers: {0}")]
    Controllers(#[source] std::io::Error),
    #[error("open the cgroup {path}: {source}")]
    Open {
        path: String,
        source: std::io::Error,
    },
}

pub fn set_up() -> Result<(), CgroupError> {
    mount_new(
        "cgroup2",
        "cgroup",
        ROOT,
        KERNEL_FS,
        "nsdelegate,memory_recursiveprot",
    )?;
    let controllers = std::fs::read_to_string(format!("{ROOT}/cgroup.controllers"))
        .map_err(CgroupError::Controllers)?;
    let enable = controllers
        .split_whitespace()
        .map(|name| format!("+{name}"))
        .collect::<Vec<_>>()
        .join(" ");
    enable_below(ROOT, &enable);
    for path in [OURS, CONTAINERS] {
        make(path)?;
        enable_below(path, &enable);
    }
    for name in ["agent", "supervisor", "daemon", "shims"] {
        make(&format!("{OURS}/{name}"))?;
    }
    Ok(())
}

/// The folder of one of our services, to clone a process right into it.
pub fn open_service(name: &str) -> Result<File, CgroupError> {
    let path = format!("{OURS}/{name}");
    File::open(&path).map_err(|source| CgroupError::Open { path, source })
}

fn make(path: &str) -> Result<(), CgroupError> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(CgroupError::Make {
            path: path.into(),
            source: error,
        }),
        _ => Ok(()),
    }
}

/// One write for all; should the kernel refuse one of them, each for itself, so that the others are there.
fn enable_below(path: &str, enable: &str) {
    let file = format!("{path}/cgroup.subtree_control");
    if std::fs::write(&file, enable).is_err() {
        for one in enable.split(' ') {
            if let Err(error) = std::fs::write(&file, one) {
                crate::log::error(&format!(
                    "enable the cgroup controller {one} in {path}: {error}"
                ));
            }
        }
    }
}
