//! `exec`: another process in a running container.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use crate::cli::Invocation;
use crate::create::{close_in_child, listen_fds, preserved};
use crate::error::{Context, Error, Result};
use crate::init::{self, Link};
use crate::namespaces;
use crate::seccomp::Filter;
use crate::spec::{Capabilities, Process};
use crate::state::{Directory, State, Status, start_time};
use crate::sync::{self, Channel, Message};
use crate::terminal;
use crate::{cgroup, foreground, process, sys};

/// The largest process file that is read.
const PROCESS_LIMIT: u64 = 16 << 20;

pub fn exec(call: &Invocation) -> Result<i32> {
    run(call).map_err(|error| match error {
        Error::Usage(_) => error,
        error => Error::ExecCommand(Box::new(error)),
    })
}

fn run(call: &Invocation) -> Result<i32> {
    let directory = Directory::of(&call.global.root, call.id()?);
    let state = directory.load()?;
    match directory.status(&state) {
        Status::Created | Status::Running => {}
        Status::Paused if call.is_set("ignore-paused") => {}
        Status::Paused => {
            return Err(Error::Config(
                "cannot exec in a paused container (use --ignore-paused to override)".to_owned(),
            ));
        }
        _ => {
            return Err(Error::Config(
                "cannot exec in a stopped container".to_owned(),
            ));
        }
    }
    let process = process_of(call, &state)?;
    if process.args.is_empty() {
        return Err(Error::Config("process.args must not be empty".to_owned()));
    }
    if call.is_set("detach") {
        return start(call, &directory, &state, &process, None)
            .map(|_| 0)
            .map_err(in_start);
    }
    let mut front = foreground::Foreground::new()?;
    let pid = start(call, &directory, &state, &process, Some(&mut front)).map_err(in_start)?;
    front.wait(pid)
}

fn in_start(error: Error) -> Error {
    Error::Start(Box::new(error))
}

/// The process from `--process`, or the container's own changed by flags and arguments.
fn process_of(call: &Invocation, state: &State) -> Result<Process> {
    let mut process = match call.value("process") {
        Some(path) => read_process(path)?,
        None => {
            let mut process = Process {
                terminal: false,
                ..state.process.clone()
            };
            process.args = call.args.get(1..).unwrap_or_default().to_vec();
            process.console_size = None;
            apply_flags(call, &mut process)?;
            process
        }
    };
    process.capabilities = process
        .capabilities
        .or_else(|| state.process.capabilities.clone());
    process.oom_score_adj = process.oom_score_adj.or(state.process.oom_score_adj);
    if !Path::new(&process.cwd).is_absolute() {
        return Err(Error::Config("cwd must be an absolute path".to_owned()));
    }
    Ok(process)
}

fn read_process(path: &str) -> Result<Process> {
    let parse_error = |reason: String| Error::Parse {
        path: path.to_owned(),
        reason,
    };
    let length = fs::metadata(path).step(|| format!("open {path}"))?.len();
    if length > PROCESS_LIMIT {
        return Err(parse_error(format!("larger than {PROCESS_LIMIT} bytes")));
    }
    let bytes = fs::read(path).step(|| format!("read {path}"))?;
    serde_json::from_slice(&bytes).map_err(|error| parse_error(error.to_string()))
}

fn apply_flags(call: &Invocation, process: &mut Process) -> Result<()> {
    let number = |text: &str| {
        text.parse::<u32>()
            .map_err(|_| Error::Usage(format!("invalid user or group {text:?}")))
    };
    process.terminal = call.is_set("tty");
    if let Some(cwd) = call.value("cwd") {
        process.cwd = cwd.to_owned();
    }
    process.env.extend(call.values("env").map(str::to_owned));
    if let Some(user) = call.value("user") {
        let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
        process.user.uid = number(uid)?;
        if !gid.is_empty() {
            process.user.gid = number(gid)?;
        }
    }
    for gid in call.values("additional-gids") {
        process.user.additional_gids.push(number(gid)?);
    }
    if call.is_set("no-new-privs") {
        process.no_new_privileges = true;
    }
    let added: Vec<String> = call.values("cap").map(str::to_owned).collect();
    if !added.is_empty() {
        let sets = process
            .capabilities
            .get_or_insert_with(Capabilities::default);
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(added.iter().cloned());
        }
    }
    Ok(())
}

