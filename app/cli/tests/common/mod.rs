//! One booted instance of Longshore for a test binary, driven as a user would: `longshore` and the real `docker`.

#![allow(dead_code)] // each test binary uses its part

pub mod cold_engine;
pub mod journal;
pub mod load;
pub mod random;
pub mod recorded_disk;
pub mod registry;
pub mod remains;
pub mod shims;
pub mod small_disk;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The longest that a step may take before the test fails; emulation on a loaded machine is slow.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How long a guest that a test failed on may take to show itself.
const A_LOOK: Duration = Duration::from_secs(20);
/// How long a service that was asked to end is waited for.
const SERVICE_END: Duration = Duration::from_secs(10);
/// Bytes of a log that are shown then.
const LOG_END: usize = 4096;

/// Nobody: any user but root.
pub const USER: u32 = 65534;

/// An empty folder of [`USER`].
pub fn users_folder(prefix: &str) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir();
    let folder = folder.expect("a folder");
    std::os::unix::fs::chown(folder.path(), Some(USER), Some(USER)).expect("chown");
    folder
}

/// Makes a program of a script.
pub fn write_script(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a script");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(path, mode).expect("a mode");
}

/// A LONGSHORE_HOME of its own, stopped and removed at the end.
pub struct Instance {
    pub home: tempfile::TempDir,
    /// What its processes find in their environment, beside the usual.
    pub environment: Vec<(&'static str, PathBuf)>,
    /// Whose instance it is, by number, and that user's home; the tests' own user's when left out.
    pub run_as: Option<(u32, PathBuf)>,
}

/// Folder with the archives made by scripts/images.
pub fn image_folder() -> PathBuf {
    target_folder().join("test-images")
}

/// Where everything is built.
pub fn target_folder() -> &'static Path {
    programs().parent().expect("the target folder")
}

/// The instance that the tests of one binary share: booted once, stopped when the process ends.
pub fn shared() -> &'static Instance {
    static SHARED: OnceLock<Instance> = OnceLock::new();
    extern "C" fn stop() {
        if let Some(instance) = SHARED.get() {
            instance.end();
        }
    }
    SHARED.get_or_init(|| {
        let instance = Instance::new();
        instance.start_with_busybox();
        // SAFETY: `stop` is an extern "C" function without arguments that does not unwind on purpose.
        assert_eq!(unsafe { libc::atexit(stop) }, 0);
        instance
    })
}

/// Top of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the repository")
}

/// Where the programs stand that the tests try.
pub fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_longshore"))
        .parent()
        .expect("a folder of programs")
}

/// An archive made by scripts/images.
pub fn image_archive(name: &str) -> PathBuf {
    let path = image_folder().join(format!("{name}.tar"));
    assert!(
        path.exists(),
        "{} is missing: run scripts/images {name}",
        path.display()
    );
    path
}

impl Instance {
    pub fn new() -> Self {
        Self {
            home: tempfile::Builder::new()
                .prefix("longshore-")
                .tempdir()
                .expect("a home"),
            environment: Vec::new(),
            run_as: None,
        }
    }

    /// One of [`USER`], whose home this folder is.
    pub fn of_user(home: &Path) -> Self {
        let mut instance = Self::new();
        instance.home = tempfile::tempdir_in(home).expect("a folder");
        let own = instance.home.path();
        std::os::unix::fs::chown(own, Some(USER), Some(USER)).expect("chown");
        instance.run_as = Some((USER, home.to_owned()));
        instance
    }

    /// One that runs, in a guest of so much memory, with busybox.
    pub fn with_memory(memory: &str) -> Self {
        let instance = Self::new();
        let setting = format!("memory={memory}");
        let set = instance.longshore(&["settings", "set", &setting]);
        expect_success(&set, &setting);
        instance.start_with_busybox();
        instance
    }

    fn start_with_busybox(&self) {
        self.start(&[]);
        self.load("busybox");
    }

    /// `longshore ARGUMENTS` on this instance.
    pub fn longshore(&self, arguments: &[&str]) -> Output {
        let mut command = self.longshore_command();
        command.args(arguments);
        finish(command, &format!("longshore {}", arguments.join(" ")))
    }

