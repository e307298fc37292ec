//! The child: everything that happens inside the new namespaces, up to the container's command.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::path::Path;

use crate::error::{Context, Error, Result};
use crate::namespaces::{self, Plan};
use crate::rootfs::mounts::Mounter;
use crate::rootfs::{self, devices, masks};
use crate::seccomp::Filter;
use crate::spec::{Process, Spec};
use crate::sync::{Channel, Message};
use crate::terminal::{self, Terminal};
use crate::{hooks, process, sys};

/// All that the child needs, gathered by the parent before the fork.
pub struct Init<'a> {
    pub spec: &'a Spec,
    pub process: &'a Process,
    pub plan: &'a Plan,
    pub id: &'a str,
    pub bundle: &'a Path,
    pub rootfs: &'a Path,
    pub cgroup: &'a str,
    /// The state as hooks read it.
    pub state: &'a str,
    pub filter: Option<Filter>,
    pub console: Option<OwnedFd>,
    /// Where `create` parks the child until `start`; None for `run`.
    pub fifo: Option<OwnedFd>,
    pub no_pivot: bool,
    pub new_keyring: bool,
    /// Descriptors from 3 on that the command inherits; the last `listen_fds` of them sockets.
    pub preserve_fds: u32,
    pub listen_fds: u32,
}

/// Runs in the forked child and never returns.
pub fn main(init: &Init<'_>, channel: Channel) -> ! {
    if let Err(error) = bring_up(init, &channel) {
        report(&channel, &error);
    }
    let link = match Link::keep_only(channel.0, init.fifo.as_ref(), init.preserve_fds) {
        Ok(link) => link,
        Err(error) => {
            let _ = sys::write(2, format!("{error}\n").as_bytes());
            sys::exit_now(1)
        }
    };
    let error = finish(init, &link);
    report(&link.channel, &error)
}

/// The only descriptors that are left, above stdio and those to preserve.
pub struct Link {
    pub channel: Channel,
    fifo: Option<OwnedFd>,
}

impl Link {
    /// Closes all others, so that neither the working directory nor the command's path can lead
    /// through one of the runtime's own (/proc/self/fd/N, CVE-2024-21626).
    pub fn keep_only(channel: OwnedFd, fifo: Option<&OwnedFd>, preserve: u32) -> Result<Link> {
        let first = process::first_unkept(preserve);
        let step = || "move descriptors".to_owned();
        let (channel, fifo) = (channel.into_raw_fd(), fifo.map(AsRawFd::as_raw_fd));
        let high = sys::dup_at_least(channel, first + 2)
            .step(step)?
            .into_raw_fd();
        if let Some(fifo) = fifo {
            let copy = sys::dup_at_least(fifo, first + 2).step(step)?.into_raw_fd();
            sys::dup3_cloexec(copy, first + 1).step(step)?;
        }
        sys::dup3_cloexec(high, first).step(step)?;
        sys::close_from(first + 1 + i32::from(fifo.is_some()));
        // SAFETY: both numbers were just made by dup3 and belong to nobody else.
        let own = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Link {
            channel: Channel(own(first)),
            fifo: fifo.map(|_| own(first + 1)),
        })
    }
}

/// Tells the parent. When it has gone (after `create`), and of a command that was found but that
/// the kernel cannot execute, the container's own stderr hears it, with code 255, as from runc.
pub fn report(channel: &Channel, error: &Error) -> ! {
    let at_command = matches!(error, Error::Exec { .. });
    if at_command || channel.send(&Message::Failed(error.to_string())).is_err() {
        let _ = sys::write(2, format!("{error}\n").as_bytes());
        sys::exit_now(255);
    }
    sys::exit_now(1)
}

fn bring_up(init: &Init<'_>, channel: &Channel) -> Result<()> {
    sys::reset_signals();
    sys::setsid();
    enter_namespaces(init, channel)?;
    join_keyring(init)?;
    set_names(init)?;
    let terminal = build_root(init, channel)?;
    if let Some(terminal) = terminal {
        terminal.become_controlling()?;
    }
    let process = init.process;
    if init.plan.new & namespaces::USER == 0 {
        process::set_rlimits(0, &process.rlimits)?;
    }
    if let Some(personality) = &init.spec.linux.personality {
        set_personality(&personality.domain)?;
    }
    if let Some(priority) = &process.io_priority {
        process::set_io_priority(priority)?;
    }
    if let Some(scheduler) = &process.scheduler {
        process::set_scheduler(scheduler)?;
    }
    Ok(())
}

