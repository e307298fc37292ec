//! The first stage: `/init` of the initramfs finds the root disk, puts a writable layer over it and becomes its PID 1.

use crate::log;
use crate::modprobe::{ModuleError, Modules};
use crate::mounts::{KERNEL_FS, MountError, mount_move, mount_new};
use crate::status::stage;
use nix::errno::Errno;
use nix::mount::MsFlags;
use std::ffi::CString;
use std::path::Path;

/// `serial=` of the root's virtio-blk disk.
const ROOT_SERIAL: &str = "longshore-root";
/// Where the host put the boot configuration, and where the guest looks for it.
const CONFIG: &str = "/longshore/config.json";
const GUEST_CONFIG: &str = "/run/longshore/config.json";
const INIT: &str = "/usr/bin/longshore-init";

#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Module(#[from] ModuleError),
    #[error("make {path}: {source}")]
    Make {
        path: &'static str,
        source: std::io::Error,
    },
    #[error("no disk has the serial {ROOT_SERIAL}; disks: {0}")]
    NoRootDisk(String),
    #[error("enter the root: {0}")]
    Enter(Errno),
    #[error("run {INIT}: {0}")]
    Exec(Errno),
}

/// Does not return unless it failed.
pub fn enter_root() -> RootError {
    match prepare().and_then(|()| switch()) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn prepare() -> Result<(), RootError> {
    mount_new("devtmpfs", "dev", "/dev", MsFlags::MS_NOSUID, "mode=755")?;
    mount_new("proc", "proc", "/proc", KERNEL_FS, "")?;
    mount_new("sysfs", "sys", "/sys", KERNEL_FS, "")?;
    mount_new(
        "tmpfs",
        "run",
        "/run",
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        "mode=755",
    )?;
    make("/run/longshore")?;
    stage("kernel");
    copy_config();
    load_modules()?;
    stage("root-modules");
    let disk = root_disk()?;
    mount_new(
        "erofs",
        &disk,
        "/lower",
        MsFlags::MS_RDONLY | MsFlags::MS_NODEV,
        "",
    )?;
    // The writable layer makes mount points possible anywhere; it holds next to nothing.
    mount_new(
        "tmpfs",
        "upper",
        "/upper",
        MsFlags::MS_NODEV,
        "mode=755,size=25%",
    )?;
    make("/upper/upper")?;
    make("/upper/work")?;
    let layers = "lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work";
    mount_new("overlay", "root", "/new", MsFlags::MS_NODEV, layers)?;
    stage("root");
    Ok(())
}

/// Copied as it is: whoever uses it parses it.
fn copy_config() {
    match std::fs::copy(CONFIG, GUEST_CONFIG) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => log::error(&format!("copy {CONFIG} to {GUEST_CONFIG}: {error}")),
    }
}

/// The disk's driver and the file systems side by side: each spends its time relocating and patching itself.
fn load_modules() -> Result<(), RootError> {
    let modules = Modules::new(Path::new("/modules"))?;
    std::thread::scope(|scope| {
        let file_systems =
            scope.spawn(|| modules.load("erofs").and_then(|()| modules.load("overlay")));
        let disk = modules.load("virtio_blk");
        // A panic there has said why on the console.
        file_systems.join().unwrap_or(Ok(())).and(disk)
    })?;
    Ok(())
}

/// The disk with our serial. Loading the driver has probed every disk.
fn root_disk() -> Result<String, RootError> {
    let mut seen = Vec::new();
    for entry in std::fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let serial = std::fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        if serial.trim() == ROOT_SERIAL {
            return Ok(format!("/dev/{name}"));
        }
        seen.push(format!("{name} ({})", serial.trim()));
    }
    Err(RootError::NoRootDisk(seen.join(", ")))
}

fn switch() -> Result<std::convert::Infallible, RootError> {
    for folder in ["dev", "proc", "sys", "run"] {
        mount_move(&format!("/{folder}"), &format!("/new/{folder}"))?;
    }
    // The initramfs stays in memory as long as its files do.
    let _ = std::fs::remove_file("/init");
    let _ = std::fs::remove_dir_all("/modules");
    let _ = std::fs::remove_dir_all("/longshore");
    nix::unistd::chdir("/new").map_err(RootError::Enter)?;
    mount_move("/new", "/")?;
    nix::unistd::chroot(".").map_err(RootError::Enter)?;
    nix::unistd::chdir("/").map_err(RootError::Enter)?;
    let program = CString::new(INIT).expect("no NUL in a constant");
    nix::unistd::execv(&program, &[&program]).map_err(RootError::Exec)
}

fn make(path: &'static str) -> Result<(), RootError> {
    std::fs::create_dir_all(path).map_err(|source| RootError::Make { path, source })
}
