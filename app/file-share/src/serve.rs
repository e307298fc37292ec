//! From the command line to a served folder.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vhost::vhost_user::{Error as VhostError, Listener};
use vhost_user_backend::{Error as DaemonError, VhostUserDaemon};
use virtiofsd::filesystem::{FileSystem, SerializableFileSystem};
use virtiofsd::passthrough::read_only::PassthroughFsRo;
use virtiofsd::passthrough::{CachePolicy, Config, InodeFileHandlesMode, PassthroughFs};
use virtiofsd::sandbox::{Error as JailError, SandboxMode};
use virtiofsd::seccomp::{Error as FilterError, SeccompAction, enable_seccomp};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::device::Device;
use crate::masks::Masks;
use crate::ownership::Ownership;
use crate::{Options, confine, lifeline};

/// How long the guest may believe what it was told: changes on the host are seen after this at the latest.
const VALID: Duration = Duration::from_secs(1);
/// Descriptors that are not the guest's: a mapping for each of vhost-user's 509 memory slots, and our own.
const OWN_DESCRIPTORS: u64 = 640;
/// What serving files as root needs; everything else is dropped.
const CAPABILITIES: [&str; 4] = ["DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID"];

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{0} is not a folder that can be shared: {1}")]
    Folder(PathBuf, io::Error),
    #[error("the folder's name {0:?} is not UTF-8")]
    Name(PathBuf),
    #[error("cannot listen on {0}: {1}")]
    Listen(PathBuf, VhostError),
    #[error("cannot make a socket to try the sandbox with: {0}")]
    Probe(io::Error),
    #[error("cannot allow enough open files: {0}")]
    Descriptors(nix::Error),
    #[error("cannot prepare the sandbox: {0}")]
    Prepare(io::Error),
    #[error("cannot enter the sandbox: {0}")]
    Sandbox(JailError),
    #[error("cannot set the system call filter: {0:?}")]
    Filter(FilterError),
    #[error("cannot drop capabilities: {0}")]
    Capabilities(String),
    #[error("cannot open the folder: {0}")]
    Open(io::Error),
    #[error("the vhost-user connection failed: {0}")]
    Connection(String),
}

pub fn run(options: Options) -> Result<(), ServeError> {
    let folder = &options.shared_dir;
    let shared_dir = std::fs::canonicalize(folder)
        .and_then(|path| std::fs::read_dir(&path).map(|_| path))
        .map_err(|e| ServeError::Folder(folder.clone(), e))?;
    // Looked at before the sandbox, in which other paths lead nowhere.
    let masks = Masks::new(&options.masks, folder);
    let parent = lifeline::parent();
    lifeline::end_on_request();
    let mode = confine::choose(options.sandbox, &shared_dir);
    let listener = listen(&options)?;
    let descriptors = raise_descriptors().map_err(ServeError::Descriptors)?;
    let shared_dir = shared_dir
        .to_str()
        .ok_or_else(|| ServeError::Name(folder.clone()))?;
    // Asked before the sandbox, in which everybody is root.
    let root = nix::unistd::geteuid().is_root();
    let mut jail = confine::jail(shared_dir, mode);
    let mountinfo_prefix = jail.get_mountinfo_prefix().map_err(ServeError::Prepare)?;
    let listener = jail.enter(listener).map_err(ServeError::Sandbox)?;
    // From here on in the sandbox, and in a namespace in another process than the one that began.
    if options.probe {
        return Ok(());
    }
    if let Some(parent) = parent {
        lifeline::hold(parent);
    }
    let config = Config {
        root_dir: jail.get_root_dir(),
        mountinfo_prefix,
        proc_sfd_rawfd: jail.get_proc_self_fd(),
        proc_mountinfo_rawfd: jail.get_mountinfo_fd(),
        // Opening by handle is root's; others hold a descriptor for each file that the guest knows.
        inode_file_handles: if root {
            InodeFileHandlesMode::Prefer
        } else {
            InodeFileHandlesMode::Never
        },
        guest_fd_limit: descriptors.saturating_sub(OWN_DESCRIPTORS).max(64),
        ..config()
    };
    enable_seccomp(SeccompAction::Kill, false).map_err(ServeError::Filter)?;
    if nix::unistd::geteuid().is_root() {
        drop_capabilities()?;
    }
    tracing::info!(
        tag = options.tag,
        folder = shared_dir,
        read_only = options.read_only,
        sandbox = sandbox_name(mode),
        "waiting for QEMU"
    );
    let again = options.fd.is_some();
    if options.read_only {
        serve(
            PassthroughFsRo::new(config).map_err(ServeError::Open)?,
            masks,
            listener,
            again,
        )
    } else {
        serve(
            PassthroughFs::new(config).map_err(ServeError::Open)?,
            masks,
            listener,
            again,
        )
    }
}

