//! All containers: found by id, name or prefix, listed without waiting, kept on disk.

use super::init_layer;
use super::links;
use super::record::{Container, Fixed, State, Status};
use crate::config::Config;
use crate::error::{ApiError, ApiResult};
use crate::event::Events;
use crate::identity::{self, PrefixMatch};
use crate::state::Parts;
use crate::supervisor::Supervisor;
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use tokio::sync::watch;

/// One container's place: the newest state for readers, and a lock for those who change what runs.
pub struct Entry {
    current: watch::Sender<Arc<Container>>,
    /// Held while a change is made and written; never over a wait.
    changing: Mutex<()>,
    /// Held over an operation (start, stop, remove); never by readers. See [`Entry::operate`].
    operation: tokio::sync::Mutex<()>,
    /// Counts exits, so that `next-exit` cannot miss one that a restart follows at once.
    pub exits: watch::Sender<(u64, i32)>,
    pub removed: watch::Sender<bool>,
    /// True from the moment that the removal is on disk; nothing is written from there on.
    leaving: AtomicBool,
    /// True while `docker restart` stops the container and starts it again.
    restarted_by_hand: watch::Sender<bool>,
    /// Cancels a restart that waits for its time.
    pub cancel_restart: tokio::sync::Notify,
    pub live: Mutex<super::task::Live>,
}

impl Entry {
    fn new(container: Container) -> Arc<Self> {
        Arc::new(Entry {
            exits: watch::Sender::new((0, container.state.exit_code)),
            current: watch::Sender::new(Arc::new(container)),
            changing: Mutex::default(),
            operation: tokio::sync::Mutex::new(()),
            removed: watch::Sender::new(false),
            leaving: AtomicBool::new(false),
            restarted_by_hand: watch::Sender::new(false),
            cancel_restart: tokio::sync::Notify::new(),
            live: Mutex::default(),
        })
    }

    /// Waits for other operations on the container to end; 404 `No such container: X` when one of them removed it.
    pub async fn operate(&self) -> ApiResult<tokio::sync::MutexGuard<'_, ()>> {
        let operation = self.operation.lock().await;
        match self.leaving() {
            true => Err(no_such(&self.now().id)),
            false => Ok(operation),
        }
    }

    pub fn now(&self) -> Arc<Container> {
        self.current.borrow().clone()
    }

    /// The container as who inspects it should see it: one that is between its stop and its start of `docker restart` is waited for,
    /// as by Docker's engine. Who is told of its end and looks (`docker compose logs --follow` does) must not take it for stopped.
    pub async fn inspected(&self) -> Arc<Container> {
        if !self.now().running {
            let mut restarted = self.restarted_by_hand.subscribe();
            // The sender lives as long as this.
            let _ = restarted.wait_for(|restarted| !restarted).await;
        }
        self.now()
    }

    /// Says that the container is stopped to be started again, until what is returned is dropped.
    pub fn restarted_by_hand(&self) -> impl Drop + '_ {
        struct Restarted<'a>(&'a watch::Sender<bool>);
        impl Drop for Restarted<'_> {
            fn drop(&mut self) {
                self.0.send_replace(false);
            }
        }
        self.restarted_by_hand.send_replace(true);
        Restarted(&self.restarted_by_hand)
    }

    fn leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Told of every change.
    pub fn watch(&self) -> watch::Receiver<Arc<Container>> {
        self.current.subscribe()
    }

    fn changing(&self) -> std::sync::MutexGuard<'_, ()> {
        self.changing
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    pub fn live(&self) -> std::sync::MutexGuard<'_, super::task::Live> {
        self.live
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }
}

type Map = BTreeMap<String, Arc<Entry>>;

/// Cheap to clone: the parts of it are shared.
#[derive(Clone)]
pub struct Containers {
    pub config: Arc<Config>,
    pub supervisor: Supervisor,
    pub events: Events,
    pub boot: Arc<str>,
    /// True once it is known what runs; see [`super::reconcile`].
    pub settled: watch::Sender<bool>,
    /// Replaced whole at every change; readers only clone the pointer.
    map: Arc<RwLock<Arc<Map>>>,
    names: Arc<Mutex<HashMap<String, String>>>,
}

