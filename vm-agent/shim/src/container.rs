//! The one container of this shim: init, execs, cgroup, and the runtime that makes them.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use containerd_shim_protos::api::{CreateTaskRequest, ExecProcessRequest};
use containerd_shim_protos::events::task as events;
use containerd_shim_protos::protobuf::MessageField;
use tokio::sync::oneshot;

use crate::cgroup::Cgroup;
use crate::console::ConsoleSocket;
use crate::error::{Error, Result, Step};
use crate::events::{Publisher, timestamp};
use crate::exit_file;
use crate::linger::Linger;
use crate::mount;
use crate::options::Options;
use crate::process::{Process, Status};
use crate::reaper::{Exit, Reaper};
use crate::runtime::{Call, ChildStdio, Runtime, args};
use crate::spec;
use crate::stdio::{Owner, Stdio, StdioSpec};

/// A lagging reader may hold up `Delete` for so long; the log file is whole in any case.
const DELETE_PATIENCE: Duration = Duration::from_secs(1);

/// A created container.
#[derive(Debug)]
pub struct Container {
    pub id: String,
    pub namespace: String,
    pub bundle: PathBuf,
    pub runtime: Runtime,
    pub cgroup: Option<Cgroup>,
    pub init: Arc<Process>,
    own_pid_namespace: bool,
    execs: Mutex<HashMap<String, Arc<Process>>>,
    publisher: Publisher,
    linger: Linger,
    oom_kills: Mutex<u64>,
}

/// What a container needs of its shim.
#[derive(Debug, Clone)]
pub struct Surroundings {
    pub namespace: String,
    pub reaper: Reaper,
    pub publisher: Publisher,
    pub linger: Linger,
}

impl Container {
    /// Mounts the root file system and runs `RUNTIME create`.
    pub async fn create(
        request: &CreateTaskRequest,
        around: &Surroundings,
        traceparent: Option<&str>,
    ) -> Result<Arc<Container>> {
        if !request.checkpoint.is_empty() {
            return Err(Error::Unimplemented("restoring a checkpoint"));
        }
        let bundle = PathBuf::from(&request.bundle);
        let options = Options::from_any(request.options.as_ref(), &around.namespace)?;
        exit_file::save_options(&bundle, &options)?;
        if !options.shim_cgroup.is_empty() {
            let cgroup = Cgroup::at(&options.shim_cgroup);
            cgroup
                .join(std::process::id())
                .step("move to the shim's cgroup")?;
        }
        let rootfs = bundle.join("rootfs");
        mount::mount_rootfs(&request.rootfs, &rootfs)?;
        let created = Self::create_mounted(request, around, bundle, options, traceparent).await;
        if created.is_err() {
            mount::unmount_rootfs(&rootfs);
        }
        created
    }

    async fn create_mounted(
        request: &CreateTaskRequest,
        around: &Surroundings,
        bundle: PathBuf,
        options: Options,
        traceparent: Option<&str>,
    ) -> Result<Arc<Container>> {
        let spec = StdioSpec {
            terminal: request.terminal,
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
        };
        let (uid, gid) = (options.io_uid, options.io_gid);
        let owner = Owner {
            id: &request.id,
            namespace: &around.namespace,
            uid,
            gid,
        };
        let (stdio, child_stdio) = Stdio::open(&spec, owner).await?;
        let init = Process::new("", spec, stdio, None, Vec::new());
        let spec::Traits {
            own_pid_namespace,
            own_oom_score,
        } = spec::read(&bundle)?;
        let runtime = Runtime {
            options,
            id: request.id.clone(),
            bundle: bundle.clone(),
            own_oom_score,
            reaper: around.reaper.clone(),
        };
        let mut container = Container {
            id: request.id.clone(),
            namespace: around.namespace.clone(),
            bundle,
            runtime,
            cgroup: None,
            init: Arc::new(init),
            own_pid_namespace,
            execs: Mutex::default(),
            publisher: around.publisher.clone(),
            linger: around.linger.clone(),
            oom_kills: Mutex::default(),
        };
        let _hold = around.reaper.hold();
        let exit = match container.run_create(child_stdio, traceparent).await {
            Ok(exit) => exit,
            Err(error) => {
                // The runtime may have succeeded before the step that failed.
                drop(container.run_delete(traceparent).await);
                return Err(error);
            }
        };
        container.cgroup = Cgroup::of_process(container.init.pid());
        if let Some(cgroup) = &container.cgroup {
            exit_file::save_cgroup(&container.bundle, cgroup)?;
        }
        let container = Arc::new(container);
        container.publish_create(request);
        tokio::spawn(container.clone().supervise(container.init.clone(), exit));
        tokio::spawn(container.clone().watch_memory());
        Ok(container)
    }