/// What the forked child works with.
struct Guest<'a> {
    state: &'a State,
    process: &'a Process,
    init: OwnedFd,
    /// CLONE_* of the namespaces to enter.
    kinds: u64,
    /// The container's root, when it has no mount namespace to bring it along.
    root: Option<OwnedFd>,
    console: Option<OwnedFd>,
    filter: Option<Filter>,
    preserve_fds: u32,
}

fn start(
    call: &Invocation,
    directory: &Directory,
    state: &State,
    process: &Process,
    front: Option<&mut foreground::Foreground>,
) -> Result<i32> {
    let init = sys::pidfd_open(state.pid).step(|| format!("open process {}", state.pid))?;
    // Checked after the descriptor exists: the number cannot pass to another process any more.
    if start_time(state.pid) != Some(state.start_time) {
        return Err(Error::NotRunning);
    }
    let kinds = state.namespaces.iter().try_fold(0, |kinds, namespace| {
        Ok::<_, Error>(kinds | namespaces::flag(&namespace.kind)?)
    })?;
    let guest = Guest {
        state,
        process,
        kinds,
        root: open_root(state, kinds)?,
        console: console(call, process, front)?,
        filter: filter(directory, state)?,
        preserve_fds: preserved(call)?,
        init,
    };
    if let Some(score) = process.oom_score_adj {
        fs::write("/proc/self/oom_score_adj", score.to_string())
            .step(|| "set oom_score_adj".to_owned())?;
    }
    if kinds & namespaces::PID != 0 {
        // Acts on our children: one fork is enough.
        sys::setns(guest.init.as_raw_fd(), libc::CLONE_NEWPID)
            .step(|| "join pid namespace".to_owned())?;
    }
    let (ours, theirs) = sync::pair()?;
    let pid = fork(state, call, &ours, theirs, &guest)?;
    if let Err(error) = converse(&ours, process, pid) {
        let _ = sys::kill(pid, libc::SIGKILL);
        let _ = sys::wait(pid);
        return Err(error);
    }
    if let Some(path) = call.value("pid-file").filter(|path| !path.is_empty()) {
        crate::state::write_atomically(Path::new(path), pid.to_string().as_bytes())?;
    }
    Ok(pid)
}

fn open_root(state: &State, kinds: u64) -> Result<Option<OwnedFd>> {
    if kinds & namespaces::MOUNT != 0 {
        return Ok(None);
    }
    let path = format!("/proc/{}/root", state.pid);
    sys::open(Path::new(&path), libc::O_PATH | libc::O_DIRECTORY)
        .step(|| format!("open {path}"))
        .map(Some)
}

fn console(
    call: &Invocation,
    process: &Process,
    front: Option<&mut foreground::Foreground>,
) -> Result<Option<OwnedFd>> {
    if !process.terminal {
        return Ok(None);
    }
    match (
        call.value("console-socket").filter(|path| !path.is_empty()),
        front,
    ) {
        (Some(path), _) => terminal::connect(path).map(Some),
        (None, Some(front)) => front.console_socket().map(Some),
        (None, None) => Err(Error::Config(
            "cannot allocate tty if runc will detach without setting console socket".to_owned(),
        )),
    }
}

fn filter(directory: &Directory, state: &State) -> Result<Option<Filter>> {
    let Some(flags) = state.seccomp_flags else {
        return Ok(None);
    };
    let path = directory.seccomp_program();
    let bytes = fs::read(&path).step(|| format!("read {}", path.display()))?;
    Filter::from_bytes(&bytes, flags)
        .map(Some)
        .ok_or_else(|| Error::Seccomp(format!("{} is damaged", path.display())))
}

