//! The life of one VM.
//!
//! ```text
//!   starting: check ─▶ accelerator ─▶ qemu ─▶ kernel ─▶ channel ──▶ running ◀─resume─▶ paused
//!      │                  ▲             │        │         │          │  │               │
//!      │                  └─next one────┴────────┴─────────┘          │ stop            stop
//!      │ stop: QEMU is killed                                         ▼  ▼               ▼
//!      ├──────────────────────────────▶ stopped ◀──QEMU is gone── stopping ◀─────────────┘
//!      │ a stage failed on the last accelerator
//!      └──────────────────────────────▶ failed  ◀──QEMU died, guest panicked── running, paused
//! ```
//! `stopped` and `failed` are ends: the process tells its watchers and exits.

use std::{sync::Arc, time::Duration};

use longshore_channel::Channel;
use longshore_protocol::config::Share as GuestShare;
use serde_json::json;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use crate::{
    accelerator::{self, Accelerator, Circumstances, PROBE_LIMIT, Remembered},
    boot::{self, BootError, Guest, Patience, Recipe, TCG_KERNEL_LIMIT},
    config::VmConfig,
    console::Console,
    control::{ControlError, ErrorCode, Failure, PauseReason, Request, Running, Stage, VmState},
    disk, guest, image, initramfs, qemu,
    share::Shares,
};

/// After QEMU was asked to quit, it flushes its disks; then it is killed.
const QUIT_LIMIT: Duration = Duration::from_secs(5);
/// How often the host's disk is looked at while a write waits for room.
const ROOM_INTERVAL: Duration = Duration::from_secs(2);
/// Room that must be there before a stopped guest goes on.
const ROOM: u64 = 64 << 20;
const MIN_MEMORY: u64 = 192 << 20;
const MAX_CPUS: u32 = 255;
/// Unplugging needs the guest's help.
const UNPLUG_LIMIT: Duration = Duration::from_secs(10);

/// A request that changes the VM, and where its answer goes.
pub struct Command {
    pub request: Request,
    pub answer: oneshot::Sender<Result<(), ControlError>>,
}

/// The VM, from its start to its end.
pub struct Machine {
    pub config: VmConfig,
    pub state: watch::Sender<VmState>,
    pub commands: mpsc::Receiver<Command>,
    /// Where the channel is told once it is up.
    pub channel: watch::Sender<Option<Arc<dyn Channel>>>,
}

impl Machine {
    /// Runs until the VM has stopped or failed; the last state is in `state`.
    pub async fn run(mut self) {
        let console = match Console::open(&self.config.home.join("console.log")) {
            Ok(console) => console,
            Err(error) => {
                self.fail(
                    Stage::Check,
                    format!("open the console's log: {error}"),
                    None,
                    vec![],
                );
                return;
            }
        };
        let mut shares = Shares::new(&self.config.sockets());
        let Some((guest, running)) = self.start(&console, &mut shares).await else {
            return;
        };
        self.channel.send_replace(Some(guest.channel.clone()));
        self.state.send_replace(VmState::Running(running.clone()));
        Live {
            machine: &mut self,
            guest,
            running,
            console,
            shares,
            stop: None,
        }
        .run()
        .await;
        self.channel.send_replace(None);
    }

    fn fail(&self, stage: Stage, reason: String, advice: Option<String>, log: Vec<String>) {
        tracing::error!(%stage, %reason, "the VM did not start");
        let failure = Failure {
            stage: Some(stage),
            reason,
            advice,
            log,
        };
        self.state.send_replace(VmState::Failed(failure));
    }

    /// Starts the VM, unless it is stopped meanwhile. Nothing runs when it returns nothing.
    async fn start(&mut self, console: &Console, shares: &mut Shares) -> Option<(Guest, Running)> {
        let config = self.config.clone();
        let state = self.state.clone();
        let stage = move |stage| {
            state.send_replace(VmState::Starting { stage });
        };
        let starting = start(&config, console, shares, &stage);
        tokio::pin!(starting);
        loop {
            tokio::select! {
                started = &mut starting => match started {
                    Ok(started) => return Some(started),
                    Err(failure) => {
                        self.state.send_replace(VmState::Failed(failure));
                        return None;
                    }
                },
                command = self.commands.recv() => match command {
                    Some(Command { request: Request::Stop { .. }, answer }) => {
                        let reason = "stopped while starting".into();
                        self.state.send_replace(VmState::Stopped { reason });
                        // The client may have gone.
                        let _ = answer.send(Ok(()));
                        return None;
                    }
                    Some(Command { answer, .. }) => {
                        let _ = answer.send(Err(wrong_state("the VM is still starting")));
                    }
                    None => std::future::pending().await,
                },
            }
        }
    }
}