    pub fn longshore_command(&self) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_longshore")))
    }

    /// The same of another installation's `longshore`.
    pub fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some((user, home)) = &self.run_as {
            std::os::unix::process::CommandExt::uid(&mut command, *user);
            std::os::unix::process::CommandExt::gid(&mut command, *user);
            command.env("HOME", home).current_dir(home);
        }
        command
            .env("LONGSHORE_HOME", self.home.path())
            .env("DOCKER_CONFIG", self.home.path().join("docker-config"))
            .envs(self.environment.iter().cloned())
            .env_remove("DOCKER_HOST")
            .stdin(Stdio::null());
        command
    }

    pub fn start(&self, flags: &[&str]) {
        let known = target_folder().join("tests-accelerator.json");
        let own = self.home.path().join("vm/accelerator.json");
        if known.exists() && !own.exists() {
            self.lend(&known, &own);
        }
        let mut words = vec!["start"];
        words.extend(flags);
        expect_success(&self.longshore(&words), "longshore start");
        if own.exists() && !known.exists() {
            let partial = known.with_extension("new");
            std::fs::copy(&own, &partial).expect("a copy");
            std::fs::rename(partial, &known).expect("a file renamed");
        }
    }

    /// Gives the home what a start of another one found out about this machine, so that only the first tries an accelerator
    /// that shows no life. `longshore-vm` tries by itself when QEMU, the kernel or the hardware is another.
    fn lend(&self, known: &Path, own: &Path) {
        let folder = own.parent().expect("a folder");
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
        builder.create(folder).expect("a folder");
        std::fs::copy(known, own).expect("a copy");
        if let Some((user, _)) = self.run_as {
            for path in [folder, own] {
                std::os::unix::fs::chown(path, Some(user), Some(user)).expect("chown");
            }
        }
    }

    /// The end of one that is in a static, which is not dropped.
    pub fn end(&self) {
        self.tear_down();
        let _ = std::fs::remove_dir_all(self.home.path());
    }

    /// Stops VM and host service; whatever is left is the test's to find.
    pub fn tear_down(&self) {
        let before = self.host_pid();
        let _ = self.longshore_command().arg("stop").output();
        // To stop a VM whose service was killed takes another.
        let after = self.host_pid().filter(|pid| Some(*pid) != before);
        for service in [before, after].into_iter().flatten() {
            end_process(service);
        }
    }

    /// `longshore status --json`.
    pub fn status(&self) -> serde_json::Value {
        let output = self.longshore_command().args(["status", "--json"]).output();
        serde_json::from_slice(&output.expect("longshore status").stdout).unwrap_or_default()
    }

    /// The host service's process, when it runs.
    pub fn host_pid(&self) -> Option<i32> {
        i32::try_from(self.status()["host_pid"].as_u64()?)
            .ok()
            .filter(|pid| *pid > 0)
    }

    pub fn docker_host(&self) -> String {
        let output = self.longshore(&["docker-host"]);
        expect_success(&output, "longshore docker-host");
        text(&output.stdout).trim().to_owned()
    }

    pub fn docker_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .args(arguments)
            .env("DOCKER_HOST", self.docker_host())
            .env("DOCKER_CONFIG", self.home.path().join("docker-config"))
            .stdin(Stdio::null());
        command
    }

    /// `docker ARGUMENTS`, whatever its outcome.
    pub fn docker_output(&self, arguments: &[&str]) -> Output {
        finish(
            self.docker_command(arguments),
            &format!("docker {}", arguments.join(" ")),
        )
    }

    /// `docker ARGUMENTS`, which must succeed; its standard output, trimmed.
    pub fn docker(&self, arguments: &[&str]) -> String {
        let output = self.docker_output(arguments);
        expect_success(&output, &format!("docker {}", arguments.join(" ")));
        text(&output.stdout).trim().to_owned()
    }

    /// `docker ARGUMENTS`, which must fail with this exit code; its standard error.
    pub fn docker_fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.docker_output(arguments);
        let error = text(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(code),
            "docker {}: {error}",
            arguments.join(" ")
        );
        error
    }

    pub fn load(&self, name: &str) {
        self.docker(&[
            "load",
            "--quiet",
            "-i",
            image_archive(name).to_str().expect("utf-8"),
        ]);
    }

    /// A container of busybox that runs for ever, and again after each start of the engine.
    pub fn keep_running(&self, name: &str) {
        let run = ["run", "-d", "--name", name, "--restart", "always"];
        self.docker(&[&run[..], &["busybox", "sleep", "100000"]].concat());
    }

    /// A shell command in the guest; its standard output, trimmed.
    pub fn guest(&self, script: &str) -> String {
        let output = self.longshore(&["shell", "--", "sh", "-c", script]);
        expect_success(&output, script);
        text(&output.stdout).trim().to_owned()
    }
}

