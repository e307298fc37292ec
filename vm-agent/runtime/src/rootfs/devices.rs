//! `/dev`: the default nodes, those of the configuration, the links, and the console.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use super::target::{self, Kind};
use crate::error::{Context, Errno, Error, Result};
use crate::spec::Device;
use crate::sys::{self, SysResult};

/// (name, major, minor) of character devices that every container has.
const DEFAULTS: [(&str, i64, i64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

pub fn create(root: BorrowedFd<'_>, configured: &[Device]) -> Result<()> {
    for (name, major, minor) in DEFAULTS {
        let path = format!("/dev/{name}");
        if !configured.iter().any(|device| device.path == path) {
            let device = Device {
                kind: "c".to_owned(),
                path,
                major,
                minor,
                file_mode: Some(0o666),
                uid: Some(0),
                gid: Some(0),
            };
            create_one(root, &device)?;
        }
    }
    // /dev/ptmx must be the container's own devpts instance, made by `links`.
    for device in configured
        .iter()
        .filter(|device| device.path != "/dev/ptmx")
    {
        create_one(root, device)?;
    }
    links(root).step(|| "create links in /dev".to_owned())
}

fn create_one(root: BorrowedFd<'_>, device: &Device) -> Result<()> {
    let kind = match device.kind.as_str() {
        "c" | "u" => libc::S_IFCHR,
        "b" => libc::S_IFBLK,
        "p" => libc::S_IFIFO,
        other => {
            return Err(Error::Config(format!(
                "{}: invalid device type {other:?}",
                device.path
            )));
        }
    };
    make_node(root, device, kind).step(|| format!("creating device node {}", device.path))
}

fn make_node(root: BorrowedFd<'_>, device: &Device, kind: u32) -> SysResult<()> {
    let path = Path::new(&device.path);
    let name = path.file_name().ok_or(Errno(libc::EINVAL))?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let directory = target::open_or_create(root, parent, Kind::Directory)?;
    let name = sys::cstring(name.as_encoded_bytes())?;
    let mode = device.file_mode.unwrap_or(0o666) & 0o7777;
    let number = libc::makedev(device.major as u32, device.minor as u32);
    match sys::mknodat(directory.as_raw_fd(), &name, kind | mode, number) {
        Ok(()) => {
            let (uid, gid) = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
            if (uid, gid) == (0, 0) {
                return Ok(());
            }
            sys::fchownat(
                directory.as_raw_fd(),
                &name,
                uid,
                gid,
                libc::AT_SYMLINK_NOFOLLOW,
            )
        }
        Err(Errno(libc::EEXIST)) => Ok(()),
        // In a user namespace nobody may make nodes: the host's is bound instead.
        Err(Errno(libc::EPERM)) => bind_host_node(root, path),
        Err(errno) => Err(errno),
    }
}

fn bind_host_node(root: BorrowedFd<'_>, path: &Path) -> SysResult<()> {
    let source = sys::cstring(path.as_os_str().as_encoded_bytes())?;
    let tree = sys::open_tree(libc::AT_FDCWD, &source, sys::OPEN_TREE_CLONE)?;
    let target = target::open_or_create(root, path, Kind::File)?;
    sys::move_mount(tree.as_raw_fd(), target.as_raw_fd())
}

fn links(root: BorrowedFd<'_>) -> SysResult<()> {
    let directory = target::open_or_create(root, Path::new("/dev"), Kind::Directory)?;
    let link = |name: &str, to: &str| match sys::symlinkat(
        &sys::cstring(to)?,
        directory.as_raw_fd(),
        &sys::cstring(name)?,
    ) {
        Err(Errno(libc::EEXIST)) => Ok(()),
        result => result,
    };
    for (name, to) in LINKS {
        link(name, to)?;
    }
    if Path::new("/proc/kcore").exists() {
        link("core", "/proc/kcore")?;
    }
    // What an image ships as /dev/ptmx would open the host's devpts.
    // SAFETY: the name is a NUL-terminated literal.
    unsafe { libc::unlinkat(directory.as_raw_fd(), c"ptmx".as_ptr(), 0) };
    link("ptmx", "pts/ptmx")
}

/// Shows the terminal as /dev/console, by mounting its slave there.
pub fn mount_console(root: BorrowedFd<'_>, slave: BorrowedFd<'_>) -> SysResult<()> {
    let target = target::open_or_create(root, Path::new("/dev/console"), Kind::File)?;
    let source = target::proc_path(slave.as_fd());
    let path = target::proc_path(target.as_fd());
    sys::mount(Some(&source), &path, None, libc::MS_BIND, None)
}