fn wrong_state(message: &str) -> ControlError {
    ControlError {
        code: ErrorCode::WrongState,
        message: message.into(),
    }
}

fn failed(error: impl std::fmt::Display) -> ControlError {
    ControlError {
        code: ErrorCode::Failed,
        message: error.to_string(),
    }
}

fn failure(stage: Stage, error: impl std::fmt::Display) -> Failure {
    Failure {
        stage: Some(stage),
        reason: error.to_string(),
        advice: None,
        log: Vec::new(),
    }
}

/// All stages of a start.
async fn start(
    config: &VmConfig,
    console: &Console,
    shares: &mut Shares,
    stage: &(dyn Fn(Stage) + Send + Sync),
) -> Result<(Guest, Running), Failure> {
    stage(Stage::Check);
    let check = |error: &dyn std::fmt::Display| failure(Stage::Check, error);
    let mut warnings = check_resources(config).map_err(|reason| check(&reason))?;
    let qemu = qemu::find(config.qemu.as_deref())
        .await
        .map_err(|error| Failure {
            advice: Some(error.advice().into()),
            ..failure(Stage::Check, &error)
        })?;
    let vm_dir = config.home.join("vm");
    let (dir, cache) = (
        config.guest_image.clone(),
        vm_dir.join("image-checked.json"),
    );
    let image = tokio::task::spawn_blocking(move || image::check(&dir, &cache))
        .await
        .map_err(|error| check(&error))?
        .map_err(|error| Failure {
            advice: Some("build or install the guest image again".into()),
            ..failure(Stage::Check, &error)
        })?;
    let data = config.data_disk();
    let disk_bytes = disk::prepare(&data, config.disk_bytes).map_err(|error| check(&error))?;
    if disk_bytes > config.disk_bytes.next_multiple_of(1 << 20) {
        warnings.push(format!(
            "the data disk stays at {disk_bytes} bytes; it never shrinks"
        ));
    }
    for share in &config.shares {
        shares.add(share).map_err(|error| check(&error))?;
    }
    let initramfs = config.sockets().join("initramfs");
    initramfs::write(&image.initramfs, &guest_config(config), &initramfs)
        .map_err(|error| check(&error))?;
    let recipe = Recipe {
        config,
        qemu: &qemu,
        image: &image,
        initramfs,
        data,
        console,
        shares,
        stage,
    };
    let (guest, reason) = choose(&recipe, &vm_dir.join("accelerator.json")).await?;
    let running = Running {
        accelerator: guest.accelerator.name().into(),
        accelerator_reason: reason,
        channel: guest.channel.name().into(),
        qemu_version: qemu.version.clone(),
        qemu_pid: guest.pid,
        cpus: config.cpus,
        memory_bytes: config.memory_bytes,
        disk_bytes,
        boot: guest.stages.clone(),
        warnings,
    };
    Ok((guest, running))
}

/// What this machine cannot give; what may be short is a warning.
fn check_resources(config: &VmConfig) -> Result<Vec<String>, String> {
    let mut warnings = Vec::new();
    if config.cpus == 0 || config.cpus > MAX_CPUS {
        return Err(format!(
            "{} CPUs were asked for; 1 to {MAX_CPUS} are possible",
            config.cpus
        ));
    }
    let memory = config.memory_bytes;
    if memory < MIN_MEMORY {
        return Err(format!(
            "{} MiB of memory were asked for; the guest needs at least {} MiB",
            memory >> 20,
            MIN_MEMORY >> 20
        ));
    }
    if let Some((total, available)) = memory_of_this_machine() {
        if memory > total {
            return Err(format!(
                "not enough memory: the VM is to have {} MiB, this machine has {} MiB",
                memory >> 20,
                total >> 20
            ));
        }
        if memory > available {
            warnings.push(format!(
                "the VM may grow to {} MiB, and only {} MiB are available now",
                memory >> 20,
                available >> 20
            ));
        }
    }
    Ok(warnings)
}

