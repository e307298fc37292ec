//! A VM for tests: launched with the real `longshore-vm`, gone when the test is.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use longshore_vm::{
    client::Client,
    config::VmConfig,
    control::{Failure, Running, VmState},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// An emulated guest on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

pub struct Vm {
    pub config: VmConfig,
    pub process: Child,
    pub home: tempfile::TempDir,
}

impl Vm {
    /// Starts a VM and waits until its agent answers.
    pub async fn launch(change: impl FnOnce(&mut VmConfig)) -> Self {
        let vm = Self::start(change).await;
        match timeout(BOOT_LIMIT, vm.outcome())
            .await
            .expect("the VM boots in time")
        {
            Ok(running) => println!("{running:?}"),
            Err(failure) => panic!("{}\n{}", failure.reason, failure.log.join("\n")),
        }
        vm
    }

    /// Starts a VM and returns as soon as its control socket answers.
    pub async fn start(change: impl FnOnce(&mut VmConfig)) -> Self {
        let home = tempfile::Builder::new()
            .prefix("ls")
            .tempdir()
            .expect("make a folder");
        let mut config = VmConfig::new(home.path(), guest_image());
        config.disk_bytes = 4 << 30;
        config.memory_bytes = 768 << 20;
        change(&mut config);
        let process = start(&config, home.path()).await;
        Self {
            config,
            process,
            home,
        }
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.config.control_socket())
            .await
            .expect("connect to vm.sock")
    }

    /// Waits until the VM runs, or does not.
    pub async fn outcome(&self) -> Result<Running, Failure> {
        let mut watch = self.client().await.watch().await.expect("watch");
        loop {
            match watch.next().await.expect("a state") {
                Some(VmState::Running(running)) => return Ok(running),
                Some(VmState::Failed(failure)) => return Err(failure),
                Some(_) => {}
                None => panic!("longshore-vm ended without a last state"),
            }
        }
    }

    /// Stops in order, and sees that the process ends and leaves no socket.
    pub async fn stop(mut self) {
        self.client().await.stop(20_000, false).await.expect("stop");
        let status = timeout(Duration::from_secs(10), self.process.wait()).await;
        assert!(status.expect("longshore-vm ends").unwrap().success());
        assert!(!self.config.control_socket().exists());
        assert!(!self.config.channel_socket().exists());
    }

    /// Resident memory of `longshore-vm` itself, in KiB (proc(5), `RssAnon`): not the pages of the guest, which it maps for vsock.
    pub fn own_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id().expect("it runs"));
        let status = std::fs::read_to_string(path).expect("read its status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .expect("RssAnon");
        line.trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number")
    }
}

/// Runs `longshore-vm` until it says that it listens.
pub async fn start(config: &VmConfig, dir: &Path) -> Child {
    let path = dir.join("vm-config.json");
    std::fs::write(&path, serde_json::to_vec(config).unwrap()).expect("write the configuration");
    let log = std::fs::File::create(dir.join("vm.log")).expect("make a log");
    let mut process = Command::new(env!("CARGO_BIN_EXE_longshore-vm"))
        .arg("--config")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("start longshore-vm");
    let stdout = BufReader::new(process.stdout.take().expect("a pipe"));
    let line = stdout
        .lines()
        .next_line()
        .await
        .expect("read its first line");
    assert_eq!(line.as_deref(), Some("listening"));
    process
}

/// The guest image; there is no test without one.
pub fn guest_image() -> PathBuf {
    let asked = std::env::var_os("LONGSHORE_GUEST_IMAGE").map(PathBuf::from);
    let image = asked.unwrap_or_else(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        workspace
            .join("target/guest-image")
            .join(std::env::consts::ARCH)
    });
    let image = image.canonicalize().unwrap_or(image);
    assert!(
        image.join("manifest.json").exists(),
        "no guest image in {}: build it with `cargo run -p longshore-guest-image -- --build`, or set LONGSHORE_GUEST_IMAGE",
        image.display()
    );
    image
}
