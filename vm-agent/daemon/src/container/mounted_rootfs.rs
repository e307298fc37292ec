//! The root file system of a container that does not run, with its volumes and bind mounts where it would have them.

use super::record::{Container, MountPoint};
use super::rootfs::{Rootfs, clone_tree};
use super::{neighbours, spec};
use crate::error::{ApiError, ApiResult};
use crate::namespace_thread;
use crate::state::Daemon;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, mkdirat, mknodat};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Where the root is mounted in a namespace of its own; any folder will do.
const PLACE: &str = "/run";

/// What is mounted, and where.
struct Tree {
    destination: PathBuf,
    mount: OwnedFd,
}

/// A container's files as its processes see them, or would see them.
pub async fn open(daemon: &Daemon, id: &str) -> ApiResult<Rootfs> {
    let entry = daemon.containers.entry(id)?;
    let is_plain = |container: &Container| container.running || mounted(container).next().is_none();
    if is_plain(&entry.now()) {
        return daemon.containers.rootfs(id).await;
    }
    // It is not to start while its volumes are held for it.
    let _operation = entry.operate().await?;
    let container = entry.now();
    let rootfs = daemon.containers.rootfs(id).await?;
    if is_plain(&container) {
        return Ok(rootfs);
    }
    let trees = open_trees(daemon, &container, &rootfs).await;
    neighbours::unmount_volumes(daemon, &container).await;
    let trees = trees?;
    let joined = tokio::task::spawn_blocking(move || with_mounts(rootfs, trees)).await;
    joined
        .map_err(|error| ApiError::internal(error.to_string()))?
        .map_err(|error| ApiError::internal(format!("mounting the container's volumes: {error}")))
}

/// Volumes and binds, parents first.
fn mounted(container: &Container) -> impl Iterator<Item = &MountPoint> {
    let mut points: Vec<&MountPoint> = container.mounts.iter().collect();
    points.retain(|point| matches!(point.kind.as_str(), "volume" | "bind"));
    points.sort_by_key(|point| point.destination.matches('/').count());
    points.into_iter()
}

/// Copies of the mounts, which stay when the volumes themselves are let go.
async fn open_trees(
    daemon: &Daemon,
    container: &Container,
    rootfs: &Rootfs,
) -> ApiResult<Vec<Tree>> {
    neighbours::mount_volumes(daemon, container).await?;
    neighbours::copy_up(daemon, container, rootfs).await?;
    let mut trees = Vec::new();
    for point in mounted(container) {
        let source = spec::mount_source(point)?;
        let recursive = !point.options.iter().any(|option| option == "nonrecursive");
        let failed =
            |error: io::Error| ApiError::internal(format!("cannot access path {source}: {error}"));
        let mount =
            clone_tree(&source, recursive).ok_or_else(|| failed(io::Error::last_os_error()))?;
        if !point.rw {
            set_read_only(&mount).map_err(failed)?;
        }
        trees.push(Tree {
            destination: PathBuf::from(&point.destination),
            mount,
        });
    }
    Ok(trees)
}

/// Puts the trees into the root, in a mount namespace that ends with the value.
fn with_mounts(rootfs: Rootfs, trees: Vec<Tree>) -> io::Result<Rootfs> {
    namespace_thread::run("mntns", move || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
        let place = File::open(PLACE)?;
        if let Some(mount) = rootfs.mount() {
            move_mount(mount, &place.into())?;
        }
        let folder = File::open(&rootfs.path)?;
        for tree in trees {
            let target = mount_point(&folder, &tree)?;
            move_mount(&tree.mount, &target)?;
        }
        let namespace = File::open("/proc/thread-self/ns/mnt")?;
        Ok(rootfs.kept_by(namespace.into()))
    })?
}

/// The place of a mount inside the root, made when it is missing, wherever the links of the container lead, but never out of it.
fn mount_point(root: &File, tree: &Tree) -> io::Result<OwnedFd> {
    let mut path = PathBuf::from(".");
    let mut folder: OwnedFd = root.try_clone()?.into();
    let is_folder = File::from(tree.mount.try_clone()?).metadata()?.is_dir();
    let names = tree.destination.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    let mut names = names.peekable();
    while let Some(name) = names.next() {
        path.push(name);
        folder = match open_in(root, &path) {
            Err(Errno::ENOENT) => {
                match names.peek().is_some() || is_folder {
                    true => mkdirat(&folder, name, Mode::from_bits_truncate(0o755))?,
                    false => mknodat(
                        &folder,
                        name,
                        SFlag::S_IFREG,
                        Mode::from_bits_truncate(0o755),
                        0,
                    )?,
                }
                open_in(root, &path)?
            }
            found => found?,
        };
    }
    Ok(folder)
}

fn open_in(root: &File, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

fn set_read_only(tree: &OwnedFd) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: mount_setattr reads a structure of the given size, which lives until after the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Ok(Errno::result(done).map(drop)?)
}

fn move_mount(mount: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: move_mount takes two descriptors, two C strings that live for ever, and flags.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    };
    Ok(Errno::result(done).map(drop)?)
}
