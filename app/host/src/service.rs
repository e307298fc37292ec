//! What the API's requests do.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::Stream;
use longshore_host_api::settings::{KEYS, Key, Machine, Stored};
use longshore_host_api::types::{
    EngineState, MachineFacts, SettingsChanged, ShareStatus, StartRequest, Status,
};
use longshore_host_api::{ApiError, Home, Settings};
use longshore_vm::config::{AcceleratorChoice, ChannelChoice, VmConfig};
use longshore_vm::control::ShareConfig;
use tokio_util::sync::CancellationToken;

use crate::data_place::{self, Move, Step};
use crate::operation::{self, Operation, Reporter};
use crate::phase::Phase;
use crate::vm::Vm;
use crate::web::Web;
use crate::{daemon_json, good_image, last_good, login, machine, settings_file, shares};

/// The service; one for each `LONGSHORE_HOME`.
pub struct Service {
    home: Home,
    machine: Machine,
    stored: tokio::sync::Mutex<Stored>,
    vm: Arc<Vm>,
    /// The start that others may join.
    starting: Mutex<Option<Operation>>,
    end: CancellationToken,
    web: Web,
}

impl Service {
    pub fn new(home: Home, stored: Stored, end: CancellationToken) -> Arc<Self> {
        let machine = machine::detect();
        let vm = Vm::new(home.clone(), stored.resolve(machine).publish_address);
        let stored = tokio::sync::Mutex::new(stored);
        Arc::new(Self {
            home,
            machine,
            stored,
            vm,
            starting: Mutex::default(),
            end,
            web: Web::default(),
        })
    }

    pub fn home(&self) -> &Home {
        &self.home
    }

    pub fn vm(&self) -> &Arc<Vm> {
        &self.vm
    }

    pub fn web(&self) -> &Web {
        &self.web
    }

    /// Cancelled when the service ends.
    pub fn end(&self) -> &CancellationToken {
        &self.end
    }

    /// What this machine has, and what the data disk takes of it.
    pub fn machine(&self) -> MachineFacts {
        let disk = data_place::disk(&self.home).unwrap_or_else(|_| self.home.data_disk());
        let folder = disk.parent().unwrap_or(self.home.root());
        MachineFacts {
            cpus: self.machine.cpus,
            memory: self.machine.memory.bytes(),
            data_folder: folder.to_owned(),
            data_disk: machine::allocated(&disk),
            free_disk: machine::free_disk(folder),
        }
    }