fn enter_namespaces(init: &Init<'_>, channel: &Channel) -> Result<()> {
    let plan = init.plan;
    if plan.new & namespaces::USER != 0 {
        channel.ask(&Message::MapUsers)?;
        become_root()?;
    } else if plan.joins(namespaces::USER).is_none() {
        // The process number's namespace was joined by the parent, for its children.
        for join in plan.join.iter().filter(|join| join.flag != namespaces::PID) {
            join.enter()?;
        }
    }
    if plan.new & namespaces::CGROUP != 0 {
        // Not with clone3: there the new root would be the parent's cgroup.
        sys::unshare(libc::CLONE_NEWCGROUP).step(|| "unshare cgroup namespace".to_owned())?;
    }
    if plan.new & namespaces::NET != 0 {
        namespaces::loopback_up()?;
    }
    Ok(())
}

/// Root of the user namespace, whoever that is outside.
pub fn become_root() -> Result<()> {
    let _ = sys::setgroups(&[]);
    sys::set_gid(0).step(|| "setgid to root in user namespace".to_owned())?;
    sys::set_uid(0).step(|| "setuid to root in user namespace".to_owned())?;
    sys::prctl(libc::PR_SET_DUMPABLE, 0).step(|| "set non-dumpable".to_owned())
}

fn join_keyring(init: &Init<'_>) -> Result<()> {
    if !init.new_keyring {
        return Ok(());
    }
    let name = sys::cstring(format!("_ses.{}", init.id)).step(|| "keyring name".to_owned())?;
    match sys::join_session_keyring(&name) {
        // No keyrings in this kernel, or none allowed: nothing to protect.
        Err(crate::error::Errno(libc::ENOSYS | libc::EPERM | libc::EDQUOT)) => Ok(()),
        result => result.step(|| "join session keyring".to_owned()),
    }
}

fn set_names(init: &Init<'_>) -> Result<()> {
    if let Some(name) = init
        .spec
        .hostname
        .as_deref()
        .filter(|name| !name.is_empty())
    {
        sys::sethostname(name).step(|| "sethostname".to_owned())?;
    }
    if let Some(name) = init
        .spec
        .domainname
        .as_deref()
        .filter(|name| !name.is_empty())
    {
        sys::setdomainname(name).step(|| "setdomainname".to_owned())?;
    }
    Ok(())
}

/// Puts the root together and enters it; hooks run in between, as the specification orders them.
fn build_root(init: &Init<'_>, channel: &Channel) -> Result<Option<Terminal>> {
    if !init.plan.has(namespaces::MOUNT) {
        write_sysctls(init)?;
        run_early_hooks(init, channel)?;
        let root = sys::open(init.rootfs, libc::O_PATH | libc::O_DIRECTORY)
            .step(|| format!("open rootfs {}", init.rootfs.display()))?;
        let terminal = open_terminal(init, root.as_fd(), false)?;
        rootfs::change_root(init.rootfs)?;
        return Ok(terminal);
    }
    let linux = &init.spec.linux;
    let root = rootfs::attach(init.rootfs, &linux.rootfs_propagation)?;
    sys::umask(0);
    let terminal = fill_root(init, root.as_fd())?;
    write_sysctls(init)?;
    run_early_hooks(init, channel)?;
    masks::make_readonly(root.as_fd(), &linux.readonly_paths)?;
    masks::mask(root.as_fd(), &linux.masked_paths)?;
    if init.no_pivot {
        rootfs::move_root(&root)?;
    } else {
        rootfs::pivot(&root)?;
    }
    rootfs::set_propagation(&linux.rootfs_propagation)?;
    if init.spec.root.as_ref().is_some_and(|root| root.readonly) {
        rootfs::make_readonly()?;
    }
    sys::umask(0o022);
    Ok(terminal)
}

fn fill_root(init: &Init<'_>, root: BorrowedFd<'_>) -> Result<Option<Terminal>> {
    let mut mounter = Mounter {
        root,
        bundle: init.bundle,
        cgroup: init.cgroup,
        cgroup_namespace: init.plan.has(namespaces::CGROUP),
        late_readonly: Vec::new(),
    };
    for mount in &init.spec.mounts {
        mounter.mount(mount)?;
    }
    let owns_dev = rootfs::owns_dev(init.spec);
    if owns_dev {
        devices::create(root, &init.spec.linux.devices)?;
    }
    let terminal = open_terminal(init, root, owns_dev)?;
    make_cwd(init, root)?;
    mounter
        .finish()
        .step(|| "make mounts read-only".to_owned())?;
    Ok(terminal)
}

