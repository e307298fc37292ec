//! Network namespaces that outlive the daemon, made and entered in process.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::link;
use super::netlink::{NetlinkError, Socket};
use crate::namespace_thread;

/// Where Docker keeps its namespaces; `/var/run` is `/run`.
pub const FOLDER: &str = "/var/run/docker/netns";

#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    #[error("create namespace file {path}: {source}")]
    Create { path: PathBuf, source: io::Error },
    #[error("run namespace thread: {0}")]
    Thread(#[source] io::Error),
    #[error("unshare network namespace: {0}")]
    Unshare(#[source] nix::Error),
    #[error("bind network namespace to {path}: {source}")]
    Bind { path: PathBuf, source: nix::Error },
    #[error("open network namespace {path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("enter network namespace {path}: {source}")]
    Enter { path: PathBuf, source: nix::Error },
    #[error("bring loopback up: {0}")]
    Loopback(#[source] NetlinkError),
}

/// The file of a sandbox key (the first 12 digits of the container's id).
pub fn path(key: &str) -> PathBuf {
    Path::new(FOLDER).join(key)
}

/// Makes a namespace with its loopback up and binds it to `path`; an old one there is replaced.
pub fn create(path: &Path) -> Result<(), NetnsError> {
    remove(path);
    let failed = |source| NetnsError::Create {
        path: path.into(),
        source,
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(failed)?;
    let target = path.to_path_buf();
    on_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(NetnsError::Unshare)?;
        mount(
            Some("/proc/thread-self/ns/net"),
            &target,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(|source| NetnsError::Bind {
            path: target.clone(),
            source,
        })?;
        let mut socket = Socket::route().map_err(NetnsError::Loopback)?;
        link::up(&mut socket, 1).map_err(NetnsError::Loopback)
    })
}

/// Lets go of a namespace; it ends when its last process does.
pub fn remove(path: &Path) {
    // A namespace may have been bound more than once by a crash between mount and record.
    while umount2(path, MntFlags::MNT_DETACH).is_ok() {}
    let _ = fs::remove_file(path);
}

/// Lets go of every namespace but those that belong to somebody: a daemon may die between making one and writing down whose
/// it is.
pub fn keep_only(kept: &HashSet<PathBuf>) {
    let found = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    for path in found.map(|entry| entry.path()) {
        if !kept.contains(&path) {
            remove(&path);
        }
    }
}

/// Runs `work` on a thread that is inside the namespace bound to `path`.
pub fn inside<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NetnsError> {
    let file = open(path)?;
    let path = path.to_path_buf();
    on_thread(move || {
        setns(file.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|source| NetnsError::Enter { path, source })?;
        Ok(work())
    })
}

pub fn open(path: &Path) -> Result<File, NetnsError> {
    File::open(path).map_err(|source| NetnsError::Open {
        path: path.into(),
        source,
    })
}

fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetnsError> + Send + 'static,
) -> Result<T, NetnsError> {
    namespace_thread::run("netns", work).map_err(NetnsError::Thread)?
}

/// Whether a namespace is bound to `path` now, and not just a file left there.
pub fn is_bound(path: &Path) -> bool {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    nix::sys::statfs::statfs(path).is_ok_and(|stat| stat.filesystem_type().0 == NSFS_MAGIC)
}