    /// The engine's state now, and each time that it changes.
    pub fn watch(&self) -> impl Stream<Item = EngineState> + Send + 'static {
        let mut phase = self.vm.phase();
        phase.mark_changed();
        futures::stream::unfold(phase, |mut phase| async move {
            phase.changed().await.ok()?;
            let state = {
                let now = phase.borrow_and_update();
                EngineState {
                    state: now.state(),
                    detail: now.detail(),
                }
            };
            Some((state, phase))
        })
    }

    pub fn shut_down(&self) {
        self.end.cancel();
    }

    pub async fn settings(&self) -> Settings {
        self.stored.lock().await.resolve(self.machine)
    }

    pub async fn status(&self) -> Status {
        let phase = self.vm.phase().borrow().clone();
        let guest = self.vm.guest_status().await;
        let shares = match guest {
            Some(guest) => guest.shares.into_iter().map(mounted).collect(),
            None => self.planned_shares().await,
        };
        Status {
            state: phase.state(),
            detail: phase.detail(),
            warning: self.image_warning(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            home: self.home.root().to_owned(),
            docker_host: self.home.docker_host(),
            vm: self.vm.facts().await,
            shares,
            ports: self.vm.ports().list(),
            host_pid: std::process::id(),
        }
    }

    async fn planned_shares(&self) -> Vec<ShareStatus> {
        let (shares, _) = shares::plan(&self.settings().await, shares::user_home().as_deref());
        shares
            .into_iter()
            .map(|s| ShareStatus {
                path: s.path,
                read_only: s.read_only,
                mounted: false,
                error: None,
            })
            .collect()
    }

    /// Begins a start, or joins the one under way.
    pub async fn start(self: &Arc<Self>, request: StartRequest) -> Result<Operation, ApiError> {
        let assignments = assignments(&request);
        let changed = if assignments.is_empty() {
            None
        } else {
            Some(self.change_settings(&assignments).await?)
        };
        let mut starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(operation) = starting.as_ref().filter(|o| !o.is_over()) {
            return Ok(operation.clone());
        }
        let (reporter, operation) = operation::new();
        *starting = Some(operation.clone());
        let service = self.clone();
        // One that runs with the image before goes on to say so.
        let phase = self.vm.phase().borrow().clone();
        if request.retry_image && matches!(phase, Phase::Stopped | Phase::Failed { .. }) {
            good_image::forgive(&self.home);
        }
        // Not part of the request: whoever asked may go away.
        tokio::spawn(async move {
            for notice in changed.map(|c| c.notices).unwrap_or_default() {
                reporter.notice(notice);
            }
            match service.boot(&reporter).await {
                Ok(already) => reporter.done(already, service.status().await),
                Err(error) => reporter.failed(error),
            }
        });
        Ok(operation)
    }

    /// As they are stored now.
    pub(crate) async fn stored_settings(&self) -> Stored {
        self.stored.lock().await.clone()
    }

    /// Replaces what `from` has and nobody has changed since by what `to` has; names the settings that are others now.
    pub(crate) async fn exchange(
        &self,
        from: &Stored,
        to: &Stored,
    ) -> Result<Option<String>, ApiError> {
        let mut stored = self.stored.lock().await;
        let Some((next, names)) = stored.exchange(from, to) else {
            return Ok(None);
        };
        settings_file::save(&self.home.settings_file(), &next)
            .map_err(|e| ApiError::internal(e.to_string()))?;
        *stored = next;
        Ok(Some(names.join(", ")))
    }

    /// The VM of a start with the guest image in this folder.
    pub(crate) async fn vm_config(
        &self,
        image: PathBuf,
        reporter: &Reporter,
    ) -> Result<VmConfig, ApiError> {
        let settings = self.settings().await;
        let (shares, notices) = shares::plan(&settings, shares::user_home().as_deref());
        for notice in notices {
            reporter.notice(notice);
        }
        let mut config = VmConfig::new(self.home.root(), image);
        if self.home.socket_folder() != self.home.root() {
            config.runtime_dir = Some(self.home.socket_folder().join("vm"));
        }
        config.cpus = settings.cpus;
        config.memory_bytes = settings.memory.bytes();
        config.guest.swap_bytes = settings.swap.bytes();
        config.disk_bytes = settings.disk.bytes();
        config.accelerator = word(&settings.accelerator).unwrap_or(AcceleratorChoice::Auto);
        config.channel = word(&settings.channel).unwrap_or(ChannelChoice::Auto);
        config.shares = shares;
        for share in &mut config.shares {
            share.masks = self.masks(&settings);
        }
        config.data_disk = Some(data_place::disk_to_start(&self.home)?);
        config.guest.daemon_json = daemon_json::compose(
            &self.home.daemon_json(),
            &settings,
            &self.home.docker_socket(),
        )?;
        Ok(config)
    }

    pub fn stop(self: &Arc<Self>) -> Operation {
        let (reporter, operation) = operation::new();
        let service = self.clone();
        tokio::spawn(async move {
            match service.vm.stop(&reporter).await {
                Ok(already) => reporter.done(already, service.status().await),
                Err(error) => reporter.failed(error),
            }
        });
        operation
    }

    /// Begins to move the data disk; what cannot be is refused before anything is stopped.
    pub fn move_data(self: &Arc<Self>, folder: &Path) -> Result<Operation, ApiError> {
        let planned = data_place::plan(&self.home, folder)?;
        let (reporter, operation) = operation::new();
        let service = self.clone();
        let folder = folder.to_owned();
        tokio::spawn(async move {
            let moved = service.move_data_now(planned, &folder, &reporter).await;
            match moved {
                Ok(()) => reporter.done(false, service.status().await),
                Err(error) => reporter.failed(error),
            }
        });
        Ok(operation)
    }

    async fn move_data_now(
        self: &Arc<Self>,
        planned: Move,
        folder: &Path,
        reporter: &Reporter,
    ) -> Result<(), ApiError> {
        let phase = self.vm.phase().borrow().clone();
        let ran = !matches!(phase, Phase::Stopped | Phase::Failed { .. });
        if ran {
            self.vm.stop(reporter).await?;
        }
        let moved = {
            let _held = self.vm.hold_stopped().await?;
            let told = reporter.clone();
            let home = self.home.clone();
            let moving = tokio::task::spawn_blocking(move || {
                let mut last = None;
                planned.run(&home, &mut |step, done, all| {
                    // A line for every tenth.
                    let percent = (done * 10).checked_div(all).unwrap_or(10) * 10;
                    if last.replace((step, percent)) != Some((step, percent)) {
                        let (name, doing) = match step {
                            Step::Copying => ("copy", "Copying the data"),
                            Step::Comparing => ("compare", "Comparing the copy"),
                        };
                        told.stage(name, &format!("{doing}: {percent} %"));
                    }
                })
            });
            let failed = |e: &dyn std::fmt::Display| {
                let why = format!("the data could not be moved to {}: {e}", folder.display());
                ApiError::conflict(why).with_hint("it is where it was, and whole")
            };
            match moving.await {
                Ok(done) => done.map_err(|e| failed(&e)),
                Err(error) => Err(failed(&error)),
            }
        };
        // Moved or not: what ran, runs again.
        if ran {
            self.boot(reporter).await?;
        }
        moved
    }

    /// Applies all assignments or none, and says what they mean for the running VM.
    pub async fn change_settings(
        &self,
        assignments: &[String],
    ) -> Result<SettingsChanged, ApiError> {
        let mut stored = self.stored.lock().await;
        let old = stored.resolve(self.machine);
        let mut next = stored.clone();
        let mut keys: Vec<&'static Key> = Vec::new();
        for assignment in assignments {
            keys.push(
                next.assign(assignment)
                    .map_err(|e| ApiError::invalid(e.to_string()))?,
            );
        }
        let new = next.resolve(self.machine);
        if new.memory != old.memory
            && let Some(total) = machine::total_memory()
            && new.memory > total
        {
            return Err(ApiError::invalid(format!(
                "memory: the VM is to have {} MiB, and this machine has {} MiB",
                new.memory.as_mib(),
                total.as_mib()
            ))
            .with_hint(format!(
                "longshore settings set memory={}",
                Settings::defaults(self.machine).memory
            )));
        }
        for (path, _) in new
            .share_list()
            .iter()
            .filter(|s| !old.share_list().contains(s))
        {
            shares::check(path).map_err(|why| {
                ApiError::invalid(format!("cannot share {}: {why}", path.display()))
            })?;
        }
        if new.start_at_login != old.start_at_login {
            login::set(&self.home, new.start_at_login)?;
        }
        self.apply_shares(&old, &new).await?;
        settings_file::save(&self.home.settings_file(), &next)
            .map_err(|e| ApiError::internal(e.to_string()))?;
        if self.vm.running().is_some() && new.shares != old.shares {
            // They work: a start that fails for another reason leaves them as they are.
            last_good::remember_shares(&self.home, &next);
        }
        *stored = next;
        self.vm.set_publish_address(new.publish_address);
        let notices = self.restart_notices(&keys, &old, &new);
        Ok(SettingsChanged {
            settings: as_map(&new),
            notices,
        })
    }

    /// What lies in a folder that is shared already needs nothing.
    async fn apply_shares(&self, old: &Settings, new: &Settings) -> Result<(), ApiError> {
        let plan = |s: &Settings| {
            // The home's share itself changes with a restart.
            let same_home = Settings {
                share_home: old.share_home,
                ..s.clone()
            };
            shares::plan(&same_home, shares::user_home().as_deref()).0
        };
        let after = new;
        let (old, new) = (plan(old), plan(new));
        for share in old.iter().filter(|s| !new.contains(s)) {
            self.vm.remove_share(share.tag.clone()).await?;
        }
        for share in new.iter().filter(|s| !old.contains(s)) {
            let share = ShareConfig {
                masks: self.masks(after),
                ..share.clone()
            };
            self.vm.add_share(share).await?;
        }
        Ok(())
    }

    fn masks(&self, settings: &Settings) -> Vec<std::path::PathBuf> {
        let home = shares::user_home();
        let mut masks = shares::masks(settings, home.as_deref(), self.home.root());
        // An engine whose disk is not known does not start.
        let moved = data_place::disk(&self.home).ok();
        masks.extend(moved.filter(|disk| !disk.starts_with(self.home.root())));
        masks
    }

    fn restart_notices(&self, keys: &[&Key], old: &Settings, new: &Settings) -> Vec<String> {
        if matches!(
            *self.vm.phase().borrow(),
            Phase::Stopped | Phase::Failed { .. }
        ) {
            return Vec::new();
        }
        let (old, new) = (as_map(old), as_map(new));
        let changed = |k: &Key| k.needs_restart && old.get(k.name) != new.get(k.name);
        let names: Vec<_> = KEYS
            .iter()
            .filter(|k| changed(k) && keys.iter().any(|c| c.name == k.name))
            .map(|k| k.name)
            .collect();
        if names.is_empty() {
            return Vec::new();
        }
        vec![format!(
            "{} will change with the next start: longshore restart",
            names.join(", ")
        )]
    }
}

fn mounted(share: longshore_protocol::control::ShareStatus) -> ShareStatus {
    ShareStatus {
        path: PathBuf::from(share.share.path),
        read_only: share.share.read_only,
        mounted: share.mounted,
        error: share.error,
    }
}

/// The flags of `start`, as assignments of the settings of the same names.
fn assignments(request: &StartRequest) -> Vec<String> {
    let mut list = Vec::new();
    let mut set = |key: &str, value: Option<String>| {
        list.extend(value.map(|v| format!("{key}={v}")));
    };
    set("cpus", request.cpus.map(|n| n.to_string()));
    set("memory", request.memory.clone());
    set("disk", request.disk.clone());
    set("accelerator", request.accelerator.clone());
    set("channel", request.channel.clone());
    list.extend(request.shares.iter().map(|s| format!("shares+={s}")));
    list
}

pub fn as_map(settings: &Settings) -> serde_json::Map<String, serde_json::Value> {
    match serde_json::to_value(settings) {
        Ok(serde_json::Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    }
}

fn word<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::from(text)).ok()
}
