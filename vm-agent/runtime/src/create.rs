//! `create` and `run`: a container from a bundle.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::cli::Invocation;
use crate::error::{Context, Error, Result};
use crate::init::{self, Init};
use crate::namespaces::{self, Plan};
use crate::seccomp::{self, Filter};
use crate::spec::Spec;
use crate::state::{Directory, State, Status, start_time};
use crate::sync::{self, Channel, Message};
use crate::{cgroup, clock, foreground, hooks, launch, lifecycle, process, sys, terminal};

/// The largest config.json that is read.
const CONFIG_LIMIT: u64 = 16 << 20;

/// `run` executes the command at once; `create` leaves it waiting for `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Create,
    Run,
}

pub fn create(call: &Invocation) -> Result<i32> {
    named(call, "create", build(call, Mode::Create, None).map(|_| 0))
}

pub fn run(call: &Invocation) -> Result<i32> {
    named(call, "run", run_container(call))
}

fn named(_call: &Invocation, verb: &'static str, result: Result<i32>) -> Result<i32> {
    result.map_err(|cause| match cause {
        Error::Usage(_) => cause,
        cause => Error::Command {
            program: "longshore-runtime",
            verb,
            cause: Box::new(cause),
        },
    })
}

fn run_container(call: &Invocation) -> Result<i32> {
    if call.is_set("detach") {
        build(call, Mode::Run, None)?;
        return Ok(0);
    }
    let mut front = foreground::Foreground::new()?;
    let (directory, state) = build(call, Mode::Run, Some(&mut front))?;
    let code = front.wait(state.pid)?;
    if !call.is_set("keep") {
        lifecycle::remove(&directory, &state)?;
    }
    Ok(code)
}

/// A container that is being made: undone when it is dropped before it is complete.
struct Unfinished<'a> {
    directory: Option<Directory>,
    cgroup: &'a str,
    made_cgroup: bool,
    pid: i32,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            if self.pid > 0 {
                let _ = sys::kill(self.pid, libc::SIGKILL);
                let _ = sys::wait(self.pid);
            }
            if self.made_cgroup {
                let _ = cgroup::remove(self.cgroup);
            }
            let _ = directory.remove();
        }
    }
}

fn build(
    call: &Invocation,
    mode: Mode,
    front: Option<&mut foreground::Foreground>,
) -> Result<(Directory, State)> {
    let id = call.id()?;
    let bundle = bundle_path(call)?;
    let spec = read_spec(&bundle)?;
    let plan = check(&spec)?;
    let cgroup = cgroup::resolve(&spec.linux.cgroups_path, id)?;
    let rootfs = rootfs_path(&bundle, &spec)?;
    let directory = Directory::create(&call.global.root, id)?;
    let mut unfinished = Unfinished {
        directory: Some(directory),
        cgroup: &cgroup,
        made_cgroup: false,
        pid: 0,
    };
    let mut state = new_state(call, &spec, id, &bundle, rootfs, &cgroup);
    let maker = Maker {
        call,
        mode,
        spec: &spec,
        plan: &plan,
        bundle: &bundle,
    };
    let made = maker.make(&mut unfinished, &mut state, front);
    if let Err(error) = made {
        let keep = matches!(error, Error::Init(_) | Error::Config(_) | Error::Seccomp(_));
        return Err(if keep {
            error
        } else {
            Error::Start(Box::new(error))
        });
    }
    match unfinished.directory.take() {
        Some(directory) => Ok((directory, state)),
        None => Err(Error::NotExist),
    }
}

fn bundle_path(call: &Invocation) -> Result<PathBuf> {
    let bundle = call
        .value("bundle")
        .filter(|path| !path.is_empty())
        .unwrap_or(".");
    fs::canonicalize(bundle).step(|| format!("bundle {bundle}"))
}

fn read_spec(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let metadata = fs::metadata(&path).map_err(|error| Error::Parse {
        path: "JSON specification file config.json not found".to_owned(),
        reason: error.to_string(),
    })?;
    let parse_error = |reason: String| Error::Parse {
        path: path.display().to_string(),
        reason,
    };
    if metadata.len() > CONFIG_LIMIT {
        return Err(parse_error(format!("larger than {CONFIG_LIMIT} bytes")));
    }
    let bytes = fs::read(&path).step(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| parse_error(error.to_string()))
}

/// What no later step could refuse in better words.
fn check(spec: &Spec) -> Result<Plan> {
    let config = |words: &str| Err(Error::Config(words.to_owned()));
    if !spec.oci_version.starts_with("1.") {
        return config(&format!("unsupported spec version {:?}", spec.oci_version));
    }
    let Some(process) = &spec.process else {
        return config("process must be set");
    };
    if process.args.is_empty() || process.args[0].is_empty() {
        return config("process.args must not be empty");
    }
    if !Path::new(&process.cwd).is_absolute() {
        return config("cwd must be an absolute path");
    }
    for limit in &process.rlimits {
        process::rlimit_number(limit)?;
    }
    let plan = namespaces::plan(&spec.linux.namespaces)?;
    if plan.new & namespaces::USER != 0 && spec.linux.uid_mappings.is_empty() {
        return config("user namespaces enabled, but no uid mappings found");
    }
    if spec
        .hostname
        .as_deref()
        .is_some_and(|name| !name.is_empty())
        && !plan.has(libc::CLONE_NEWUTS as u64)
    {
        return config("unable to set hostname without a private UTS namespace");
    }
    Ok(plan)
}

