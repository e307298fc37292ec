//! Namespaces: which are made, which are joined, and the mappings of user namespaces.

use std::fmt::Write;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use crate::error::{Context, Error, Result};
use crate::spec::{IdMapping, Namespace, Spec};
use crate::sys;

/// (name in the specification, CLONE_* flag, name in /proc/PID/ns)
pub const KINDS: [(&str, u64, &str); 8] = [
    ("user", libc::CLONE_NEWUSER as u64, "user"),
    ("pid", libc::CLONE_NEWPID as u64, "pid"),
    ("network", libc::CLONE_NEWNET as u64, "net"),
    ("ipc", libc::CLONE_NEWIPC as u64, "ipc"),
    ("uts", libc::CLONE_NEWUTS as u64, "uts"),
    ("cgroup", libc::CLONE_NEWCGROUP as u64, "cgroup"),
    ("time", sys::CLONE_NEWTIME, "time"),
    ("mount", libc::CLONE_NEWNS as u64, "mnt"),
];

pub const USER: u64 = libc::CLONE_NEWUSER as u64;
pub const PID: u64 = libc::CLONE_NEWPID as u64;
pub const CGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
pub const MOUNT: u64 = libc::CLONE_NEWNS as u64;
pub const NET: u64 = libc::CLONE_NEWNET as u64;
pub const TIME: u64 = sys::CLONE_NEWTIME;

/// A namespace to enter, held open since before anything changed.
pub struct Join {
    pub flag: u64,
    pub fd: OwnedFd,
    path: String,
}

impl Join {
    pub fn enter(&self) -> Result<()> {
        sys::setns(self.fd.as_raw_fd(), self.flag as i32)
            .step(|| format!("join namespace {}", self.path))
    }
}

/// What the configuration asks for.
#[derive(Default)]
pub struct Plan {
    /// CLONE_* of the namespaces to make.
    pub new: u64,
    pub join: Vec<Join>,
}

pub fn flag(kind: &str) -> Result<u64> {
    KINDS
        .iter()
        .find(|(name, ..)| *name == kind)
        .map(|(_, flag, _)| *flag)
        .ok_or_else(|| Error::Config(format!("namespace {kind:?} does not exist")))
}

pub fn plan(namespaces: &[Namespace]) -> Result<Plan> {
    let mut plan = Plan::default();
    let mut seen = 0;
    for namespace in namespaces {
        let flag = flag(&namespace.kind)?;
        if seen & flag != 0 {
            return Err(Error::Config(format!(
                "duplicate {} namespace",
                namespace.kind
            )));
        }
        seen |= flag;
        if namespace.path.is_empty() {
            plan.new |= flag;
        } else {
            let fd = sys::open(Path::new(&namespace.path), libc::O_RDONLY)
                .step(|| format!("open namespace {}", namespace.path))?;
            plan.join.push(Join {
                flag,
                fd,
                path: namespace.path.clone(),
            });
        }
    }
    Ok(plan)
}

impl Plan {
    pub fn joins(&self, flag: u64) -> Option<&Join> {
        self.join.iter().find(|join| join.flag == flag)
    }

    pub fn has(&self, flag: u64) -> bool {
        self.new & flag != 0 || self.joins(flag).is_some()
    }
}

/// The text of uid_map and gid_map (user_namespaces(7)).
pub fn mapping_text(mappings: &[IdMapping]) -> String {
    mappings.iter().fold(String::new(), |mut text, mapping| {
        let IdMapping {
            container_id,
            host_id,
            size,
        } = mapping;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{container_id} {host_id} {size}");
        text
    })
}

/// Maps the users and groups of a child that waits in its new user namespace.
pub fn write_mappings(pid: i32, spec: &Spec) -> Result<()> {
    let write = |file: &str, text: String| {
        let path = format!("/proc/{pid}/{file}");
        fs::write(&path, text).step(|| format!("write {path}"))
    };
    write("uid_map", mapping_text(&spec.linux.uid_mappings))?;
    if sys::effective_capabilities().is_ok_and(|set| set & 1 << 6 == 0) {
        // Without CAP_SETGID a group map may only be written when setgroups is given up.
        write("setgroups", "deny".to_owned())?;
    }
    write("gid_map", mapping_text(&spec.linux.gid_mappings))
}

/// New time namespaces take their offsets before anybody is inside (time_namespaces(7)).
pub fn make_time_namespace(spec: &Spec) -> Result<()> {
    sys::unshare(TIME as i32).step(|| "unshare time namespace".to_owned())?;
    let mut text = String::new();
    for (clock, offset) in &spec.linux.time_offsets {
        let _ = writeln!(text, "{clock} {} {}", offset.secs, offset.nanosecs);
    }
    if text.is_empty() {
        return Ok(());
    }
    fs::write("/proc/self/timens_offsets", text).step(|| "write timens_offsets".to_owned())
}

/// Brings up the loopback interface of a new network namespace.
pub fn loopback_up() -> Result<()> {
    let socket = sys::control_socket().step(|| "open a socket for loopback".to_owned())?;
    // SAFETY: an all-zero ifreq is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_LOOPBACK | libc::IFF_RUNNING) as i16;
    sys::ioctl_with(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &mut request)
        .step(|| "bring up loopback".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_separate_new_and_joined() {
        let namespace = |kind: &str, path: &str| Namespace {
            kind: kind.to_owned(),
            path: path.to_owned(),
        };
        let plan = plan(&[
            namespace("pid", ""),
            namespace("network", "/proc/self/ns/net"),
        ])
        .unwrap();
        assert_eq!(plan.new, PID);
        assert!(plan.joins(NET).is_some() && plan.has(NET) && !plan.has(USER));
        assert!(super::plan(&[namespace("pid", ""), namespace("pid", "")]).is_err());
        assert!(super::plan(&[namespace("pod", "")]).is_err());
        assert!(super::plan(&[namespace("ipc", "/no/such")]).is_err());
    }

    #[test]
    fn mappings_are_lines() {
        let mapping = IdMapping {
            container_id: 0,
            host_id: 100_000,
            size: 65_536,
        };
        assert_eq!(
            mapping_text(&[mapping, mapping]),
            "0 100000 65536\n0 100000 65536\n"
        );
    }
}