impl Containers {
    /// Reads what is on disk; what runs is found out by [`super::reconcile`].
    pub async fn open(parts: &Parts) -> ApiResult<Self> {
        let containers = Containers {
            config: parts.config.clone(),
            supervisor: parts.supervisor.clone(),
            events: parts.events.clone(),
            boot: boot_id().into(),
            settled: watch::Sender::new(false),
            map: Arc::default(),
            names: Arc::default(),
        };
        init_layer::make(&containers.config.data("init-layer"))?;
        let folder = containers.folder("");
        std::fs::create_dir_all(&folder)?;
        let mut map = Map::new();
        for found in std::fs::read_dir(&folder)? {
            let path = found?.path();
            match read_container(&path) {
                Ok(container) => {
                    let (name, id) = (container.name.clone(), container.id.clone());
                    containers.names().insert(name, id.clone());
                    map.insert(id, Entry::new(container));
                }
                // Not acknowledged yet when the power went, or half removed.
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "removing a container without a record");
                    containers.end_removal(&path);
                }
            }
        }
        *containers
            .map
            .write()
            .unwrap_or_else(|poison| poison.into_inner()) = Arc::new(map);
        Ok(containers)
    }

    /// The folder of container `id`: records, logs, `/etc` files.
    pub fn folder(&self, id: &str) -> PathBuf {
        self.config.data("containers").join(id)
    }

    /// Run-time files of container `id`: stdin FIFOs, attach sockets.
    pub fn runtime_folder(&self, id: &str) -> PathBuf {
        self.config.options.exec_root.join("containers").join(id)
    }

    fn snapshot(&self) -> Arc<Map> {
        self.map
            .read()
            .unwrap_or_else(|poison| poison.into_inner())
            .clone()
    }

    fn change_map(&self, change: impl FnOnce(&mut Map)) {
        let mut map = self
            .map
            .write()
            .unwrap_or_else(|poison| poison.into_inner());
        change(Arc::make_mut(&mut map));
    }

    fn names(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.names
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    /// By id, name or unambiguous prefix; 404 `No such container: X`.
    pub fn entry(&self, reference: &str) -> ApiResult<Arc<Entry>> {
        let map = self.snapshot();
        let name = reference.strip_prefix('/').unwrap_or(reference);
        let by_name = self.names().get(name).cloned();
        if let Some(entry) = map
            .get(reference)
            .or_else(|| by_name.and_then(|id| map.get(&id)))
        {
            return Ok(entry.clone());
        }
        if let Some((parent, alias)) = name.rsplit_once('/')
            && let Some(id) = self.names().get(parent)
            && let Some(target) = map
                .get(id)
                .and_then(|entry| links::target(&entry.now(), alias))
            && let Some(entry) = map.get(&target)
        {
            return Ok(entry.clone());
        }
        match identity::by_prefix(map.keys().map(String::as_str), reference) {
            PrefixMatch::One(id) => Ok(map[id].clone()),
            PrefixMatch::Several => Err(ApiError::bad_request(format!(
                "multiple IDs found with provided prefix: {reference}"
            ))),
            PrefixMatch::None => Err(no_such(reference)),
        }
    }

    /// The container as it is now; see [`Containers::entry`].
    pub fn get(&self, reference: &str) -> ApiResult<Arc<Container>> {
        self.entry(reference).map(|entry| entry.now())
    }

    /// Whether `id` is a container, or one that is being made: its name is taken first.
    pub fn is_taken(&self, id: &str) -> bool {
        self.snapshot().contains_key(id) || self.names().values().any(|owner| owner == id)
    }

    /// A snapshot for lists; takes no lock that a request holds.
    pub fn list(&self) -> Vec<Arc<Container>> {
        self.snapshot().values().map(|entry| entry.now()).collect()
    }

    pub fn entries(&self) -> Vec<Arc<Entry>> {
        self.snapshot().values().cloned().collect()
    }

    /// Takes `name` for `id`; 409 in Docker's words when another has it.
    pub fn reserve_name(&self, name: &str, id: &str) -> ApiResult<()> {
        let mut names = self.names();
        if let Some(owner) = names.get(name) {
            return Err(ApiError::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to \
                 remove (or rename) that container to be able to reuse that name."
            )));
        }
        names.insert(name.to_owned(), id.to_owned());
        Ok(())
    }

    pub fn release_name(&self, name: &str) {
        self.names().remove(name);
    }

    /// Writes a new container's records and shows it.
    pub fn insert(&self, container: Container) -> ApiResult<Arc<Entry>> {
        let folder = self.folder(&container.id);
        // A container that removes itself need not outlive a power cut.
        let durable = !container.host_config.auto_remove;
        write_json(&folder.join("state.json"), &container.state, false)?;
        write_json(&folder.join("config.json"), &container.fixed, durable)?;
        let entry = Entry::new(container);
        let id = entry.now().id.clone();
        self.change_map(|map| drop(map.insert(id, entry.clone())));
        Ok(entry)
    }

    /// From here on a container is removed, even if we die before anybody is told; readers see it until [`Containers::forget`].
    pub fn mark_removed(&self, entry: &Entry) {
        {
            // Who changes the container from here on finds that it is going, and writes nothing.
            let _changing = entry.changing();
            let folder = self.folder(&entry.now().id);
            let record = folder.join("config.json");
            if let Err(error) = std::fs::rename(record, folder.join(REMOVED)) {
                let id = entry.now().id.clone();
                tracing::warn!(%error, id, "marking a container's record as removed");
            }
            entry.leaving.store(true, Ordering::Release);
        }
        self.change_in_memory(entry, |state| state.status = Status::Removing);
    }

    /// Takes a container that is marked as removed out of every list, tells of it, and deletes its folder.
    pub fn forget(&self, entry: &Entry) {
        let _changing = entry.changing();
        let container = entry.now();
        let folder = self.folder(&container.id);
        self.change_map(|map| drop(map.remove(&container.id)));
        self.release_name(&container.name);
        entry.removed.send_replace(true);
        self.publish(&container, "destroy", &[]);
        let _ = std::fs::remove_dir_all(self.runtime_folder(&container.id));
        let _ = std::fs::remove_dir_all(folder);
    }

    /// Makes sure that what [`Containers::mark_removed`] marked does not come back.
    pub async fn flush_removals(&self) -> ApiResult<()> {
        let folder = self.folder("");
        let flush = move || std::fs::File::open(folder)?.sync_all();
        Ok(tokio::task::spawn_blocking(flush)
            .await
            .map_err(|error| ApiError::internal(error.to_string()))??)
    }

    /// Deletes the folder of a container that is none (any more), and tells of a removal that nobody was told of.
    fn end_removal(&self, folder: &Path) {
        let record = std::fs::read(folder.join(REMOVED)).ok();
        if let Some(fixed) = record.and_then(|text| serde_json::from_slice::<Fixed>(&text).ok()) {
            let container = Container::new(fixed, State::default());
            self.announce(&container, "destroy", None, &[]);
        }
        if let Some(id) = folder.file_name() {
            let _ = std::fs::remove_dir_all(self.runtime_folder(&id.to_string_lossy()));
        }
        let _ = std::fs::remove_dir_all(folder);
    }

    /// Changes what seldom changes, durably.
    pub fn change_fixed(&self, entry: &Entry, change: impl FnOnce(&mut Fixed)) -> ApiResult<()> {
        let _changing = entry.changing();
        let mut fixed = entry.now().fixed.clone();
        if entry.leaving() {
            return Err(no_such(&fixed.id));
        }
        change(&mut fixed);
        write_json(&self.folder(&fixed.id).join("config.json"), &fixed, true)?;
        entry.current.send_modify(|current| {
            *current = Arc::new(Container::new(fixed, current.state.clone()));
        });
        Ok(())
    }

    /// Changes the state on disk and for readers. A disk that refuses does not stop a container.
    pub fn change_state(&self, entry: &Entry, durable: bool, change: impl FnOnce(&mut State)) {
        self.change_state_if(entry, durable, |state| {
            change(state);
            true
        });
    }

    /// The same, where `change` may find that there is nothing to change (false).
    pub fn change_state_if(
        &self,
        entry: &Entry,
        durable: bool,
        change: impl FnOnce(&mut State) -> bool,
    ) -> bool {
        let _changing = entry.changing();
        let mut state = entry.now().state.clone();
        if !change(&mut state) {
            return false;
        }
        self.put_state(entry, durable, &state);
        entry
            .current
            .send_modify(|current| *current = Arc::new(current.with_state(state)));
        true
    }

    /// Changes the state for readers; it goes to disk with the next change.
    pub fn change_in_memory(&self, entry: &Entry, change: impl FnOnce(&mut State)) {
        let _changing = entry.changing();
        let mut state = entry.now().state.clone();
        change(&mut state);
        entry
            .current
            .send_modify(|current| *current = Arc::new(current.with_state(state)));
    }

    /// Puts a state on disk that readers are to see later.
    pub fn write_state(&self, entry: &Entry, durable: bool, state: &State) {
        let _changing = entry.changing();
        self.put_state(entry, durable, state);
    }

    fn put_state(&self, entry: &Entry, durable: bool, state: &State) {
        let container = entry.now();
        if entry.leaving() {
            return;
        }
        let durable = durable && !container.host_config.auto_remove;
        let path = self.folder(&container.id).join("state.json");
        if let Err(error) = write_json(&path, state, durable) {
            tracing::error!(%error, id = %container.id, "writing a container's state");
        }
    }

    /// Publishes an event on a container, with its labels, image and name, and `more`.
    pub fn publish(&self, container: &Container, action: &str, more: &[(&str, String)]) {
        let mut attributes = container.config.labels.clone();
        attributes.insert("image".to_owned(), container.config.image.clone());
        attributes.insert("name".to_owned(), container.name.clone());
        attributes.extend(
            more.iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone())),
        );
        self.events
            .publish("container", action, &container.id, attributes);
    }

    /// Publishes what an earlier life of the daemon did after `since`, unless it told of it just before it died.
    pub fn announce(
        &self,
        container: &Container,
        action: &str,
        since: Option<DateTime<Utc>>,
        more: &[(&str, String)],
    ) {
        if !self.events.were_told(&container.id, action, since) {
            self.publish(container, action, more);
        }
    }
}

