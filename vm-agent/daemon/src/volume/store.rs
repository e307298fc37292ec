//! The local driver: `volumes/NAME/_data`, with what was asked beside it in `volume.json`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::copy_up;
use crate::error::{ApiError, ApiResult};
use crate::event::Events;
use crate::identity::new_id;
use crate::state::Parts;

pub type Labels = BTreeMap<String, String>;

/// Docker marks volumes that nobody named.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";
/// How the folder of a clone is called until it is whole; no volume's name begins with a dot.
pub(super) const BEGUN: &str = ".cloning-";

/// A volume as it is kept and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    pub created_at: String,
    pub driver: String,
    pub labels: Option<Labels>,
    #[serde(default)]
    pub mountpoint: PathBuf,
    pub name: String,
    pub options: Option<Labels>,
    pub scope: String,
}

impl Volume {
    pub fn is_anonymous(&self) -> bool {
        self.labels
            .as_ref()
            .is_some_and(|labels| labels.contains_key(ANONYMOUS))
    }
}

#[derive(Default)]
struct State {
    volumes: BTreeMap<String, Volume>,
    /// Ids of the containers that have each volume, running or not.
    users: HashMap<String, BTreeSet<String>>,
}

#[derive(Clone)]
pub struct Volumes {
    folder: PathBuf,
    events: Events,
    state: Arc<Mutex<State>>,
    /// Held while a volume is mounted or unmounted.
    pub(super) holders: Arc<tokio::sync::Mutex<super::mounting::Holders>>,
}