    async fn run_create(
        &self,
        stdio: Option<ChildStdio>,
        traceparent: Option<&str>,
    ) -> Result<oneshot::Receiver<Exit>> {
        let pid_file = self.bundle.join("init.pid");
        let mut list = args([
            &"create",
            &"--bundle",
            &self.bundle,
            &"--pid-file",
            &pid_file,
        ]);
        if self.runtime.options.no_pivot_root {
            list.push("--no-pivot".into());
        }
        if self.runtime.options.no_new_keyring {
            list.push("--no-new-keyring".into());
        }
        let process = self.init.clone();
        self.run_process(
            &process,
            "create",
            list,
            &self.id,
            &pid_file,
            stdio,
            traceparent,
        )
        .await
    }

    /// Runs `create` or `exec`: with a console socket if the process has a terminal; takes the
    /// pid from the file that the runtime writes.
    #[allow(
        clippy::too_many_arguments,
        reason = "one call of the runtime, in full"
    )]
    async fn run_process(
        &self,
        process: &Process,
        command: &'static str,
        mut list: Vec<std::ffi::OsString>,
        id: &str,
        pid_file: &Path,
        stdio: Option<ChildStdio>,
        traceparent: Option<&str>,
    ) -> Result<oneshot::Receiver<Exit>> {
        let console = match process.spec.terminal {
            true => Some(ConsoleSocket::listen()?),
            false => None,
        };
        if let Some(console) = &console {
            list.extend(args([&"--console-socket", &console.path()]));
        }
        list.push(id.into());
        let running = self.runtime.run(Call {
            command,
            args: list,
            stdio,
            traceparent,
        });
        match &console {
            None => running.await?,
            Some(console) => {
                // The runtime may end only after its terminal is taken, so both go on at once.
                tokio::pin!(running);
                let (mut done, mut connected) = (false, false);
                while !(done && connected) {
                    tokio::select! {
                        result = &mut running, if !done => {
                            result?;
                            done = true;
                        }
                        master = console.receive(), if !connected => {
                            process.stdio.lock().await.connect_console(master?)?;
                            connected = true;
                        }
                    }
                }
            }
        }
        let pid = read_pid(pid_file)?;
        process.set_pid(pid);
        process.stdio.lock().await.connect_stdin()?;
        Ok(self.runtime.reaper.watch(pid))
    }

    /// Runs `RUNTIME start`, or an exec.
    pub async fn start(self: &Arc<Self>, exec_id: &str, traceparent: Option<&str>) -> Result<u32> {
        let process = self.process(exec_id)?;
        let gate = process.gate.lock().await;
        process.expect("start", &[Status::Created])?;
        if exec_id.is_empty() {
            self.runtime.simple("start", traceparent).await?;
            process.set_status(Status::Running);
            let mut event = events::TaskStart::new();
            event.container_id = self.id.clone();
            event.pid = process.pid() as u32;
            self.publisher.publish(&event);
        } else {
            self.start_exec(&process, traceparent).await?;
        }
        drop(gate);
        Ok(process.pid() as u32)
    }

    async fn start_exec(
        self: &Arc<Self>,
        process: &Arc<Process>,
        traceparent: Option<&str>,
    ) -> Result<()> {
        let exec_id = &process.exec_id;
        let spec_file = self.bundle.join(format!("{exec_id}.json"));
        let pid_file = self.bundle.join(format!("{exec_id}.pid"));
        fs::write(&spec_file, &process.exec_spec).at("write", &spec_file)?;
        let list = args([
            &"exec",
            &"--process",
            &spec_file,
            &"--detach",
            &"--pid-file",
            &pid_file,
        ]);
        let stdio = process.take_child_stdio();
        let _hold = self.runtime.reaper.hold();
        let started = self
            .run_process(
                process,
                "exec",
                list,
                &self.id,
                &pid_file,
                stdio,
                traceparent,
            )
            .await;
        drop(fs::remove_file(&spec_file));
        drop(fs::remove_file(&pid_file));
        let exit = match started {
            Ok(exit) => exit,
            Err(error) => {
                // Whoever waits for it must not wait for ever.
                process.set_exit(Exit {
                    code: 255,
                    time: std::time::SystemTime::now(),
                });
                return Err(error);
            }
        };
        process.set_status(Status::Running);
        let mut event = events::TaskExecStarted::new();
        event.container_id = self.id.clone();
        event.exec_id = exec_id.clone();
        event.pid = process.pid() as u32;
        self.publisher.publish(&event);
        tokio::spawn(self.clone().supervise(process.clone(), exit));
        Ok(())
    }

    /// Registers an exec. Its stdio is opened now, so that readers attach before it starts.
    pub async fn add_exec(&self, request: &ExecProcessRequest) -> Result<()> {
        let exec_id = request.exec_id.as_str();
        let bad = exec_id.is_empty() || exec_id.contains('/') || exec_id.starts_with('.');
        if bad || exec_id.len() > 128 {
            let why = format!("{exec_id:?}");
            return Err(Error::Invalid {
                what: "exec id",
                why,
            });
        }
        if self.execs().contains_key(exec_id) {
            return Err(Error::AlreadyExists {
                what: "exec",
                id: exec_id.to_owned(),
            });
        }
        self.init
            .expect("exec in", &[Status::Created, Status::Running])?;
        let spec = StdioSpec {
            terminal: request.terminal,
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
        };
        let Options {
            io_uid: uid,
            io_gid: gid,
            ..
        } = self.runtime.options;
        let owner = Owner {
            id: exec_id,
            namespace: &self.namespace,
            uid,
            gid,
        };
        let (stdio, child) = Stdio::open(&spec, owner).await?;
        let exec_spec = request.spec.value.clone();
        let process = Process::new(exec_id, spec, stdio, child, exec_spec);
        self.execs().insert(exec_id.to_owned(), Arc::new(process));
        let mut event = events::TaskExecAdded::new();
        event.container_id = self.id.clone();
        event.exec_id = exec_id.to_owned();
        self.publisher.publish(&event);
        Ok(())
    }

    fn execs(&self) -> MutexGuard<'_, HashMap<String, Arc<Process>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Init for the empty id.
    pub fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        if exec_id.is_empty() {
            return Ok(self.init.clone());
        }
        let found = self.execs().get(exec_id).cloned();
        found.ok_or_else(|| Error::NotFound {
            what: "exec",
            id: exec_id.to_owned(),
        })
    }

    /// The exec with that pid.
    pub fn exec_of_pid(&self, pid: u32) -> Option<String> {
        let execs = self.execs();
        execs
            .values()
            .find(|p| p.pid() as u32 == pid)
            .map(|p| p.exec_id.clone())
    }

    /// Handles a process's exit: written to disk first, then told.
    async fn supervise(self: Arc<Self>, process: Arc<Process>, exit: oneshot::Receiver<Exit>) {
        let Ok(exit) = exit.await else { return };
        let _gate = process.gate.lock().await;
        let pid = process.pid() as u32;
        if process.exec_id.is_empty() {
            self.check_oom();
            if !self.own_pid_namespace
                && let Some(cgroup) = &self.cgroup
            {
                // No pid namespace whose end takes the others along.
                drop(cgroup.kill());
            }
            if let Err(error) = exit_file::save_exit(&self.bundle, pid, exit) {
                eprintln!("exit status: {error}");
            }
        }
        let mut event = events::TaskExit::new();
        event.container_id = self.id.clone();
        event.id = match process.exec_id.as_str() {
            "" => self.id.clone(),
            exec_id => exec_id.to_owned(),
        };
        event.pid = pid;
        event.exit_status = exit.code;
        event.exited_at = MessageField::some(timestamp(exit.time));
        self.publisher.publish(&event);
        process.set_exit(exit);
    }

    /// Publishes an event if the kernel has killed for want of memory since the last look.
    fn check_oom(&self) {
        let Some(cgroup) = &self.cgroup else { return };
        let kills = cgroup.oom_kills();
        let mut seen = self
            .oom_kills
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if kills > *seen {
            *seen = kills;
            let mut event = events::TaskOOM::new();
            event.container_id = self.id.clone();
            self.publisher.publish(&event);
        }
    }

    async fn watch_memory(self: Arc<Self>) {
        // Without a memory controller there is nothing to watch.
        let Some(Ok(events)) = self.cgroup.as_ref().map(Cgroup::watch_memory_events) else {
            return;
        };
        loop {
            tokio::select! {
                changed = events.changed() => if changed.is_err() { return },
                _ = self.init.wait() => return,
            }
            self.check_oom();
        }
    }

    /// Freezes all processes.
    pub async fn pause(&self, traceparent: Option<&str>) -> Result<()> {
        self.init.expect("pause", &[Status::Running])?;
        self.runtime.simple("pause", traceparent).await?;
        self.init.set_status(Status::Paused);
        let mut event = events::TaskPaused::new();
        event.container_id = self.id.clone();
        self.publisher.publish(&event);
        Ok(())
    }

    /// Thaws them.
    pub async fn resume(&self, traceparent: Option<&str>) -> Result<()> {
        self.init.expect("resume", &[Status::Paused])?;
        self.runtime.simple("resume", traceparent).await?;
        self.init.set_status(Status::Running);
        let mut event = events::TaskResumed::new();
        event.container_id = self.id.clone();
        self.publisher.publish(&event);
        Ok(())
    }

    /// Signals one process, or all of the container.
    pub async fn kill(&self, exec_id: &str, signal: u32, all: bool) -> Result<()> {
        let process = self.process(exec_id)?;
        if !all || !exec_id.is_empty() {
            return process.kill(signal);
        }
        let number = signal.to_string();
        let list = args([&"kill", &"--all", &self.id, &number]);
        let call = Call {
            command: "kill",
            args: list,
            stdio: None,
            traceparent: None,
        };
        self.runtime.run(call).await
    }

    /// Changes the limits; `resources` is OCI `LinuxResources` JSON.
    pub async fn update(&self, resources: &[u8], traceparent: Option<&str>) -> Result<()> {
        let file = self.bundle.join("update.json");
        fs::write(&file, resources).at("write", &file)?;
        let list = args([&"update", &"--resources", &file, &self.id]);
        let call = Call {
            command: "update",
            args: list,
            stdio: None,
            traceparent,
        };
        let updated = self.runtime.run(call).await;
        drop(fs::remove_file(&file));
        updated
    }

    /// Forgets an exec that is not running.
    pub async fn delete_exec(&self, exec_id: &str) -> Result<(u32, Exit)> {
        let process = self.process(exec_id)?;
        process.expect("delete", &[Status::Created, Status::Stopped])?;
        self.close_stdio(&process).await;
        self.execs().remove(exec_id);
        Ok((process.pid() as u32, process.exit().unwrap_or(NEVER_RAN)))
    }

    /// Removes what the runtime has made, and the mounts.
    pub async fn delete(&self, traceparent: Option<&str>) -> Result<(u32, Exit)> {
        self.init
            .expect("delete", &[Status::Created, Status::Stopped])?;
        let deleted = self.run_delete(traceparent).await;
        if let Err(error) = &deleted
            && self.init.exists()
        {
            return Err(Error::Runtime {
                command: "delete",
                message: error.to_string(),
            });
        }
        self.close_stdio(&self.init).await;
        mount::unmount_rootfs(&self.bundle.join("rootfs"));
        let pid = self.init.pid() as u32;
        let exit = self.init.exit().unwrap_or(NEVER_RAN);
        let mut event = events::TaskDelete::new();
        event.container_id = self.id.clone();
        event.pid = pid;
        event.exit_status = exit.code;
        event.exited_at = MessageField::some(timestamp(exit.time));
        self.publisher.publish(&event);
        Ok((pid, exit))
    }

    async fn run_delete(&self, traceparent: Option<&str>) -> Result<()> {
        let list = args([&"delete", &"--force", &self.id]);
        let call = Call {
            command: "delete",
            args: list,
            stdio: None,
            traceparent,
        };
        self.runtime.run(call).await
    }

    async fn close_stdio(&self, process: &Process) {
        if let Some(log) = process.stdio.lock().await.close(DELETE_PATIENCE).await {
            self.linger.keep(log);
        }
    }

    fn publish_create(&self, request: &CreateTaskRequest) {
        let mut event = events::TaskCreate::new();
        event.container_id = self.id.clone();
        event.bundle = request.bundle.clone();
        event.rootfs = request.rootfs.clone();
        let io = event.io.mut_or_insert_default();
        io.stdin = request.stdin.clone();
        io.stdout = request.stdout.clone();
        io.stderr = request.stderr.clone();
        io.terminal = request.terminal;
        event.pid = self.init.pid() as u32;
        self.publisher.publish(&event);
    }
}

/// What a process that never ran is said to have ended with.
const NEVER_RAN: Exit = Exit {
    code: 0,
    time: std::time::SystemTime::UNIX_EPOCH,
};

fn read_pid(path: &Path) -> Result<i32> {
    let text = fs::read_to_string(path).at("read the runtime's pid file", path)?;
    let parsed = text.trim().parse::<i32>().ok().filter(|pid| *pid > 0);
    parsed
        .ok_or(io::Error::from(io::ErrorKind::InvalidData))
        .at("read the runtime's pid file", path)
}
