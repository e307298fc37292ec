//! From the runtime's child to the container's command: limits, identity, capabilities, execve.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use crate::capabilities::Sets;
use crate::error::{Context, Errno, Error, Result};
use crate::seccomp::Filter;
use crate::spec::{IoPriority, Process, Rlimit, Scheduler};
use crate::sys;

const RLIMITS: [(&str, u32); 16] = [
    ("RLIMIT_CPU", 0),
    ("RLIMIT_FSIZE", 1),
    ("RLIMIT_DATA", 2),
    ("RLIMIT_STACK", 3),
    ("RLIMIT_CORE", 4),
    ("RLIMIT_RSS", 5),
    ("RLIMIT_NPROC", 6),
    ("RLIMIT_NOFILE", 7),
    ("RLIMIT_MEMLOCK", 8),
    ("RLIMIT_AS", 9),
    ("RLIMIT_LOCKS", 10),
    ("RLIMIT_SIGPENDING", 11),
    ("RLIMIT_MSGQUEUE", 12),
    ("RLIMIT_NICE", 13),
    ("RLIMIT_RTPRIO", 14),
    ("RLIMIT_RTTIME", 15),
];

/// The kernel's number of a limit; an unknown name is an error in runc's words.
pub fn rlimit_number(limit: &Rlimit) -> Result<u32> {
    RLIMITS
        .iter()
        .find(|(name, _)| *name == limit.kind)
        .map(|(_, number)| *number)
        .ok_or_else(|| Error::Config(format!("wrong rlimit value: {}", limit.kind)))
}

/// Sets limits of a process (0 for this one).
pub fn set_rlimits(pid: i32, limits: &[Rlimit]) -> Result<()> {
    for limit in limits {
        let resource = rlimit_number(limit)?;
        sys::prlimit(pid, resource, limit.soft, limit.hard)
            .step(|| format!("error setting rlimit type {resource}"))?;
    }
    Ok(())
}

pub fn set_scheduler(config: &Scheduler) -> Result<()> {
    let policy = match config.policy.as_str() {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_ISO" => 4,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => 6,
        other => return Err(Error::Config(format!("invalid scheduler policy {other:?}"))),
    };
    let mut flags = 0;
    for flag in &config.flags {
        flags |= match flag.as_str() {
            "SCHED_FLAG_RESET_ON_FORK" => 0x01,
            "SCHED_FLAG_RECLAIM" => 0x02,
            "SCHED_FLAG_DL_OVERRUN" => 0x04,
            "SCHED_FLAG_KEEP_POLICY" => 0x08,
            "SCHED_FLAG_KEEP_PARAMS" => 0x10,
            "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
            "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
            other => return Err(Error::Config(format!("invalid scheduler flag {other:?}"))),
        };
    }
    let attr = sys::SchedAttr {
        size: size_of::<sys::SchedAttr>() as u32,
        policy,
        flags,
        nice: config.nice,
        priority: config.priority as u32,
        runtime: config.runtime,
        deadline: config.deadline,
        period: config.period,
    };
    sys::sched_setattr(&attr).step(|| "error setting scheduler".to_owned())
}

pub fn set_io_priority(config: &IoPriority) -> Result<()> {
    let class = match config.class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => {
            return Err(Error::Config(format!(
                "invalid io priority class {other:?}"
            )));
        }
    };
    sys::set_io_priority(class << 13 | i32::from(config.priority & 0x1fff))
        .step(|| "error setting io priority".to_owned())
}

