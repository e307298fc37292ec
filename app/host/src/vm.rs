//! The VM's life as the host service sees it.
//!
//! ```text
//!            start              longshore-vm: running      GET /version answers
//! Stopped ──────────▶ Starting ──────────────────────────────────────────────▶ Running ◀──▶ Paused
//!    ▲                   │ failed: longshore-vm is ended                          │
//!    │                   ▼                                                        │ stop
//!    │                Failed ──▶ start                                            ▼
//!    └──────────────────────────────────────── longshore-vm ended ◀────────── Stopping
//! ```
//! A service that starts finds a living `longshore-vm` by its socket and goes on from its state.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use longshore_host_api::types::VmFacts;
use longshore_host_api::{ApiError, ErrorCode, Home};
use longshore_protocol::control::{Reply, Request, ServiceState, Status as GuestStatus};
use longshore_protocol::{logs::LogSource, ports};
use longshore_vm::client::{Client, ClientError, Watch};
use longshore_vm::config::VmConfig;
use longshore_vm::control::{Failure, Running, ShareConfig, Stage, VmState};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::operation::Reporter;
use crate::phase::{Phase, PhaseReceiver, PhaseSender};
use crate::ports::Ports;
use crate::vm_process::VmProcessError;
use crate::{channel, engine, guest, logs, ports as published, vm_process};

/// From the agent's first answer to the engine's.
const ENGINE_PATIENCE: Duration = Duration::from_secs(120);
/// Between two tries to reach an engine that closed the connection.
const ENGINE_PAUSE: Duration = Duration::from_millis(200);
/// An orderly power-off takes at most so long; then QEMU is ended the hard way.
const STOP_DEADLINE_MS: u64 = 20_000;
const GUEST_PATIENCE: Duration = Duration::from_secs(5);
/// Until a process that stops its VM has ended.
const END_PATIENCE: Duration = Duration::from_millis(STOP_DEADLINE_MS + 5_000);

/// The one VM of this instance.
pub struct Vm {
    home: Home,
    phase: PhaseSender,
    /// What `longshore-vm` told of the running VM.
    facts: Mutex<Option<Running>>,
    ports: Arc<Ports>,
    publish_address: watch::Sender<IpAddr>,
    /// Held by whoever changes the VM's state.
    turn: tokio::sync::Mutex<()>,
    /// Ends the start under way.
    cancel_start: Mutex<CancellationToken>,
}

impl Vm {
    pub fn new(home: Home, publish_address: IpAddr) -> Arc<Self> {
        let ports = Arc::new(Ports::new(home.channel_socket()));
        Arc::new(Self {
            home,
            phase: watch::channel(Phase::Stopped).0,
            facts: Mutex::default(),
            ports,
            publish_address: watch::channel(publish_address).0,
            turn: tokio::sync::Mutex::default(),
            cancel_start: Mutex::default(),
        })
    }

    pub fn phase(&self) -> PhaseReceiver {
        self.phase.subscribe()
    }

    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    pub fn set_publish_address(&self, address: IpAddr) {
        self.publish_address.send_replace(address);
    }