/// Asks a service of ours to end, and waits until it has: what it still writes would be left behind.
fn end_process(pid: i32) {
    // SAFETY: pidfd_open(2) makes a descriptor that nobody else has, or fails.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let Ok(number @ 0..) = i32::try_from(opened) else {
        return;
    };
    // SAFETY: the descriptor was just made, and is owned here alone.
    let process = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: plain kill(2) on the process that status named a moment ago.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    let mut watched = libc::pollfd {
        fd: process.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry is watched, for as long as it lives.
    unsafe { libc::poll(&mut watched, 1, SERVICE_END.as_millis() as i32) };
}

impl Drop for Instance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell_state();
        }
        self.tear_down();
    }
}

impl Instance {
    /// What a failed test leaves behind goes with it; this is for whoever looks for the reason. Never panics.
    fn tell_state(&self) {
        let script = "ps -ef 2>/dev/null || ps; for p in $(pidof longshore-daemon longshore-supervisor longshore-shim); do \
                      echo $p; cat /proc/$p/task/*/wchan; echo; done; dmesg | tail -20";
        let mut asked = self.longshore_command();
        asked.args(["shell", "--", "sh", "-c", script]);
        if let Ok(child) = asked.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
            let id = child.id();
            let (sender, receiver) = std::sync::mpsc::channel();
            std::thread::spawn(move || sender.send(child.wait_with_output()));
            match receiver.recv_timeout(A_LOOK) {
                Ok(Ok(output)) => println!("--- the guest\n{}", text(&output.stdout)),
                // SAFETY: plain kill(2) on the child that we spawned and that has not been reaped.
                _ => drop(unsafe { libc::kill(id as i32, libc::SIGKILL) }),
            }
        }
        for name in ["console.log", "host.log"] {
            let log = std::fs::read(self.home.path().join(name)).unwrap_or_default();
            let end = log.len().saturating_sub(LOG_END);
            println!("--- the end of {name}\n{}", text(&log[end..]));
        }
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn expect_success(output: &Output, what: &str) {
    assert!(
        output.status.success(),
        "{what}: {}\n--- stdout\n{}--- stderr\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
}

/// Runs to the end, or kills and fails after PATIENCE.
pub fn finish(mut command: Command, what: &str) -> Output {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    finish_child(child, what)
}

/// Collects a child's output; kills it and fails after PATIENCE.
pub fn finish_child(child: Child, what: &str) -> Output {
    finish_within(PATIENCE, child, what)
}

/// The same for what takes longer.
pub fn finish_within(patience: Duration, child: Child, what: &str) -> Output {
    let id = child.id();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    match receiver.recv_timeout(patience) {
        Ok(output) => output.unwrap_or_else(|error| panic!("{what}: {error}")),
        Err(_) => {
            // SAFETY: plain kill(2) on the child that we spawned and that has not been reaped.
            unsafe { libc::kill(id as i32, libc::SIGKILL) };
            panic!("{what}: no end after {patience:?}");
        }
    }
}

/// Stops a process, as if it hung. Its threads do not stand at once, and until all do one of them may still answer.
pub fn halt(pid: i32) {
    // SAFETY: plain kill(2) on a process that an instance has named a moment ago.
    unsafe { libc::kill(pid, libc::SIGSTOP) };
    let stands = |thread: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(thread.path().join("stat"));
        // proc_pid_stat(5): the state follows the name, which is in parentheses. A thread that has ended answers nobody.
        stat.map_or(true, |stat| stat.contains(") T "))
    };
    eventually("all threads of a stopped process stand", || {
        let mut threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
        threads.all(|thread| stands(thread.expect("a thread")))
    });
}

/// Asks again until the answer is right: for states that a user would see "in a moment".
pub fn eventually(what: &str, mut probe: impl FnMut() -> bool) {
    let start = Instant::now();
    while !probe() {
        assert!(
            start.elapsed() < PATIENCE,
            "{what}: not within {PATIENCE:?}"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}