/// Total and available bytes, where the platform tells (proc(5), `/proc/meminfo`).
fn memory_of_this_machine() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
            .map(|kib| kib << 10)
    };
    Some((field("MemTotal:")?, field("MemAvailable:")?))
}

/// The guest's configuration with the clock and the shares of this start.
fn guest_config(config: &VmConfig) -> longshore_protocol::config::GuestConfig {
    let mut guest = config.guest.clone();
    if guest.shares.is_empty() {
        guest.shares = config
            .shares
            .iter()
            .map(|share| GuestShare {
                tag: share.tag.clone(),
                path: share.path.display().to_string(),
                read_only: share.read_only,
            })
            .collect();
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    guest.host_time_unix_ns = now.map_or(0, |now| now.as_nanos() as u64);
    guest
}

/// Boots on the first accelerator that works, remembers it, and says why it is this one.
async fn choose(recipe: &Recipe<'_>, memory: &std::path::Path) -> Result<(Guest, String), Failure> {
    (recipe.stage)(Stage::Accelerator);
    let circumstances = Circumstances::of_this_machine(&recipe.qemu.version);
    let remembered = accelerator::remembered(memory, &circumstances);
    let plan = accelerator::plan(recipe.config.accelerator, remembered.as_ref());
    let automatic = recipe.config.accelerator == crate::config::AcceleratorChoice::Auto;
    let mut tried = Vec::new();
    let last = plan.candidates.len() - 1;
    for (index, candidate) in plan.candidates.iter().enumerate() {
        let emulated = *candidate == Accelerator::Tcg;
        let mut patience = Patience {
            life: if emulated {
                TCG_KERNEL_LIMIT
            } else {
                PROBE_LIMIT
            },
            stalls: !emulated,
        };
        let mut booted = boot::boot(recipe, *candidate, patience).await;
        if emulated && let Err(error @ (BootError::GuestEnded(_) | BootError::Stalled)) = &booted {
            // A kernel patches its own code as it starts. Emulation can show another CPU a half-done patch, and the kernel
            // panics (in `sched_clock_cpu`, once in some hundred boots with QEMU 7.2). And a CPU that has just been brought up
            // may never be woken by its timer, for which RCU waits for ever (seen once, QEMU 10.0, four CPUs on two).
            // What is on the disk then is what a power cut leaves. On a machine that is merely slow, the second time is waited for.
            tracing::warn!(%error, "trying once more");
            (recipe.stage)(Stage::Accelerator);
            patience.stalls = true;
            booted = boot::boot(recipe, *candidate, patience).await;
        }
        match booted {
            Ok(guest) => {
                let reason = match tried.as_slice() {
                    [] => plan.reason,
                    tried => format!("{}; {} booted", tried.join("; "), candidate.name()),
                };
                let choice = Remembered {
                    circumstances,
                    accelerator: *candidate,
                    reason,
                };
                let news = remembered.is_none_or(|known| known.accelerator != *candidate);
                if automatic
                    && news
                    && let Err(error) = accelerator::remember(memory, &choice)
                {
                    tracing::warn!(%error, "the accelerator's choice is not remembered");
                }
                return Ok((guest, choice.reason));
            }
            Err(error) if index < last => {
                tracing::warn!(accelerator = candidate.name(), %error, "no guest boots on it");
                tried.push(format!("{}: {error}", candidate.name()));
            }
            Err(error) => return Err(boot_failure(recipe, *candidate, &error)),
        }
    }
    Err(failure(Stage::Accelerator, "no accelerator is left to try"))
}

fn boot_failure(recipe: &Recipe<'_>, accelerator: Accelerator, error: &BootError) -> Failure {
    let advice = (accelerator != Accelerator::Tcg).then(|| {
        "try `--accel auto` or `--accel tcg`, which need no hardware virtualisation".into()
    });
    let reason = format!("{error} (accelerator {})", accelerator.name());
    Failure {
        stage: Some(error.stage()),
        reason,
        advice,
        log: last_lines(recipe.console),
    }
}

fn last_lines(console: &Console) -> Vec<String> {
    let qemu = console
        .errors
        .get()
        .into_iter()
        .map(|line| format!("qemu: {line}"));
    let guest = console.lines.get();
    let guest = guest[guest.len().saturating_sub(20)..]
        .iter()
        .map(|line| format!("guest: {line}"));
    qemu.chain(guest).collect()
}

/// A stop that is under way.
struct Stop {
    kill_at: Instant,
    quit_sent: bool,
    answers: Vec<oneshot::Sender<Result<(), ControlError>>>,
}

/// A VM that has booted.
struct Live<'a> {
    machine: &'a mut Machine,
    guest: Guest,
    running: Running,
    console: Console,
    shares: Shares,
    stop: Option<Stop>,
}