fn open_terminal(
    init: &Init<'_>,
    root: BorrowedFd<'_>,
    owns_dev: bool,
) -> Result<Option<Terminal>> {
    let Some(socket) = &init.console else {
        return Ok(None);
    };
    let terminal = terminal::open(root, init.process.console_size)?;
    if owns_dev {
        devices::mount_console(root, terminal.slave.as_fd())
            .step(|| "mount terminal on /dev/console".to_owned())?;
    }
    terminal.send_master(socket.as_fd())?;
    Ok(Some(terminal))
}

/// A working directory that the image lacks is made, as Docker's users expect of WORKDIR.
fn make_cwd(init: &Init<'_>, root: BorrowedFd<'_>) -> Result<()> {
    use rootfs::target::{Kind, open_or_create};
    let cwd = &init.process.cwd;
    sys::umask(0o022);
    let made = open_or_create(root, Path::new(cwd), Kind::Directory).and_then(|directory| {
        let mode = sys::fstat(directory.as_raw_fd())?.st_mode;
        let is_directory = mode & libc::S_IFMT == libc::S_IFDIR;
        if is_directory {
            Ok(())
        } else {
            Err(crate::error::Errno(libc::ENOTDIR))
        }
    });
    sys::umask(0);
    match made {
        // An image's author may have chosen one that even root may not look at.
        Err(crate::error::Errno(libc::EACCES)) => Ok(()),
        result => result.step(|| format!("mkdir {cwd}")),
    }
}

/// Through the host's /proc, still visible here: these files answer for the writer's namespaces.
fn write_sysctls(init: &Init<'_>) -> Result<()> {
    for (key, value) in &init.spec.linux.sysctl {
        let path = sysctl_path(key)?;
        fs::write(&path, value).step(|| format!("open sysctl {key} file: {path}"))?;
    }
    Ok(())
}

/// Dots separate, unless the first separator is a slash (sysctl.d(5)).
fn sysctl_path(key: &str) -> Result<String> {
    let dotted = match (key.find('.'), key.find('/')) {
        (Some(dot), Some(slash)) => dot < slash,
        (_, slash) => slash.is_none(),
    };
    let swap = |letter| match letter {
        '.' if dotted => '/',
        '/' if dotted => '.',
        other => other,
    };
    let path: String = key.chars().map(swap).collect();
    if path.split('/').any(|part| part == ".." || part.is_empty()) {
        return Err(Error::Config(format!(
            "sysctl {key:?} is not a sysctl's name"
        )));
    }
    Ok(format!("/proc/sys/{path}"))
}

fn run_early_hooks(init: &Init<'_>, channel: &Channel) -> Result<()> {
    let all = &init.spec.hooks;
    if !all.prestart.is_empty() || !all.create_runtime.is_empty() {
        channel.ask(&Message::RunHooks)?;
    }
    if all.create_container.is_empty() {
        return Ok(());
    }
    hooks::run("createContainer", &all.create_container, init.state)
}

fn set_personality(domain: &str) -> Result<()> {
    let persona = match domain {
        "LINUX" => 0,
        "LINUX32" => 8,
        other => {
            return Err(Error::Config(format!(
                "invalid personality domain {other:?}"
            )));
        }
    };
    sys::set_personality(persona).step(|| "set personality".to_owned())
}

/// Returns only the reason why the command does not run.
fn finish(init: &Init<'_>, link: &Link) -> Error {
    let process = init.process;
    let steps = || {
        let command = process::become_container_process(process, init.filter.as_ref())?;
        let mut env = process::environment(process);
        if init.listen_fds > 0 {
            env.push(format!("LISTEN_FDS={}", init.listen_fds));
            env.push("LISTEN_PID=1".to_owned());
        }
        if let Some(fifo) = &link.fifo {
            link.channel.send(&Message::Ready)?;
            // Opened for reading and writing: never at end of file, only `start` ends the wait.
            sys::read(fifo.as_raw_fd(), &mut [0u8; 1]).step(|| "wait at exec fifo".to_owned())?;
        }
        hooks::run(
            "startContainer",
            &init.spec.hooks.start_container,
            init.state,
        )?;
        Ok((command, env))
    };
    match steps() {
        Ok((command, env)) => process::execute(&command, process, &env, init.preserve_fds),
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_names_become_paths() {
        for (key, path) in [
            ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
            (
                "net/ipv4/conf/eth0.1/forwarding",
                "/proc/sys/net/ipv4/conf/eth0.1/forwarding",
            ),
            (
                "net.ipv4.conf.eth0/1.forwarding",
                "/proc/sys/net/ipv4/conf/eth0.1/forwarding",
            ),
        ] {
            assert_eq!(sysctl_path(key).unwrap(), path);
        }
        for key in ["../x", "net/../../x", "a..b", ""] {
            assert!(sysctl_path(key).is_err(), "{key}");
        }
    }
}
