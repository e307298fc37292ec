//! The rootfs mounts of a create request.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use containerd_shim_protos::api::Mount;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::error::{Result, Step};

/// mount(2) takes one page of options; overlays of many layers need more.
const MAX_DATA: usize = 4000;

/// Mounts all of them on `target`, in order.
pub fn mount_rootfs(mounts: &[Mount], target: &Path) -> Result<()> {
    if mounts.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(target).at("create", target)?;
    for (index, spec) in mounts.iter().enumerate() {
        let target = match spec.target.trim_start_matches('/') {
            "" => target.to_owned(),
            inside => target.join(inside),
        };
        if let Err(error) = mount_one(spec, &target).at("mount the root file system on", &target) {
            if index > 0 {
                unmount_rootfs(&target);
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Takes every mount off `target`.
pub fn unmount_rootfs(target: &Path) {
    while umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).is_ok() {}
}

fn mount_one(spec: &Mount, target: &Path) -> io::Result<()> {
    let (flags, data) = parse_options(&spec.options);
    if spec.type_ == "overlay" && data.len() > MAX_DATA {
        return mount_long_overlay(flags, &data, target);
    }
    let bind = flags.contains(MsFlags::MS_BIND) || spec.type_ == "bind";
    let flags = if bind {
        flags | MsFlags::MS_BIND
    } else {
        flags
    };
    let data = (!data.is_empty()).then_some(data.as_str());
    mount(
        Some(spec.source.as_str()),
        target,
        Some(spec.type_.as_str()),
        flags,
        data,
    )?;
    if bind && flags.contains(MsFlags::MS_RDONLY) {
        // A bind mount takes its flags only when remounted.
        let flags = flags | MsFlags::MS_REMOUNT;
        mount(None::<&str>, target, None::<&str>, flags, None::<&str>)?;
    }
    Ok(())
}

/// Splits mount(8)'s options into flags and the file system's own.
fn parse_options(options: &[String]) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for option in options {
        flags |= match option.as_str() {
            "bind" => MsFlags::MS_BIND,
            "rbind" => MsFlags::MS_BIND | MsFlags::MS_REC,
            "ro" => MsFlags::MS_RDONLY,
            "nosuid" => MsFlags::MS_NOSUID,
            "nodev" => MsFlags::MS_NODEV,
            "noexec" => MsFlags::MS_NOEXEC,
            "noatime" => MsFlags::MS_NOATIME,
            "nodiratime" => MsFlags::MS_NODIRATIME,
            "relatime" => MsFlags::MS_RELATIME,
            "sync" => MsFlags::MS_SYNCHRONOUS,
            "rw" | "defaults" | "" => MsFlags::empty(),
            // Notes between containerd's own components.
            other if other.starts_with("X-containerd.") => MsFlags::empty(),
            other => {
                data.push(other);
                MsFlags::empty()
            }
        };
    }
    (flags, data.join(","))
}

const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// Through fsconfig, which takes each lower folder by itself (`lowerdir+`, since Linux 6.8).
fn mount_long_overlay(flags: MsFlags, data: &str, target: &Path) -> io::Result<()> {
    // SAFETY: a constant string; the result is checked and owned.
    let fs = own(unsafe { libc::syscall(libc::SYS_fsopen, c"overlay".as_ptr(), 1) })?;
    for option in data.split(',') {
        match option.split_once('=') {
            Some(("lowerdir", dirs)) => {
                for dir in dirs.split(':') {
                    configure(&fs, FSCONFIG_SET_STRING, Some("lowerdir+"), Some(dir))?;
                }
            }
            Some((key, value)) => configure(&fs, FSCONFIG_SET_STRING, Some(key), Some(value))?,
            None => configure(&fs, FSCONFIG_SET_FLAG, Some(option), None)?,
        }
    }
    configure(&fs, FSCONFIG_CMD_CREATE, None, None)?;
    let read_only = if flags.contains(MsFlags::MS_RDONLY) {
        1
    } else {
        0
    };
    // SAFETY: FSMOUNT_CLOEXEC and MOUNT_ATTR_RDONLY are both 1; the result is checked and owned.
    let mount = own(unsafe { libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), 1, read_only) })?;
    let target = CString::new(target.as_os_str().as_bytes())?;
    const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
    // SAFETY: both strings end in NUL and live during the call.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if moved < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn own(fd: libc::c_long) -> io::Result<OwnedFd> {
    match fd {
        ..0 => Err(io::Error::last_os_error()),
        // SAFETY: a new descriptor from the kernel that nobody else has.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
    }
}

fn configure(
    fs: &OwnedFd,
    command: libc::c_uint,
    key: Option<&str>,
    value: Option<&str>,
) -> io::Result<()> {
    let key = key.map(CString::new).transpose()?;
    let value = value.map(CString::new).transpose()?;
    let pointer = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |t| t.as_ptr());
    // SAFETY: the strings end in NUL and live during the call; null is allowed for these commands.
    let done = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            fs.as_raw_fd(),
            command,
            pointer(&key),
            pointer(&value),
            0,
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        for (options, flags, data) in [
            (
                vec!["rbind", "ro"],
                MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_RDONLY,
                "",
            ),
            (
                vec!["lowerdir=/a:/b", "rw", "index=off"],
                MsFlags::empty(),
                "lowerdir=/a:/b,index=off",
            ),
            (vec!["X-containerd.x=1"], MsFlags::empty(), ""),
        ] {
            let options: Vec<String> = options.into_iter().map(str::to_owned).collect();
            assert_eq!(parse_options(&options), (flags, data.to_owned()));
        }
    }
}
