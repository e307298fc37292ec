//! A container's root file system from outside: of its process while it runs, mounted without a mount point else.

use super::output::OUR_SHIM;
use super::record::Container;
use super::spec::user::Accounts;
use super::{Containers, snapshot};
use crate::error::{ApiError, ApiResult};
use crate::namespace_thread;
use crate::supervisor::api::types;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

/// More than any passwd file that means well.
const ACCOUNTS_LIMIT: u64 = 1 << 20;

/// A container's root file system at `path`. A mount made for this ends when the value is dropped.
pub struct Rootfs {
    pub path: PathBuf,
    mount: Option<OwnedFd>,
    /// The mount namespace that holds what is mounted in it.
    _namespace: Option<OwnedFd>,
}

impl Rootfs {
    fn of(mount: OwnedFd) -> Self {
        Rootfs {
            path: PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd())),
            mount: Some(mount),
            _namespace: None,
        }
    }

    /// The mount that was made for this.
    pub(super) fn mount(&self) -> Option<&OwnedFd> {
        self.mount.as_ref()
    }

    pub(super) fn kept_by(self, namespace: OwnedFd) -> Self {
        Rootfs {
            _namespace: Some(namespace),
            ..self
        }
    }
}

impl Containers {
    /// Where the root file system of `id` can be read and written now.
    pub async fn rootfs(&self, id: &str) -> ApiResult<Rootfs> {
        let container = self.get(id)?;
        if container.state.is_running() && container.state.pid > 0 {
            let path = PathBuf::from(format!("/proc/{}/root", container.state.pid));
            return Ok(Rootfs {
                path,
                mount: None,
                _namespace: None,
            });
        }
        self.mounted_rootfs(&container).await
    }

    /// The root of a container that does not run.
    async fn mounted_rootfs(&self, container: &Container) -> ApiResult<Rootfs> {
        let mounts = snapshot::mounts(self, &container.id).await?;
        mount_detached(self.with_init_layer(mounts, OUR_SHIM)).await
    }
}

impl Containers {
    /// A container's own file system, without what else is mounted in it: what `export` takes.
    pub async fn bare_rootfs(&self, id: &str) -> ApiResult<Rootfs> {
        let container = self.get(id)?;
        let pid = container.state.pid;
        if container.state.is_running() && pid > 0 {
            let cloned = tokio::task::spawn_blocking(move || clone_root_of(pid));
            let cloned = cloned
                .await
                .map_err(|error| ApiError::internal(error.to_string()))?;
            match cloned {
                Ok(mount) => return Ok(Rootfs::of(mount)),
                // It has just ended: then its file system is nobody's and can be mounted.
                Err(error) => tracing::debug!(%error, pid, "cloning the root of a container"),
            }
        }
        self.mounted_rootfs(&container).await
    }
}

/// The root mount of a process's mount namespace, alone.
fn clone_root_of(pid: u32) -> std::io::Result<OwnedFd> {
    let namespace = File::open(format!("/proc/{pid}/ns/mnt"))?;
    namespace_thread::run("mntns", move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNS)?;
        clone_tree("/", false).ok_or_else(std::io::Error::last_os_error)
    })?
}

/// Mounts a snapshot where nobody else sees it.
pub async fn mount_detached(mounts: Vec<types::Mount>) -> ApiResult<Rootfs> {
    let mount = tokio::task::spawn_blocking(move || detached(&mounts));
    let mount = mount
        .await
        .map_err(|error| ApiError::internal(error.to_string()))??;
    Ok(Rootfs::of(mount))
}

/// The same, to look at only: unmounting an overlay that can be written syncs the whole disk below it.
pub async fn mount_detached_read_only(mut mounts: Vec<types::Mount>) -> ApiResult<Rootfs> {
    for mount in &mut mounts {
        mount.options.push("ro".to_owned());
    }
    mount_detached(mounts).await
}

/// The image's passwd and group, whatever links its /etc holds.
pub fn accounts(rootfs: &Rootfs) -> Accounts {
    let Ok(root) = File::open(&rootfs.path) else {
        return Accounts::default();
    };
    let read = |name: &str| {
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT);
        let mut text = Vec::new();
        if let Ok(file) = openat2(&root, name, how) {
            let _ = File::from(file).take(ACCOUNTS_LIMIT).read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    };
    Accounts {
        passwd: read("etc/passwd"),
        group: read("etc/group"),
    }
}

fn detached(mounts: &[types::Mount]) -> ApiResult<OwnedFd> {
    let [mount] = mounts else {
        return Err(ApiError::internal(format!(
            "a snapshot of {} mounts",
            mounts.len()
        )));
    };
    let step = |what: &str| {
        let error = std::io::Error::last_os_error();
        ApiError::internal(format!("mounting the root file system: {what}: {error}"))
    };
    let text =
        |text: &str| CString::new(text).map_err(|_| ApiError::internal("a NUL in a mount option"));
    if mount.r#type == "bind" || mount.options.iter().any(|option| option.ends_with("bind")) {
        return clone_tree(&mount.source, false).ok_or_else(|| step("cloning the tree"));
    }
    let kind = text(&mount.r#type)?;
    // SAFETY: fsopen takes a C string and gives a descriptor or -1.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) };
    let context = own(context).ok_or_else(|| step("fsopen"))?;
    configure(
        &context,
        FSCONFIG_SET_STRING,
        Some("source"),
        Some(&mount.r#type),
    )
    .ok_or_else(|| step("source"))?;
    for option in &mount.options {
        let set = match option.split_once('=') {
            // The kernel takes at most 256 bytes for one value here, so lower layers are added one by one.
            Some(("lowerdir", layers)) => layers.split(':').try_for_each(|layer| {
                configure(
                    &context,
                    FSCONFIG_SET_STRING,
                    Some("lowerdir+"),
                    Some(layer),
                )
            }),
            Some((name, value)) => {
                configure(&context, FSCONFIG_SET_STRING, Some(name), Some(value))
            }
            None if option == "rw" => Some(()),
            None => configure(&context, FSCONFIG_SET_FLAG, Some(option), None),
        };
        set.ok_or_else(|| step(option))?;
    }
    configure(&context, FSCONFIG_CMD_CREATE, None, None).ok_or_else(|| step("creating"))?;
    // SAFETY: fsmount takes a descriptor and two numbers and gives a descriptor or -1.
    let mounted =
        unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) };
    own(mounted).ok_or_else(|| step("fsmount"))
}

// linux/mount.h
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

fn own(descriptor: libc::c_long) -> Option<OwnedFd> {
    // SAFETY: the kernel has just made this descriptor for us alone.
    (descriptor >= 0).then(|| unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}

fn configure(
    context: &OwnedFd,
    command: libc::c_uint,
    key: Option<&str>,
    value: Option<&str>,
) -> Option<()> {
    let key = key.map(CString::new).transpose().ok()?;
    let value = value.map(CString::new).transpose().ok()?;
    let pointer =
        |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    // SAFETY: both strings live until after the call; null is allowed where a command takes none.
    let done = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            command,
            pointer(&key),
            pointer(&value),
            0,
        )
    };
    (done == 0).then_some(())
}

/// A copy of what is mounted at a path, mounted nowhere.
pub(super) fn clone_tree(source: &str, recursive: bool) -> Option<OwnedFd> {
    let source = CString::new(source).ok()?;
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_uint;
    }
    // SAFETY: open_tree takes a directory descriptor, a C string and flags; it gives a descriptor or -1.
    own(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, source.as_ptr(), flags) })
}