enum News {
    Ended(String),
    Event(qmp_event::Kind),
    Command(Command),
    Deadline,
    Room,
    None,
}

impl Live<'_> {
    async fn run(mut self) {
        loop {
            let news = self.wait().await;
            match news {
                News::Ended(how) => return self.ended(&how),
                News::Event(event) => self.event(event).await,
                News::Command(command) => self.command(command).await,
                News::Deadline => self.deadline().await,
                News::Room => self.room().await,
                News::None => {}
            }
        }
    }

    async fn wait(&mut self) -> News {
        let deadline = self.stop.as_ref().map(|stop| stop.kill_at);
        let waits_for_room = matches!(
            *self.machine.state.borrow(),
            VmState::Paused {
                reason: PauseReason::DiskFull,
                ..
            }
        );
        tokio::select! {
            biased;
            event = self.guest.events.recv() => match event {
                Some(event) => News::Event(qmp_event::kind(&event)),
                // The monitor ended: so has QEMU, or it must.
                None => News::Ended(self.reap().await),
            },
            status = self.guest.child.wait() => News::Ended(describe(status)),
            command = self.machine.commands.recv() => command.map_or(News::None, News::Command),
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => News::Deadline,
            () = tokio::time::sleep(ROOM_INTERVAL), if waits_for_room => News::Room,
        }
    }

    async fn reap(&mut self) -> String {
        match timeout(QUIT_LIMIT, self.guest.child.wait()).await {
            Ok(status) => describe(status),
            Err(_) => {
                // An error means that it has ended by itself.
                let _ = self.guest.child.kill().await;
                "its monitor closed".into()
            }
        }
    }

    fn set(&self, state: VmState) {
        self.machine.state.send_replace(state);
    }

    /// QEMU is gone: by the guest's wish or ours, or not.
    fn ended(&mut self, how: &str) {
        let stop = self.stop.take();
        let last = self.machine.state.borrow().clone();
        if matches!(last, VmState::Stopped { .. } | VmState::Failed(_)) {
            // The guest said so before.
        } else if stop.is_some() {
            self.set(VmState::Stopped {
                reason: "stopped as asked".into(),
            });
        } else {
            let reason = format!("QEMU ended unexpectedly ({how})");
            tracing::error!(%reason, "the VM is gone");
            let log = last_lines(&self.console);
            self.set(VmState::Failed(Failure {
                stage: None,
                reason,
                advice: None,
                log,
            }));
        }
        for answer in stop.into_iter().flat_map(|stop| stop.answers) {
            // The client may have gone.
            let _ = answer.send(Ok(()));
        }
    }

    async fn event(&mut self, event: qmp_event::Kind) {
        match event {
            qmp_event::Kind::GuestShutdown if self.stop.is_none() => {
                self.set(VmState::Stopped {
                    reason: "the guest powered itself off".into(),
                });
            }
            qmp_event::Kind::GuestReset if self.stop.is_none() => {
                let reason = "the guest's kernel panicked or rebooted".into();
                let log = last_lines(&self.console);
                self.set(VmState::Failed(Failure {
                    stage: None,
                    reason,
                    advice: None,
                    log,
                }));
            }
            qmp_event::Kind::DiskStopped { full, message } if self.stop.is_none() => {
                tracing::warn!(%message, full, "the guest is stopped on a failed disk access");
                let reason = if full {
                    PauseReason::DiskFull
                } else {
                    PauseReason::DiskError
                };
                self.set(VmState::Paused { reason, message });
            }
            _ => {}
        }
    }

    async fn command(&mut self, command: Command) {
        let outcome = match command.request {
            Request::Stop { deadline_ms, force } => {
                return self.begin_stop(deadline_ms, force, command.answer).await;
            }
            _ if self.stop.is_some() => Err(wrong_state("the VM is stopping")),
            Request::Pause => self.pause().await,
            Request::Resume => self.resume().await,
            Request::AddShare(share) => self.add_share(&share).await,
            Request::RemoveShare { tag } => self.remove_share(&tag).await,
            Request::GrowDisk { bytes } => self.grow_disk(bytes).await,
            Request::Version | Request::State | Request::Watch => Ok(()),
        };
        // The client may have gone.
        let _ = command.answer.send(outcome);
    }

    async fn begin_stop(
        &mut self,
        deadline_ms: u64,
        force: bool,
        answer: oneshot::Sender<Result<(), ControlError>>,
    ) {
        let limit = Duration::from_millis(if force { 0 } else { deadline_ms.min(3_600_000) });
        let kill_at = Instant::now() + limit;
        if let Some(stop) = &mut self.stop {
            stop.kill_at = stop.kill_at.min(kill_at);
            stop.answers.push(answer);
            return;
        }
        let paused = matches!(*self.machine.state.borrow(), VmState::Paused { .. });
        self.stop = Some(Stop {
            kill_at,
            quit_sent: false,
            answers: vec![answer],
        });
        self.set(VmState::Stopping);
        if force {
            return;
        }
        if paused && let Err(error) = self.guest.monitor.execute(qapi::qmp::cont {}).await {
            tracing::warn!(%error, "a paused guest does not go on");
        }
        let channel = self.guest.channel.clone();
        let monitor = self.guest.monitor.clone();
        tokio::spawn(async move {
            let asked = timeout_at(kill_at, guest::shut_down(&*channel)).await;
            if !matches!(asked, Ok(Ok(()))) {
                tracing::warn!(
                    ?asked,
                    "the agent does not power off; the power button is next"
                );
                let _ = monitor.execute(qapi::qmp::system_powerdown {}).await;
            }
        });
    }

    /// The stop's time is over: QEMU is asked to quit, then killed.
    async fn deadline(&mut self) {
        let Some(stop) = &mut self.stop else { return };
        if stop.quit_sent {
            tracing::warn!("QEMU does not quit and is killed");
            stop.kill_at = Instant::now() + QUIT_LIMIT;
            // An error means that it has ended by itself.
            let _ = self.guest.child.start_kill();
            return;
        }
        stop.quit_sent = true;
        stop.kill_at = Instant::now() + QUIT_LIMIT;
        let monitor = self.guest.monitor.clone();
        tokio::spawn(async move { monitor.execute(qapi::qmp::quit {}).await.map(drop) });
    }

    async fn pause(&mut self) -> Result<(), ControlError> {
        self.guest
            .monitor
            .execute(qapi::qmp::stop {})
            .await
            .map_err(failed)?;
        let message = "paused as asked".into();
        self.set(VmState::Paused {
            reason: PauseReason::Asked,
            message,
        });
        Ok(())
    }

    async fn resume(&mut self) -> Result<(), ControlError> {
        // State first: a write that fails again is told by an event that comes after the answer or before it.
        let before = self.machine.state.borrow().clone();
        self.set(VmState::Running(self.running.clone()));
        let resumed = self.guest.monitor.execute(qapi::qmp::cont {}).await;
        resumed.map(drop).map_err(|error| {
            self.set(before);
            failed(error)
        })
    }

    /// A guest that waits for room goes on once there is some.
    async fn room(&mut self) {
        let free = disk::free_bytes(&self.machine.config.home);
        if free.is_none_or(|free| free >= ROOM)
            && let Err(error) = self.resume().await
        {
            tracing::warn!(%error, "the guest does not go on");
        }
    }

    async fn add_share(
        &mut self,
        config: &crate::control::ShareConfig,
    ) -> Result<(), ControlError> {
        let share = self.shares.add(config).map_err(failed)?;
        let (slot, socket) = (share.slot, share.socket.display().to_string());
        let plugged = self.plug(slot, &config.tag, &socket).await;
        if plugged.is_err() {
            self.shares.remove(&config.tag);
        }
        plugged.map_err(failed)
    }

    async fn plug(&self, slot: usize, tag: &str, socket: &str) -> Result<(), crate::qmp::QmpError> {
        let monitor = &self.guest.monitor;
        let (id, bus) = (format!("share-{slot}"), format!("port{slot}"));
        let address = json!({"type": "unix", "data": {"path": socket}});
        let backend = json!({"type": "socket", "data": {"addr": address, "server": false}});
        monitor
            .raw("chardev-add", json!({"id": id, "backend": backend}))
            .await?;
        let device = json!({
            "driver": "vhost-user-fs-pci", "id": id, "bus": bus, "chardev": id, "tag": tag
        });
        let added = monitor.raw("device_add", device).await;
        if added.is_err() {
            let removed = monitor.raw("chardev-remove", json!({"id": id})).await;
            tracing::debug!(?removed, "took the share's socket back");
        }
        added.map(drop)
    }

    async fn remove_share(&mut self, tag: &str) -> Result<(), ControlError> {
        let slot = self.shares.slot(tag).map_err(failed)?;
        let id = format!("share-{slot}");
        self.guest
            .monitor
            .raw("device_del", json!({"id": id}))
            .await
            .map_err(failed)?;
        self.unplugged(&id).await?;
        let removed = self
            .guest
            .monitor
            .raw("chardev-remove", json!({"id": id}))
            .await;
        tracing::debug!(?removed, "the share's socket");
        self.shares.remove(tag);
        Ok(())
    }

    /// Waits until the guest has let go of the device; other events are handled meanwhile.
    async fn unplugged(&mut self, id: &str) -> Result<(), ControlError> {
        let limit = Instant::now() + UNPLUG_LIMIT;
        loop {
            let event = timeout_at(limit, self.guest.events.recv()).await;
            match event.map_err(|_| failed("the guest does not let go of the share"))? {
                Some(event) if event.name == "DEVICE_DELETED" && event.data["device"] == id => {
                    return Ok(());
                }
                Some(event) => self.event(qmp_event::kind(&event)).await,
                None => return Err(failed("QEMU ended")),
            }
        }
    }

    async fn grow_disk(&mut self, bytes: u64) -> Result<(), ControlError> {
        let path = self.machine.config.data_disk();
        let bytes = bytes.next_multiple_of(1 << 20);
        disk::check_growth(&path, self.running.disk_bytes, bytes).map_err(failed)?;
        let grow = json!({"device": "data", "size": bytes});
        self.guest
            .monitor
            .raw("block_resize", grow)
            .await
            .map_err(failed)?;
        self.running.disk_bytes = bytes;
        if matches!(*self.machine.state.borrow(), VmState::Running(_)) {
            self.set(VmState::Running(self.running.clone()));
        }
        Ok(())
    }
}