/// What `config.json` is called from a container's removal until its folder is gone.
const REMOVED: &str = "removed.json";

fn no_such(reference: &str) -> ApiError {
    ApiError::not_found(format!("No such container: {reference}"))
}

fn read_container(folder: &Path) -> ApiResult<Container> {
    let fixed: Fixed = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
    let state = std::fs::read(folder.join("state.json"))
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    Ok(Container::new(fixed, state))
}

/// Replaces `path` by the JSON of `value`: whole or not at all, and on the disk itself when `durable`.
pub fn write_json<T: Serialize>(path: &Path, value: &T, durable: bool) -> ApiResult<()> {
    let step = |what: &'static str| {
        move |error: std::io::Error| {
            ApiError::internal(format!("{what} {}: {error}", path.display()))
        }
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).map_err(step("making the folder of"))?;
    let temporary = path.with_extension("new");
    let mut file = std::fs::File::create(&temporary).map_err(step("creating"))?;
    file.write_all(&serde_json::to_vec(value)?)
        .map_err(step("writing"))?;
    if durable {
        file.sync_data().map_err(step("flushing"))?;
    }
    std::fs::rename(&temporary, path).map_err(step("replacing"))?;
    if durable {
        std::fs::File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(step("flushing the folder of"))?;
    }
    Ok(())
}

fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    text.map(|text| text.trim().to_owned()).unwrap_or_default()
}