/// Everything between a finished root and the command that needs privilege or takes it away.
/// Returns the command's file, found as its user.
pub fn become_container_process(process: &Process, filter: Option<&Filter>) -> Result<PathBuf> {
    if process.no_new_privileges {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).step(|| "set no_new_privs".to_owned())?;
    } else if let Some(filter) = filter {
        // Without no_new_privs only a privileged process may install a filter: before the drop.
        filter.install()?;
    }
    let sets = process.capabilities.as_ref().map(Sets::from);
    if let Some(sets) = &sets {
        sets.drop_bounding()?;
        sys::prctl(libc::PR_SET_KEEPCAPS, 1).step(|| "keep capabilities".to_owned())?;
    }
    // As root first: the directory may belong to the user alone or to root alone (below).
    let early = change_directory(&process.cwd);
    change_user(process)?;
    if let Some(sets) = &sets {
        sys::prctl(libc::PR_SET_KEEPCAPS, 0).step(|| "clear keep capabilities".to_owned())?;
        sets.apply()?;
    }
    match early {
        Err(Error::Cwd { .. }) => change_directory(&process.cwd)?,
        result => result?,
    }
    let path = find_command(process)?;
    if process.no_new_privileges
        && let Some(filter) = filter
    {
        filter.install()?;
    }
    Ok(path)
}

/// Also checks that the directory is inside the root: a path through a leaked descriptor
/// (/proc/self/fd/N) could lead out of it (CVE-2024-21626).
fn change_directory(cwd: &str) -> Result<()> {
    if cwd.is_empty() {
        return Ok(());
    }
    let failed = |reason: String| Error::Cwd {
        cwd: cwd.to_owned(),
        reason,
    };
    sys::chdir(Path::new(cwd)).map_err(|errno| failed(errno.to_string()))?;
    match sys::getcwd() {
        Ok(path) if path.first() == Some(&b'/') => Ok(()),
        Ok(_) => Err(Error::Config(
            "current working directory is outside of container mount namespace root".to_owned(),
        )),
        Err(errno) => Err(failed(errno.to_string())),
    }
}

fn change_user(process: &Process) -> Result<()> {
    let user = &process.user;
    own_stdio(user.uid);
    let may_set_groups = std::fs::read("/proc/self/setgroups").is_ok_and(|text| text != b"deny\n");
    if may_set_groups || !user.additional_gids.is_empty() {
        sys::setgroups(&user.additional_gids).step(|| "setgroups".to_owned())?;
    } else if !Path::new("/proc/self/setgroups").exists() {
        // No /proc in this container.
        let _ = sys::setgroups(&[]);
    }
    sys::umask(user.umask.unwrap_or(0o022));
    sys::set_gid(user.gid).step(|| format!("setgid {}", user.gid))?;
    sys::set_uid(user.uid).step(|| format!("setuid {}", user.uid))?;
    // Changing credentials may have reset this; until execve nobody shall look into us.
    sys::prctl(libc::PR_SET_DUMPABLE, 0).step(|| "set non-dumpable".to_owned())
}

/// Lets the container's user reopen /proc/self/fd/1 and so on. What cannot change its owner
/// (a read-only or foreign file system) is left alone; so is /dev/null.
fn own_stdio(uid: u32) {
    for fd in 0..3 {
        if let Ok(stat) = sys::fstat(fd)
            && stat.st_uid != uid
            && stat.st_rdev != libc::makedev(1, 3)
        {
            let _ = sys::fchown(fd, uid, u32::MAX);
        }
    }
}

/// Finds the command as Go's exec.LookPath does, whose messages Docker's clients know.
fn find_command(process: &Process) -> Result<PathBuf> {
    let name = process.args.first().map(String::as_str).unwrap_or_default();
    let failed = |reason: String| Error::Lookup {
        name: name.to_owned(),
        reason,
    };
    if name.contains('/') {
        check_executable(Path::new(name)).map_err(failed)?;
        return Ok(PathBuf::from(name));
    }
    let path = process
        .env
        .iter()
        .rev()
        .find_map(|entry| entry.strip_prefix("PATH="));
    for directory in path.unwrap_or_default().split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = Path::new(directory).join(name);
        if check_executable(&candidate).is_ok() {
            if !candidate.is_absolute() {
                return Err(failed(
                    "cannot run executable found relative to current directory".to_owned(),
                ));
            }
            return Ok(candidate);
        }
    }
    Err(failed("executable file not found in $PATH".to_owned()))
}