    pub fn running(&self) -> Option<Running> {
        self.facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_facts(&self, facts: Option<Running>) {
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = facts;
    }

    /// What `status` shows of the VM.
    pub async fn facts(&self) -> Option<VmFacts> {
        let running = self.running()?;
        // Told by the connection: a process that hangs has a number, too.
        let process = vm_process::find(&self.home).await;
        Some(VmFacts {
            pid: process.and_then(|client| client.process()),
            qemu_pid: Some(running.qemu_pid),
            qemu_version: Some(running.qemu_version),
            accelerator: Some(running.accelerator),
            accelerator_reason: Some(running.accelerator_reason),
            channel: Some(running.channel),
            cpus: running.cpus,
            memory: running.memory_bytes,
            disk: running.disk_bytes,
        })
    }

    pub async fn guest_status(&self) -> Option<GuestStatus> {
        if !matches!(*self.phase.borrow(), Phase::Running) {
            return None;
        }
        match guest::ask(&self.home.channel_socket(), Request::Status, GUEST_PATIENCE).await {
            Ok(Reply::Status(status)) => Some(status),
            _ => None,
        }
    }

    /// Takes up a VM that outlived the last service.
    pub async fn reconnect(self: Arc<Self>) {
        let _turn = self.turn.lock().await;
        let Some(client) = vm_process::find(&self.home).await else {
            return;
        };
        tracing::info!("found a running longshore-vm");
        self.set_phase(Phase::Starting {
            stage: "reconnecting".to_owned(),
        });
        let (reporter, _operation) = crate::operation::new();
        let cancel = self.fresh_cancel();
        let found = tokio::select! {
            found = self.follow_start(client, &reporter) => found,
            // Whoever asked for the stop waits for our turn to end, and then stops the VM.
            () = cancel.cancelled() => return,
        };
        match found {
            Ok(watch) => self.clone().keep(watch),
            Err(error) => {
                tracing::error!(%error, "the VM that was found does not work");
                self.set_phase(Phase::Failed { why: error.message });
            }
        }
    }

    fn fresh_cancel(&self) -> CancellationToken {
        let cancel = CancellationToken::new();
        *self
            .cancel_start
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = cancel.clone();
        cancel
    }

    /// Boots the VM; true if it ran already. A failed start leaves nothing running.
    pub async fn start(
        self: &Arc<Self>,
        config: VmConfig,
        reporter: &Reporter,
    ) -> Result<bool, ApiError> {
        let _turn = self.turn.lock().await;
        if matches!(*self.phase.borrow(), Phase::Running | Phase::Paused { .. }) {
            return Ok(true);
        }
        let cancel = self.fresh_cancel();
        self.enter(reporter, "vm", "Starting the VM's process");
        let boot = async {
            let client = match self.left_running().await {
                Some(client) => client,
                None => vm_process::spawn(&self.home, &config).await.map_err(|e| {
                    // It served its sockets and ended before we were there: it has left a reason.
                    if let VmProcessError::Connect(e) = &e {
                        return self.lost(e);
                    }
                    let error = ApiError::new(ErrorCode::StartFailed, e.to_string());
                    error.at_stage("vm").with_log(e.log())
                })?,
            };
            self.follow_start(client, reporter).await
        };
        let result = tokio::select! {
            result = boot => result,
            () = cancel.cancelled() => Err(ApiError::conflict("the start was cancelled by a stop")),
        };
        match result {
            Ok(watch) => {
                self.clone().keep(watch);
                Ok(false)
            }
            Err(error) => {
                self.end_process(true).await;
                self.set_facts(None);
                let why = error.message.clone();
                self.set_phase(match error.code {
                    ErrorCode::Conflict => Phase::Stopped,
                    _ => Phase::Failed { why },
                });
                Err(error)
            }
        }
    }

    /// A process that an earlier service left, and that this one could not take up. One that is about to end is waited for.
    async fn left_running(&self) -> Option<Client> {
        let mut client = vm_process::find(&self.home).await?;
        match client.state().await {
            Ok(VmState::Starting { .. } | VmState::Running(_) | VmState::Paused { .. }) => {
                Some(client)
            }
            _ => {
                let _ = tokio::time::timeout(END_PATIENCE, client.gone()).await;
                None
            }
        }
    }

    /// From a `longshore-vm` that serves its socket to an engine that answers.
    async fn follow_start(&self, client: Client, reporter: &Reporter) -> Result<Watch, ApiError> {
        let lost = |e: ClientError| self.lost(&e);
        let mut watch = client.watch().await.map_err(lost)?;
        let mut stage = None;
        let running = loop {
            match watch.next().await.map_err(lost)? {
                // A stage comes again with the next accelerator that is tried.
                Some(VmState::Starting { stage: next }) if stage == Some(next) => {}
                Some(VmState::Starting { stage: next }) => {
                    stage = Some(next);
                    self.enter(reporter, &next.to_string(), stage_text(next));
                }
                Some(VmState::Running(running)) => break running,
                Some(VmState::Failed(failure)) => return Err(start_failure(failure)),
                Some(VmState::Paused { message, .. }) => {
                    return Err(ApiError::new(ErrorCode::StartFailed, message));
                }
                Some(VmState::Stopped { reason }) => {
                    return Err(ApiError::new(
                        ErrorCode::StartFailed,
                        format!("the VM stopped while it was starting: {reason}"),
                    ));
                }
                Some(VmState::Stopping) => {}
                None => {
                    let mut error = lost(ClientError::Closed);
                    error.stage = stage.map(|s| s.to_string());
                    return Err(error);
                }
            }
        };
        for warning in &running.warnings {
            reporter.notice(warning.clone());
        }
        self.set_facts(Some(running));
        self.enter(reporter, "engine", "Waiting for the Docker engine");
        tokio::select! {
            answer = self.engine_answers() => answer?,
            why = self.guest_gives_up() => return Err(why),
            ended = ended(&mut watch) => return Err(ended),
        }
        self.set_phase(Phase::Running);
        Ok(watch)
    }

    /// Why the VM's process is not there any more: what it left to say, or else its log.
    fn lost(&self, error: &ClientError) -> ApiError {
        if let Some(VmState::Failed(failure)) = vm_process::last_state(&self.home) {
            return start_failure(failure);
        }
        let message = format!("lost the VM's process: {error}");
        let log = logs::last_lines(&vm_process::log_file(&self.home), 20);
        ApiError::new(ErrorCode::StartFailed, message).with_log(log)
    }

    /// Why the guest starts no engine: it refuses the disk, say. Waits for ever when there is no such reason.
    async fn guest_gives_up(&self) -> ApiError {
        let channel = self.home.channel_socket();
        let settled = guest::ask(&channel, Request::WaitReady, ENGINE_PATIENCE).await;
        if let Ok(Reply::Status(status)) = settled
            && (status.services.iter()).any(|service| service.state == ServiceState::Failed)
        {
            let why = status.problems.join("; ");
            return ApiError::new(ErrorCode::StartFailed, why).at_stage("engine");
        }
        std::future::pending().await
    }

    async fn engine_answers(&self) -> Result<(), ApiError> {
        let channel = self.home.channel_socket();
        let deadline = tokio::time::Instant::now() + ENGINE_PATIENCE;
        loop {
            let answer = match channel::dial(&channel, ports::DOCKER).await {
                Ok(stream) => engine::version(stream, ENGINE_PATIENCE)
                    .await
                    .map_err(|e| e.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let why = match answer {
                Ok(version) => {
                    tracing::info!(
                        version = version.version,
                        api = version.api_version,
                        "engine answers"
                    );
                    return Ok(());
                }
                Err(why) => why,
            };
            if tokio::time::Instant::now() >= deadline {
                let message = format!("the Docker engine in the VM does not answer: {why}");
                return Err(ApiError::new(ErrorCode::StartFailed, message)
                    .at_stage("engine")
                    .with_log(self.guest_evidence().await));
            }
            tokio::time::sleep(ENGINE_PAUSE).await;
        }
    }

    /// The end of the daemon's log, or of the console when there is none.
    async fn guest_evidence(&self) -> Vec<String> {
        use futures::StreamExt;
        let channel = self.home.channel_socket();
        let mut lines = Vec::new();
        for source in [LogSource::Supervisor, LogSource::Daemon] {
            let Ok(stream) = logs::guest(&channel, source, false).await else {
                continue;
            };
            let collect = stream
                .take(256)
                .fold(Vec::new(), |mut all, chunk| async move {
                    all.extend_from_slice(&chunk.unwrap_or_default());
                    all
                });
            let Ok(bytes) = tokio::time::timeout(GUEST_PATIENCE, collect).await else {
                continue;
            };
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let all: Vec<&str> = text.lines().collect();
            let last = &all[all.len().saturating_sub(10)..];
            lines.extend(last.iter().map(|l| format!("{}: {l}", source.name())));
        }
        if lines.is_empty() {
            lines = logs::last_lines(&self.home.console_log(), 20);
        }
        lines
    }

    /// Follows a running VM to its end, with what has to run as long as it does.
    fn keep(self: Arc<Self>, mut watch: Watch) {
        let news = tokio::spawn({
            let (ports, address) = (self.ports.clone(), self.publish_address.subscribe());
            let channel = self.home.channel_socket();
            async move { published::follow(&channel, ports, address).await }
        });
        tokio::spawn(async move {
            let last = loop {
                match watch.next().await {
                    Ok(Some(VmState::Running(running))) => {
                        self.set_facts(Some(running));
                        self.set_phase(Phase::Running);
                    }
                    Ok(Some(VmState::Paused { message, .. })) => {
                        self.set_phase(Phase::Paused { why: message });
                    }
                    Ok(Some(VmState::Stopping)) => self.set_phase(Phase::Stopping),
                    Ok(Some(VmState::Stopped { reason })) => {
                        tracing::info!(reason, "the VM stopped");
                        break Phase::Stopped;
                    }
                    Ok(Some(VmState::Failed(failure))) => {
                        tracing::error!(log = ?failure.log, "the VM failed: {}", failure.reason);
                        break Phase::Failed {
                            why: failure.reason,
                        };
                    }
                    Ok(Some(VmState::Starting { .. })) => {}
                    Ok(None) | Err(_) => {
                        break Phase::Failed {
                            why: "longshore-vm ended unexpectedly".to_owned(),
                        };
                    }
                }
            };
            news.abort();
            self.ports.clear();
            self.set_facts(None);
            self.set_phase(last);
        });
    }

    /// Orderly power-off; true if there was nothing to stop.
    pub async fn stop(self: &Arc<Self>, reporter: &Reporter) -> Result<bool, ApiError> {
        self.cancel_start
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .cancel();
        let _turn = self.turn.lock().await;
        let mut phase = self.phase.subscribe();
        let Some(mut client) = vm_process::find(&self.home).await else {
            self.set_phase(Phase::Stopped);
            return Ok(true);
        };
        reporter.stage("stopping", "Stopping containers and the VM");
        self.set_phase(Phase::Stopping);
        match client.stop(STOP_DEADLINE_MS, false).await {
            Ok(()) | Err(ClientError::Closed) => {}
            Err(error) => {
                let message = format!("the VM's process could not stop it: {error}");
                return Err(ApiError::internal(message).with_hint(format!(
                    "end {}: what the engine has acknowledged is kept",
                    longshore_local_socket::named("longshore-vm", client.process())
                )));
            }
        }
        let settled = phase.wait_for(|p| matches!(p, Phase::Stopped | Phase::Failed { .. }));
        // A VM that this service never took up has nobody who watches it.
        let _ = tokio::time::timeout(GUEST_PATIENCE, settled).await;
        let _ = tokio::time::timeout(END_PATIENCE, client.gone()).await;
        self.set_phase(Phase::Stopped);
        Ok(false)
    }

    /// No start begins as long as this is held; refused while the VM runs.
    pub async fn hold_stopped(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, ApiError> {
        let turn = self.turn.lock().await;
        let stopped = matches!(*self.phase.borrow(), Phase::Stopped | Phase::Failed { .. });
        match stopped && vm_process::find(&self.home).await.is_none() {
            true => Ok(turn),
            false => {
                Err(ApiError::conflict("the engine runs")
                    .with_hint("stop it first: longshore stop"))
            }
        }
    }

    async fn end_process(&self, force: bool) {
        if let Some(mut client) = vm_process::find(&self.home).await {
            let _ = client.stop(STOP_DEADLINE_MS, force).await;
            let _ = tokio::time::timeout(END_PATIENCE, client.gone()).await;
        }
    }

    /// Plugs a folder into the running guest and mounts it there; nothing to do when there is none.
    pub async fn add_share(&self, share: ShareConfig) -> Result<(), ApiError> {
        if self.running().is_none() {
            return Ok(());
        }
        let path = share.path.display().to_string();
        let failed = |e: String| ApiError::internal(format!("cannot share {path}: {e}"));
        let mut client = self.client().await?;
        client
            .add_share(share.clone())
            .await
            .map_err(|e| failed(e.to_string()))?;
        let mount = longshore_protocol::config::Share {
            tag: share.tag.clone(),
            path: path.clone(),
            read_only: share.read_only,
        };
        let channel = self.home.channel_socket();
        match guest::ask(
            &channel,
            Request::MountShare(mount),
            Duration::from_secs(30),
        )
        .await
        {
            Ok(_) => Ok(()),
            Err(error) => {
                let _ = client.remove_share(share.tag).await;
                Err(failed(error.to_string()))
            }
        }
    }

    pub async fn remove_share(&self, tag: String) -> Result<(), ApiError> {
        if self.running().is_none() {
            return Ok(());
        }
        let channel = self.home.channel_socket();
        let request = Request::UnmountShare { tag: tag.clone() };
        guest::ask(&channel, request, GUEST_PATIENCE)
            .await
            .map_err(|e| {
                ApiError::conflict(format!("the folder is in use in the VM: {e}"))
                    .with_hint("stop the containers that use it, or: longshore restart")
            })?;
        self.client()
            .await?
            .remove_share(tag)
            .await
            .map_err(|e| ApiError::internal(e.to_string()))
    }

    async fn client(&self) -> Result<Client, ApiError> {
        vm_process::find(&self.home)
            .await
            .ok_or_else(|| ApiError::conflict("the VM's process does not answer"))
    }

    fn enter(&self, reporter: &Reporter, name: &str, text: &str) {
        self.set_phase(Phase::Starting {
            stage: text.to_owned(),
        });
        reporter.stage(name, text);
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }
}

fn stage_text(stage: Stage) -> &'static str {
    match stage {
        Stage::Check => "Checking QEMU, memory, disk and guest image",
        Stage::Accelerator => "Choosing an accelerator",
        Stage::Qemu => "Starting QEMU",
        Stage::Kernel => "Booting the Linux kernel",
        Stage::Channel => "Waiting for the guest's agent",
    }
}

fn start_failure(failure: Failure) -> ApiError {
    let mut error = ApiError::new(ErrorCode::StartFailed, failure.reason).with_log(failure.log);
    error.stage = failure.stage.map(|s| s.to_string());
    error.hint = failure.advice;
    error
}

/// The state that ends a VM while its engine is awaited.
async fn ended(watch: &mut Watch) -> ApiError {
    loop {
        match watch.next().await {
            Ok(Some(VmState::Failed(failure))) => return start_failure(failure),
            Ok(Some(VmState::Stopped { reason })) => {
                let message = format!("the VM stopped before its engine answered: {reason}");
                return ApiError::new(ErrorCode::StartFailed, message).at_stage("engine");
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => {
                return ApiError::new(ErrorCode::StartFailed, "longshore-vm ended unexpectedly")
                    .at_stage("engine");
            }
        }
    }
}