fn rootfs_path(bundle: &Path, spec: &Spec) -> Result<PathBuf> {
    let Some(root) = &spec.root else {
        return Err(Error::Config("root must be set".to_owned()));
    };
    let path = bundle.join(&root.path);
    fs::canonicalize(&path).map_err(|error| {
        Error::Config(format!(
            "invalid rootfs: {}: {}",
            path.display(),
            crate::error::Errno::from(error)
        ))
    })
}

fn new_state(
    call: &Invocation,
    spec: &Spec,
    id: &str,
    bundle: &Path,
    rootfs: PathBuf,
    cgroup: &str,
) -> State {
    State {
        oci_version: spec.oci_version.clone(),
        id: id.to_owned(),
        pid: 0,
        start_time: 0,
        bundle: bundle.to_path_buf(),
        rootfs,
        created: clock::now(),
        cgroup: cgroup.to_owned(),
        namespaces: spec.linux.namespaces.clone(),
        process: spec.process.clone().unwrap_or_default(),
        hooks: spec.hooks.clone(),
        annotations: spec.annotations.clone(),
        seccomp_flags: None,
        new_keyring: !call.is_set("no-new-keyring"),
    }
}

struct Maker<'a> {
    call: &'a Invocation,
    mode: Mode,
    spec: &'a Spec,
    plan: &'a Plan,
    bundle: &'a Path,
}

impl Maker<'_> {
    fn make(
        &self,
        unfinished: &mut Unfinished<'_>,
        state: &mut State,
        front: Option<&mut foreground::Foreground>,
    ) -> Result<()> {
        let Some(directory) = &unfinished.directory else {
            return Err(Error::NotExist);
        };
        let filter = self.filter(directory, state)?;
        // The intent, before anything exists that a `delete --force` would have to find.
        directory.save(state)?;
        let console = self.console(front)?;
        let fifo = self.fifo(directory)?;
        unfinished.made_cgroup = true;
        let cgroup = self.cgroup(&state.cgroup)?;
        if let Some(score) = state.process.oom_score_adj {
            // Inherited by the child, which in a user namespace could not write its own.
            fs::write("/proc/self/oom_score_adj", score.to_string())
                .step(|| "set oom_score_adj".to_owned())?;
        }
        let report = state_json(state, Status::Creating);
        let (ours, theirs) = sync::pair()?;
        let parent_end = &ours;
        let init = Init {
            spec: self.spec,
            process: &state.process,
            plan: self.plan,
            id: &state.id,
            bundle: self.bundle,
            rootfs: &state.rootfs,
            cgroup: &state.cgroup,
            state: &report,
            filter,
            console,
            fifo,
            no_pivot: self.call.is_set("no-pivot"),
            new_keyring: state.new_keyring,
            preserve_fds: preserved(self.call)?,
            listen_fds: listen_fds(),
        };
        let pid = launch::spawn(
            self.plan,
            self.spec,
            Some(&cgroup),
            &ours,
            theirs,
            &|channel| {
                close_in_child(parent_end);
                init::main(&init, channel)
            },
        )?;
        unfinished.pid = pid;
        drop(init);
        state.pid = pid;
        state.start_time = start_time(pid).unwrap_or(0);
        self.converse(&ours, state)?;
        self.complete(unfinished, state)
    }

    fn filter(&self, directory: &Directory, state: &mut State) -> Result<Option<Filter>> {
        let Some(config) = &self.spec.linux.seccomp else {
            return Ok(None);
        };
        let filter = seccomp::load(&self.call.global.root, config)?;
        // For `exec`, which gets the same program without compiling again.
        let path = directory.seccomp_program();
        fs::write(&path, filter.to_bytes()).step(|| format!("write {}", path.display()))?;
        state.seccomp_flags = Some(filter.flags);
        Ok(Some(filter))
    }

    fn console(&self, front: Option<&mut foreground::Foreground>) -> Result<Option<OwnedFd>> {
        let terminal = self
            .spec
            .process
            .as_ref()
            .is_some_and(|process| process.terminal);
        let socket = self
            .call
            .value("console-socket")
            .filter(|path| !path.is_empty());
        match (terminal, socket, front) {
            (true, Some(path), _) => terminal::connect(path).map(Some),
            (true, None, Some(front)) => front.console_socket().map(Some),
            (true, None, None) => Err(Error::Config(
                "cannot allocate tty if runc will detach without setting console socket".to_owned(),
            )),
            (false, Some(_), _) => Err(Error::Config(
                "cannot use console socket if runc will not detach or allocate tty".to_owned(),
            )),
            (false, None, _) => Ok(None),
        }
    }

    fn fifo(&self, directory: &Directory) -> Result<Option<OwnedFd>> {
        if self.mode == Mode::Run {
            return Ok(None);
        }
        let path = directory.fifo();
        sys::mkfifo(&path, 0o600).step(|| format!("mkfifo {}", path.display()))?;
        sys::open(&path, libc::O_RDWR)
            .step(|| format!("open {}", path.display()))
            .map(Some)
    }

    fn cgroup(&self, path: &str) -> Result<OwnedFd> {
        let fd = cgroup::create(path)?;
        if let Some(resources) = &self.spec.linux.resources {
            cgroup::resources::apply(&cgroup::directory(path), resources)?;
            let rules = cgroup::devices::rules(&resources.devices)?;
            if let Some(program) = cgroup::devices::program(&rules) {
                cgroup::devices::attach(fd.as_fd(), &program)?;
            }
        }
        Ok(fd)
    }

    /// Answers the child until it is ready, has executed, or has failed.
    fn converse(&self, channel: &Channel, state: &State) -> Result<()> {
        loop {
            match channel.receive()? {
                Message::MapUsers => {
                    process::set_rlimits(state.pid, &state.process.rlimits)?;
                    namespaces::write_mappings(state.pid, self.spec)?;
                    channel.go()?;
                }
                Message::RunHooks => {
                    let json = state_json(state, Status::Creating);
                    hooks::run("prestart", &state.hooks.prestart, &json)?;
                    hooks::run("createRuntime", &state.hooks.create_runtime, &json)?;
                    channel.go()?;
                }
                Message::Ready => return Ok(()),
                Message::Closed if self.mode == Mode::Run => return Ok(()),
                Message::Failed(text) => return Err(Error::Init(text)),
                other => return Err(Error::Init(format!("the process died ({other:?})"))),
            }
        }
    }

    fn complete(&self, unfinished: &Unfinished<'_>, state: &State) -> Result<()> {
        let Some(directory) = &unfinished.directory else {
            return Err(Error::NotExist);
        };
        directory.save(state)?;
        if let Some(path) = self.call.value("pid-file").filter(|path| !path.is_empty()) {
            crate::state::write_atomically(Path::new(path), state.pid.to_string().as_bytes())?;
        }
        if self.mode == Mode::Run {
            lifecycle::run_poststart(state);
        }
        Ok(())
    }
}