impl Volumes {
    pub async fn open(parts: &Parts) -> ApiResult<Self> {
        let folder = parts.config.data("volumes");
        let failed = |error: io::Error| ApiError::from(error).context("opening the volumes");
        create_folder(&folder, 0o701).map_err(failed)?;
        let state = State {
            volumes: load(&folder).map_err(failed)?,
            ..State::default()
        };
        Ok(Self {
            folder,
            events: parts.events.clone(),
            state: Arc::new(Mutex::new(state)),
            holders: Arc::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    pub fn list(&self) -> Vec<Volume> {
        self.state().volumes.values().cloned().collect()
    }

    pub fn get(&self, name: &str) -> ApiResult<Volume> {
        let found = self.state().volumes.get(name).cloned();
        found.ok_or_else(|| ApiError::not_found(format!("get {name}: no such volume")))
    }

    /// The volume of that name, made when it is not there; an empty name makes an anonymous one.
    pub async fn get_or_create(
        &self,
        name: &str,
        driver: &str,
        options: &Labels,
        asked_labels: &Labels,
    ) -> ApiResult<Volume> {
        let (name, mut labels) = match name {
            "" => (
                new_id(),
                Labels::from([(ANONYMOUS.to_owned(), String::new())]),
            ),
            name => (name.to_owned(), Labels::new()),
        };
        labels.extend(asked_labels.clone());
        let volume = self.plan(&name, driver, options, labels)?;
        if let Some(known) = self.state().volumes.get(&name) {
            return Ok(known.clone());
        }
        let made = volume.clone();
        let folder = self.folder.join(&volume.name);
        let done = tokio::task::spawn_blocking(move || make(&folder, &made)).await;
        done.map_err(|error| ApiError::internal(error.to_string()))?
            .map_err(|error| ApiError::from(error).context(format!("create {}", volume.name)))?;
        // Of two that made it at once, the first one counts.
        let volume = self
            .state()
            .volumes
            .entry(volume.name.clone())
            .or_insert(volume)
            .clone();
        self.event("create", &volume.name, &[("driver", "local")]);
        Ok(volume)
    }

    /// A volume that could be made, as it would be.
    pub(super) fn plan(
        &self,
        name: &str,
        driver: &str,
        options: &Labels,
        labels: Labels,
    ) -> ApiResult<Volume> {
        check(name, driver, options)?;
        Ok(Volume {
            created_at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            driver: "local".to_owned(),
            labels: (!labels.is_empty()).then_some(labels),
            mountpoint: self.folder.join(name).join("_data"),
            name: name.to_owned(),
            options: (!options.is_empty()).then(|| options.clone()),
            scope: "local".to_owned(),
        })
    }

    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Gives the folder `begun` the volume's name; a name that is taken meanwhile is refused.
    pub(super) fn publish(&self, begun: &Path, volume: Volume) -> ApiResult<()> {
        let mut state = self.state();
        if state.volumes.contains_key(&volume.name) {
            return Err(super::clone::taken(&volume.name));
        }
        fs::rename(begun, self.folder.join(&volume.name)).map_err(|error| match error.kind() {
            // It is being made in this moment.
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
                super::clone::taken(&volume.name)
            }
            _ => error.into(),
        })?;
        fs::File::open(&self.folder)?.sync_all()?;
        state.volumes.insert(volume.name.clone(), volume);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn for_tests(folder: &Path, events: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            events: Events::open(events.to_owned()),
            state: Arc::default(),
            holders: Arc::default(),
        }
    }

    /// Marks the volume as used by a container until [`Self::unreference`].
    pub fn reference(&self, name: &str, container_id: &str) {
        self.state()
            .users
            .entry(name.to_owned())
            .or_default()
            .insert(container_id.to_owned());
    }

    /// The container has the volume no longer; says whether no other one has it.
    pub fn unreference(&self, name: &str, container_id: &str) -> bool {
        let mut state = self.state();
        let Some(users) = state.users.get_mut(name) else {
            return true;
        };
        users.remove(container_id);
        let unused = users.is_empty();
        if unused {
            state.users.remove(name);
        }
        unused
    }

    pub fn users(&self, name: &str) -> Vec<String> {
        self.state()
            .users
            .get(name)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// Fills an empty volume with what the image has at `source` under `rootfs`; nothing when it has content already.
    pub async fn copy_up(&self, name: &str, rootfs: &Path, source: &str) -> ApiResult<()> {
        let target = self.get(name)?.mountpoint;
        let (rootfs, inside) = (rootfs.to_path_buf(), source.to_owned());
        tokio::task::spawn_blocking(move || copy_up::fill(&rootfs, &inside, &target))
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?
            .map_err(|error| {
                ApiError::from(error)
                    .context(format!("copying {source} of the image to volume {name}"))
            })
    }

    /// Deletes a volume that no container has.
    pub async fn remove(&self, name: &str, force: bool) -> ApiResult<()> {
        {
            let mut state = self.state();
            if !state.volumes.contains_key(name) {
                return match force {
                    true => Ok(()),
                    false => Err(ApiError::not_found(format!("get {name}: no such volume"))),
                };
            }
            if let Some(users) = state.users.get(name).filter(|users| !users.is_empty()) {
                let list: Vec<&str> = users.iter().map(String::as_str).collect();
                return Err(ApiError::conflict(format!(
                    "remove {name}: volume is in use - [{}]",
                    list.join(", ")
                )));
            }
            state.volumes.remove(name);
        }
        // Out of sight in one step, then deleted; a crash in between leaves a folder that the next start clears.
        let (from, away) = (
            self.folder.join(name),
            self.folder.join(format!(".removed-{}", new_id())),
        );
        let done = tokio::task::spawn_blocking(move || {
            fs::rename(from, &away)?;
            fs::remove_dir_all(away)
        });
        done.await
            .map_err(|error| ApiError::internal(error.to_string()))?
            .map_err(|error| ApiError::from(error).context(format!("remove {name}")))?;
        self.event("destroy", name, &[("driver", "local")]);
        Ok(())
    }

    pub(super) fn event(&self, action: &str, name: &str, attributes: &[(&str, &str)]) {
        let attributes = attributes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        self.events.publish("volume", action, name, attributes);
    }

    pub(super) fn publish_prune(&self, reclaimed: u64) {
        self.event("prune", "", &[("reclaimed", &reclaimed.to_string())]);
    }
}

fn check(name: &str, driver: &str, options: &Labels) -> ApiResult<()> {
    if !matches!(driver, "" | "local") {
        return Err(ApiError::not_found(format!(
            "create {name}: error looking up volume plugin {driver}: plugin {driver:?} not found"
        )));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(allowed) {
        return Err(ApiError::bad_request(format!(
            "create {name}: {name:?} includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    if name.len() == 1 {
        return Err(ApiError::bad_request(format!(
            "create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )));
    }
    if name.len() > 255 {
        return Err(ApiError::bad_request(format!(
            "create {name}: volume name is too long"
        )));
    }
    super::mounting::check_options(name, options)
}

fn create_folder(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

pub(super) fn make(folder: &Path, volume: &Volume) -> io::Result<()> {
    create_folder(folder, 0o701)?;
    create_folder(&volume.mountpoint, 0o755)?;
    // The umask has its say in mkdir; a volume's root is for everyone to enter.
    fs::set_permissions(
        &volume.mountpoint,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    crate::network::write_durably(&folder.join("volume.json"), &serde_json::to_vec(volume)?)
}

/// What is on disk; folders of volumes that were half removed or half cloned are cleared, and so are half made ones: without a record, and
/// empty. What holds data is a volume, whoever made it.
fn load(folder: &Path) -> io::Result<BTreeMap<String, Volume>> {
    let mut volumes = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name.starts_with(".removed-") || name.starts_with(BEGUN) {
            let _ = fs::remove_dir_all(entry.path());
            continue;
        }
        let data = entry.path().join("_data");
        if !data.is_dir() {
            continue;
        }
        let kept = fs::read(entry.path().join("volume.json"));
        let parsed = kept
            .ok()
            .and_then(|text| serde_json::from_slice::<Volume>(&text).ok());
        if parsed.is_none() && fs::read_dir(&data)?.next().is_none() {
            let _ = fs::remove_dir_all(entry.path());
            continue;
        }
        let mut volume = parsed.unwrap_or_else(|| Volume {
            created_at: created_at(&entry),
            driver: "local".to_owned(),
            labels: None,
            mountpoint: PathBuf::new(),
            name: name.clone(),
            options: None,
            scope: "local".to_owned(),
        });
        volume.mountpoint = data;
        volumes.insert(name, volume);
    }
    Ok(volumes)
}

fn created_at(entry: &fs::DirEntry) -> String {
    let time = entry
        .metadata()
        .and_then(|meta| meta.modified())
        .unwrap_or(std::time::UNIX_EPOCH);
    chrono::DateTime::<chrono::Utc>::from(time).to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_drivers_and_options_are_checked() {
        let none = Labels::new();
        for (name, driver, message) in [
            (
                "v9",
                "foo",
                "create v9: error looking up volume plugin foo: plugin \"foo\" not found",
            ),
            (
                "b@d/",
                "",
                "create b@d/: \"b@d/\" includes invalid characters for a local volume name, only \
                 \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path",
            ),
        ] {
            assert_eq!(check(name, driver, &none).unwrap_err().message, message);
        }
        assert!(check("data_1.x-y", "local", &none).is_ok());
        for bad in ["..", ".hidden", "a/b", "a", ""] {
            assert!(check(bad, "", &none).is_err(), "{bad}");
        }
    }

    #[test]
    fn half_removed_and_half_made_volumes_are_cleared_and_unknown_ones_kept() {
        let folder = std::env::temp_dir().join(format!("volumes-{}", new_id()));
        fs::create_dir_all(folder.join("old/_data/something")).unwrap();
        fs::create_dir_all(folder.join("begun/_data")).unwrap();
        fs::create_dir_all(folder.join(".removed-x/_data")).unwrap();
        fs::create_dir_all(folder.join(".cloning-x/_data/something")).unwrap();
        fs::create_dir_all(folder.join("half")).unwrap();
        let volumes = load(&folder).unwrap();
        assert_eq!(volumes.keys().collect::<Vec<_>>(), ["old"]);
        assert!(volumes["old"].mountpoint.ends_with("old/_data"));
        assert!(!folder.join(".removed-x").exists());
        assert!(!folder.join(".cloning-x").exists());
        assert!(!folder.join("begun").exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