fn check_executable(path: &Path) -> std::result::Result<(), String> {
    let stat = sys::stat(path).map_err(|errno| format!("stat {}: {errno}", path.display()))?;
    if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(Errno(libc::EISDIR).to_string());
    }
    sys::eaccess(path, libc::X_OK).map_err(|errno| errno.to_string())?;
    // Root passes access(2) with any bit set anywhere; none at all is still no program.
    if stat.st_mode & 0o111 == 0 {
        Err(Errno(libc::EACCES).to_string())
    } else {
        Ok(())
    }
}

/// The environment with duplicates removed (the last wins) and HOME filled in.
pub fn environment(process: &Process) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut list: Vec<String> = process
        .env
        .iter()
        .rev()
        .filter(|entry| seen.insert(entry.split('=').next().unwrap_or_default()))
        .cloned()
        .collect();
    list.reverse();
    if !list.iter().any(|entry| entry.starts_with("HOME=")) {
        let home = home_of(process.user.uid).unwrap_or_else(|| "/".to_owned());
        list.push(format!("HOME={home}"));
    }
    list
}

/// An image's /etc/passwd may be anything: only so much of it is read.
const PASSWD_LIMIT: u64 = 1 << 20;

fn home_of(uid: u32) -> Option<String> {
    let mut text = String::new();
    File::open("/etc/passwd")
        .ok()?
        .take(PASSWD_LIMIT)
        .read_to_string(&mut text)
        .ok()?;
    home_in(&text, uid)
}

fn home_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let matches = fields.nth(2)?.parse() == Ok(uid);
        let home = fields.nth(2)?;
        (matches && !home.is_empty()).then(|| home.to_owned())
    })
}

/// Closes all that is ours and executes the command; `keep` descriptors above stdio stay.
pub fn execute(path: &Path, process: &Process, env: &[String], keep: u32) -> Error {
    let strings = |list: &[String]| -> std::result::Result<Vec<CString>, Errno> {
        list.iter().map(sys::cstring).collect()
    };
    let failed = |errno| Error::Exec {
        path: path.display().to_string(),
        errno,
    };
    let prepared = || {
        Ok((
            sys::cstring(path.as_os_str().as_encoded_bytes())?,
            strings(&process.args)?,
            strings(env)?,
        ))
    };
    match prepared() {
        Ok((path, args, env)) => {
            sys::cloexec_from(first_unkept(keep));
            failed(sys::execve(&path, &args, &env))
        }
        Err(errno) => failed(errno),
    }
}

pub fn first_unkept(keep: u32) -> RawFd {
    3 + keep as RawFd
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(args: &[&str], env: &[&str]) -> Process {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Process {
            args: list(args),
            env: list(env),
            cwd: "/".to_owned(),
            ..Process::default()
        }
    }

    #[test]
    fn lookup_speaks_as_go_does() {
        for (command, path, message) in [
            (
                "nope",
                "PATH=/usr/bin:/bin",
                r#"exec: "nope": executable file not found in $PATH"#,
            ),
            (
                "sh",
                "X=1",
                r#"exec: "sh": executable file not found in $PATH"#,
            ),
            (
                "/nope",
                "",
                r#"exec: "/nope": stat /nope: no such file or directory"#,
            ),
            ("/etc", "", r#"exec: "/etc": is a directory"#),
            (
                "/etc/passwd",
                "",
                r#"exec: "/etc/passwd": permission denied"#,
            ),
        ] {
            let error = find_command(&process(&[command], &[path])).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        let found = find_command(&process(&["sh"], &["PATH=/nope:/bin"])).unwrap();
        assert_eq!(found, Path::new("/bin/sh"));
    }

    #[test]
    fn environment_keeps_the_last_and_adds_home() {
        let env = environment(&process(&[], &["A=1", "B=2", "A=3", "HOME=/h"]));
        assert_eq!(env, ["B=2", "A=3", "HOME=/h"]);
        assert!(
            environment(&process(&[], &[]))
                .iter()
                .any(|entry| entry.starts_with("HOME=/"))
        );
    }

    #[test]
    fn home_comes_from_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbad\nu:x:7:7::/home/u:/bin/sh\n";
        assert_eq!(home_in(passwd, 7).as_deref(), Some("/home/u"));
        assert_eq!(home_in(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(home_in(passwd, 9), None);
    }
}