/// Forks into the container's cgroup, or where its first process has moved to: a container that
/// manages cgroups itself leaves none of its processes in the top one.
fn fork(
    state: &State,
    call: &Invocation,
    ours: &Channel,
    theirs: Channel,
    guest: &Guest<'_>,
) -> Result<i32> {
    let sub = call.value("cgroup").unwrap_or_default().trim_matches('/');
    let path = if sub.is_empty() {
        state.cgroup.clone()
    } else {
        format!("{}/{sub}", state.cgroup)
    };
    let own = cgroup::open(&path).map(|fd| sys::fork(0, Some(std::os::fd::AsFd::as_fd(&fd))));
    let forked = match own {
        Ok(Ok(forked)) => Ok(forked),
        _ => {
            let moved = cgroup::of_process(&state.pid.to_string()).unwrap_or_else(|| path.clone());
            let fd = cgroup::open(&moved).map_err(|errno| Error::Cgroup {
                step: format!("open {moved}"),
                errno,
            })?;
            sys::fork(0, Some(std::os::fd::AsFd::as_fd(&fd)))
        }
    };
    match forked.step(|| "clone3".to_owned())? {
        sys::Forked::Parent { pid } => Ok(pid),
        sys::Forked::Child => {
            close_in_child(ours);
            child(guest, theirs)
        }
    }
}

/// Ends when the child has executed its command, or failed to.
fn converse(channel: &Channel, process: &Process, pid: i32) -> Result<()> {
    loop {
        match channel.receive()? {
            // In a user namespace hard limits cannot be raised: we do it, from outside.
            Message::MapUsers => {
                process::set_rlimits(pid, &process.rlimits)?;
                channel.go()?;
            }
            Message::Failed(text) => return Err(Error::Child(text)),
            Message::Closed => return Ok(()),
            other => return Err(Error::Init(format!("unexpected message {other:?}"))),
        }
    }
}

fn child(guest: &Guest<'_>, channel: Channel) -> ! {
    if let Err(error) = enter(guest, &channel) {
        init::report(&channel, &error);
    }
    let link = match Link::keep_only(channel.0, None, guest.preserve_fds) {
        Ok(link) => link,
        Err(_) => sys::exit_now(1),
    };
    let process = guest.process;
    let error = match process::become_container_process(process, guest.filter.as_ref()) {
        Err(error) => error,
        Ok(command) => {
            let mut env = process::environment(process);
            if listen_fds() > 0 {
                env.push(format!("LISTEN_FDS={}", listen_fds()));
            }
            process::execute(&command, process, &env, guest.preserve_fds)
        }
    };
    init::report(&link.channel, &error)
}

fn enter(guest: &Guest<'_>, channel: &Channel) -> Result<()> {
    sys::reset_signals();
    sys::setsid();
    let kinds = guest.kinds & !namespaces::PID;
    if kinds & namespaces::USER != 0 {
        channel.ask(&Message::MapUsers)?;
    } else {
        process::set_rlimits(0, &guest.process.rlimits)?;
    }
    if kinds != 0 {
        sys::setns(guest.init.as_raw_fd(), kinds as i32).step(|| "join namespaces".to_owned())?;
    }
    if kinds & namespaces::USER != 0 {
        init::become_root()?;
    }
    if let Some(root) = &guest.root {
        sys::fchdir(root.as_raw_fd()).step(|| "chdir to container root".to_owned())?;
        sys::chroot(c".").step(|| "chroot".to_owned())?;
    }
    if guest.state.new_keyring {
        let name =
            sys::cstring(format!("_ses.{}", guest.state.id)).step(|| "keyring".to_owned())?;
        let _ = sys::join_session_keyring(&name);
    }
    if let Some(priority) = &guest.process.io_priority {
        process::set_io_priority(priority)?;
    }
    if let Some(scheduler) = &guest.process.scheduler {
        process::set_scheduler(scheduler)?;
    }
    open_terminal(guest)
}

fn open_terminal(guest: &Guest<'_>) -> Result<()> {
    use std::os::fd::AsFd;
    let Some(socket) = &guest.console else {
        return Ok(());
    };
    let root =
        sys::open(Path::new("/"), libc::O_PATH | libc::O_DIRECTORY).step(|| "open /".to_owned())?;
    let terminal = terminal::open(root.as_fd(), guest.process.console_size)?;
    terminal.send_master(socket.as_fd())?;
    terminal.become_controlling()
}
