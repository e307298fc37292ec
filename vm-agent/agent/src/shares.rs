//! Host folders in the guest: virtiofs mounts.

use crate::config::write_whole;
use longshore_protocol::config::Share;
use longshore_protocol::control::ShareStatus;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// The shares that the host added since boot, or whose mount failed, with the reason.
const FILE: &str = "/run/longshore/shares.json";
/// Multicast group of the kernel's own device announcements (NETLINK_KOBJECT_UEVENT).
const KERNEL_EVENTS: u32 = 1;
/// A guest that has not taken a device in by then never will.
const PLUG_PATIENCE: Duration = Duration::from_secs(20);

/// Longest tag of a virtiofs device (virtio specification, section 5.11.4).
const MAX_TAG: usize = 36;

#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    #[error("the share's path {0:?} is not absolute or has `..` in it")]
    Path(String),
    #[error("the share's tag {0:?} is empty or longer than {MAX_TAG} bytes")]
    Tag(String),
    #[error("{0} is a place of the guest's own system and cannot be a share")]
    Reserved(String),
    #[error("make the mount point {path}: {source}")]
    MountPoint { path: String, source: io::Error },
    #[error("mount the share {tag} on {path}: {errno}")]
    Mount {
        tag: String,
        path: String,
        errno: Errno,
    },
    #[error("unmount {path}: {errno}")]
    Unmount { path: String, errno: Errno },
    #[error("no share has the tag {0}")]
    Unknown(String),
    #[error("keep the list of shares: {0}")]
    Keep(#[source] io::Error),
}

/// Mounted over, these would take the guest's own system away.
const RESERVED: &[&str] = &[
    "/", "/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr",
    "/var/lib", "/var/run",
];

/// At boot: what fails is kept with its reason, and told to whoever asks.
pub fn mount_configured(shares: &[Share]) {
    for share in shares {
        let error = mount_share(share).err().map(|error| error.to_string());
        if let Some(error) = &error {
            eprintln!("{error}");
        }
        if let Err(error) = remember(share, error) {
            eprintln!("{error}");
        }
    }
}

/// Mounts a share that the host has plugged in; one that is mounted already is no error.
pub fn add(share: &Share) -> Result<(), ShareError> {
    let result = mount_share(share);
    remember(share, result.as_ref().err().map(ToString::to_string))?;
    result
}

pub fn remove(tag: &str) -> Result<(), ShareError> {
    let mut list = load();
    let place = list.iter().position(|status| status.share.tag == tag);
    let index = place.ok_or_else(|| ShareError::Unknown(tag.into()))?;
    let path = list[index].share.path.clone();
    if is_mounted(&path) {
        // Detached: containers that use it keep it until they end.
        umount2(path.as_str(), MntFlags::MNT_DETACH)
            .map_err(|errno| ShareError::Unmount { path, errno })?;
    }
    list.remove(index);
    save(&list)
}

pub fn list() -> Vec<ShareStatus> {
    let mut list = load();
    for status in &mut list {
        status.mounted = is_mounted(&status.share.path);
    }
    list
}

fn mount_share(share: &Share) -> Result<(), ShareError> {
    check(share)?;
    if is_mounted(&share.path) {
        return Ok(());
    }
    let (tag, path) = (share.tag.clone(), share.path.clone());
    std::fs::create_dir_all(&path).map_err(|source| ShareError::MountPoint {
        path: path.clone(),
        source,
    })?;
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    flags.set(MsFlags::MS_RDONLY, share.read_only);
    let attempt = || {
        let (source, target) = (Some(tag.as_str()), path.as_str());
        mount(source, target, Some("virtiofs"), flags, None::<&str>)
    };
    mount_when_plugged(attempt).map_err(|errno| ShareError::Mount { tag, path, errno })
}

/// The kernel knows the tag only once it has taken a hot-plugged device in, which it announces: until then the
/// mount ends with EINVAL, so each announcement is a reason to try again.
fn mount_when_plugged(attempt: impl Fn() -> nix::Result<()>) -> nix::Result<()> {
    let announcements = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkKObjectUEvent,
    )?;
    bind(
        announcements.as_raw_fd(),
        &NetlinkAddr::new(0, KERNEL_EVENTS),
    )?;
    let deadline = Instant::now() + PLUG_PATIENCE;
    loop {
        let outcome = attempt();
        let left = deadline.saturating_duration_since(Instant::now());
        if outcome != Err(Errno::EINVAL) || left.is_zero() {
            return outcome;
        }
        let mut waiting = [PollFd::new(announcements.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut waiting, timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => drop(recv(
                announcements.as_raw_fd(),
                &mut [0; 4096],
                MsgFlags::empty(),
            )),
            Err(errno) => return Err(errno),
        }
    }
}

fn check(share: &Share) -> Result<(), ShareError> {
    if share.tag.is_empty() || share.tag.len() > MAX_TAG || share.tag.contains('\0') {
        return Err(ShareError::Tag(share.tag.clone()));
    }
    let path = share.path.as_str();
    let odd = |part: &str| part == ".." || part == ".";
    if !path.starts_with('/') || path.contains('\0') || path.split('/').any(odd) {
        return Err(ShareError::Path(path.into()));
    }
    let trimmed = if path == "/" {
        path
    } else {
        path.trim_end_matches('/')
    };
    let inside = [
        "/dev/",
        "/proc/",
        "/run/",
        "/sys/",
        "/usr/",
        "/var/lib/longshore",
        "/var/lib/docker",
    ];
    if RESERVED.contains(&trimmed) || inside.iter().any(|prefix| path.starts_with(prefix)) {
        return Err(ShareError::Reserved(path.into()));
    }
    Ok(())
}

fn is_mounted(path: &str) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next().is_some_and(|target| unescape(target) == path)
            && words.next() == Some("virtiofs")
    })
}

/// Octal escapes of /proc/self/mounts (proc_pid_mounts(5)).
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

fn remember(share: &Share, error: Option<String>) -> Result<(), ShareError> {
    let mut list = load();
    list.retain(|status| status.share.tag != share.tag);
    list.push(ShareStatus {
        share: share.clone(),
        mounted: false,
        error,
    });
    save(&list)
}

fn load() -> Vec<ShareStatus> {
    std::fs::read(FILE)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

fn save(list: &[ShareStatus]) -> Result<(), ShareError> {
    let text = serde_json::to_vec(list).map_err(|error| ShareError::Keep(error.into()))?;
    write_whole(FILE, &text).map_err(ShareError::Keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sensible_shares_are_mounted() {
        let cases = [
            ("home", "/home/user", true),
            ("data", "/Users/some one/data", true),
            ("", "/home/user", false),
            ("a-tag-that-is-longer-than-36-bytes-is", "/home/user", false),
            ("t", "home/user", false),
            ("t", "/home/../etc", false),
            ("t", "/", false),
            ("t", "/etc/", false),
            ("t", "/run/x", false),
            ("t", "/var/lib/docker/x", false),
            ("t", "/var/data", true),
        ];
        for (tag, path, good) in cases {
            let share = Share {
                tag: tag.into(),
                path: path.into(),
                read_only: false,
            };
            assert_eq!(check(&share).is_ok(), good, "{tag} {path}");
        }
    }
}
