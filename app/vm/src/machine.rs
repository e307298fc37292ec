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
use serde_json::json;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use crate::{
    boot::Guest,
    clock,
    config::VmConfig,
    console::Console,
    control::{ControlError, ErrorCode, Failure, PauseReason, Request, Running, Stage, VmState},
    disk, guest,
    share::Shares,
    start,
};

/// After QEMU was asked to quit, it flushes its disks; then it is killed.
const QUIT_LIMIT: Duration = Duration::from_secs(5);
/// How often the host's disk is looked at while a write waits for room.
const ROOM_INTERVAL: Duration = Duration::from_secs(2);
/// Room that must be there before a stopped guest goes on.
const ROOM: u64 = 64 << 20;
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
        let clock = tokio::spawn(clock::keep(guest.channel.clone(), self.state.subscribe()));
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
        clock.abort();
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
        let starting = start::start(&config, console, shares, &stage);
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
            let log = start::last_lines(&self.console);
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
                let log = start::last_lines(&self.console);
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