/// The parent's end must not live on in the child, which waits for the parent's death on its own.
pub fn close_in_child(channel: &Channel) {
    use std::os::fd::AsRawFd;
    // SAFETY: the child never uses or drops the parent's end; it ends in execve or _exit.
    unsafe { libc::close(channel.0.as_raw_fd()) };
}

pub fn state_json(state: &State, status: Status) -> String {
    serde_json::to_string(&state.report(status)).unwrap_or_default()
}

/// Sockets passed to us in systemd's way are the container's.
pub fn listen_fds() -> u32 {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u32>().ok())
    };
    if number("LISTEN_PID") != Some(std::process::id()) {
        return 0;
    }
    number("LISTEN_FDS")
        .filter(|count| *count < 1024)
        .unwrap_or(0)
}

/// How many descriptors from 3 on the command inherits.
pub fn preserved(call: &Invocation) -> Result<u32> {
    let count = call.number("preserve-fds")?.unwrap_or(0);
    u32::try_from(count)
        .ok()
        .filter(|count| *count < 65_536)
        .map(|count| count + listen_fds())
        .ok_or_else(|| Error::Usage(format!("invalid value {count} for flag -preserve-fds")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(change: &str) -> Spec {
        let mut value: serde_json::Value = serde_json::from_str(
            r#"{"ociVersion":"1.2.0","process":{"args":["sh"],"cwd":"/"},"root":{"path":"rootfs"},
                "linux":{"namespaces":[{"type":"mount"},{"type":"uts"}]}}"#,
        )
        .unwrap();
        let change: serde_json::Value = serde_json::from_str(change).unwrap();
        for (key, part) in change.as_object().unwrap() {
            value[key] = part.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn bad_configurations_are_refused_early() {
        assert!(check(&spec("{}")).is_ok());
        for (change, words) in [
            (r#"{"ociVersion":"2.0"}"#, "spec version"),
            (r#"{"process":null}"#, "process must be set"),
            (
                r#"{"process":{"args":[],"cwd":"/"}}"#,
                "args must not be empty",
            ),
            (r#"{"process":{"args":["x"],"cwd":"a"}}"#, "absolute"),
            (
                r#"{"linux":{"namespaces":[{"type":"user"}]}}"#,
                "no uid mappings",
            ),
            (r#"{"hostname":"h","linux":null}"#, "UTS namespace"),
        ] {
            let error = check(&spec(change)).err().map(|error| error.to_string());
            assert!(
                error.as_ref().is_some_and(|text| text.contains(words)),
                "{change}: {error:?}"
            );
        }
    }
}