fn describe(status: std::io::Result<std::process::ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// The events of QEMU's monitor that change the VM's state (QEMU's QMP reference).
mod qmp_event {
    use crate::qmp::Event;

    #[derive(Debug, PartialEq, Eq)]
    pub enum Kind {
        GuestShutdown,
        GuestReset,
        DiskStopped { full: bool, message: String },
        Other,
    }

    pub fn kind(event: &Event) -> Kind {
        let data = &event.data;
        match event.name.as_str() {
            "SHUTDOWN" => match data["reason"].as_str() {
                Some("guest-shutdown") => Kind::GuestShutdown,
                Some("guest-reset" | "guest-panic") => Kind::GuestReset,
                _ => Kind::Other,
            },
            "BLOCK_IO_ERROR" if data["action"] == "stop" => {
                let full = data["nospace"].as_bool().unwrap_or(false);
                let reason = data["reason"].as_str().unwrap_or("no reason given");
                let message = if full {
                    "the host's disk is full: the VM waits, and goes on when there is room".into()
                } else {
                    format!("the data disk's file cannot be accessed: {reason}")
                };
                Kind::DiskStopped { full, message }
            }
            _ => Kind::Other,
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use serde_json::json;

        #[test]
        fn kinds() {
            let full = json!({"action": "stop", "nospace": true, "reason": "No space left"});
            let cases = [
                (
                    "SHUTDOWN",
                    json!({"guest": true, "reason": "guest-shutdown"}),
                    Kind::GuestShutdown,
                ),
                (
                    "SHUTDOWN",
                    json!({"guest": true, "reason": "guest-reset"}),
                    Kind::GuestReset,
                ),
                (
                    "SHUTDOWN",
                    json!({"guest": false, "reason": "host-qmp-quit"}),
                    Kind::Other,
                ),
                ("BLOCK_IO_ERROR", json!({"action": "report"}), Kind::Other),
            ];
            for (name, data, expected) in cases {
                assert_eq!(
                    kind(&Event {
                        name: name.into(),
                        data
                    }),
                    expected
                );
            }
            let event = Event {
                name: "BLOCK_IO_ERROR".into(),
                data: full,
            };
            assert!(matches!(kind(&event), Kind::DiskStopped { full: true, .. }));
        }
    }
}