/// What does not hang on the sandbox.
fn config() -> Config {
    Config {
        entry_timeout: VALID,
        attr_timeout: VALID,
        cache_policy: CachePolicy::Auto,
        announce_submounts: true,
        readdirplus: true,
        // For our own record of owners; the guest has none of it.
        xattr: true,
        ..Config::default()
    }
}

/// The device of a share without sandbox and QEMU: for whoever plays the guest.
pub fn unconfined(
    shared_dir: &Path,
    masked: &[PathBuf],
) -> io::Result<Device<Ownership<PassthroughFs>>> {
    let files = PassthroughFs::new(Config {
        root_dir: shared_dir.display().to_string(),
        ..config()
    })?;
    let masks = Masks::new(masked, shared_dir);
    Ok(Device::new(Ownership::new(files, masks)))
}

/// As many open files as this process may have; the guest gets what we do not need ourselves.
fn raise_descriptors() -> nix::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let most = hard.min(1_000_000);
    setrlimit(Resource::RLIMIT_NOFILE, most, hard)?;
    Ok(most)
}

fn sandbox_name(mode: SandboxMode) -> &'static str {
    match mode {
        SandboxMode::Namespace => "namespaces and system call filter",
        SandboxMode::Chroot => "chroot and system call filter",
        SandboxMode::None => "system call filter",
    }
}

fn listen(options: &Options) -> Result<Listener, ServeError> {
    if let Some(path) = &options.socket {
        // Only this user may connect.
        let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
        let listener = Listener::new(path, true);
        nix::sys::stat::umask(before);
        return listener.map_err(|e| ServeError::Listen(path.clone(), e));
    }
    if let Some(fd) = options.fd {
        // SAFETY: who passes a descriptor's number on the command line passes the descriptor with it.
        return Ok(unsafe { Listener::from_raw_fd(fd) });
    }
    let name = format!("longshore-file-share-{}", std::process::id());
    let socket = SocketAddr::from_abstract_name(name)
        .and_then(|address| UnixListener::bind_addr(&address))
        .map_err(ServeError::Probe)?;
    let fd = std::os::fd::IntoRawFd::into_raw_fd(OwnedFd::from(socket));
    // SAFETY: the descriptor was just given up by its owner.
    Ok(unsafe { Listener::from_raw_fd(fd) })
}

fn drop_capabilities() -> Result<(), ServeError> {
    let failed = |e: capng::Error| ServeError::Capabilities(format!("{e:?}"));
    capng::clear(capng::Set::BOTH);
    let kinds = capng::Type::PERMITTED | capng::Type::EFFECTIVE;
    capng::updatev(capng::Action::ADD, kinds, CAPABILITIES.to_vec()).map_err(failed)?;
    capng::apply(capng::Set::BOTH).map_err(failed)
}

/// Serves until QEMU disconnects, or, on a socket of our parent's, one QEMU after the other: a try with another accelerator
/// is another QEMU. The parent ends us.
fn serve<F>(files: F, masks: Masks, mut listener: Listener, again: bool) -> Result<(), ServeError>
where
    F: FileSystem<Inode = u64> + SerializableFileSystem + Send + Sync + 'static,
{
    let device = Arc::new(Device::new(Ownership::new(files, masks)));
    loop {
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let name = "longshore-file-share".to_owned();
        let mut daemon = VhostUserDaemon::new(name, device.clone(), memory).map_err(connection)?;
        daemon.start(&mut listener).map_err(connection)?;
        tracing::info!("QEMU is connected");
        match daemon.wait() {
            Ok(()) | Err(DaemonError::HandleRequest(VhostError::Disconnected)) => {
                tracing::info!("QEMU has disconnected");
            }
            // A QEMU that was killed may break off in the middle of a message.
            Err(error) if again => tracing::warn!("QEMU's connection broke off: {error}"),
            Err(error) => return Err(connection(error)),
        }
        if !again {
            return Ok(());
        }
        device.forget();
    }
}

fn connection(error: impl std::fmt::Display) -> ServeError {
    ServeError::Connection(error.to_string())
}
