//! All execs, in memory and in the run-time folder of their container, where the next daemon finds them.

use super::ExecConfig;
use crate::container::{Container, Containers, write_json};
use crate::error::{ApiError, ApiResult};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

/// One exec, from its creation until its container is removed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exec {
    pub id: String,
    pub container_id: String,
    pub config: ExecConfig,
    pub started: bool,
    pub running: bool,
    pub pid: u32,
    pub exit_code: Option<i32>,
}

impl Exec {
    pub fn new(container: &Container, config: ExecConfig) -> Self {
        Exec {
            id: crate::identity::new_id(),
            container_id: container.id.clone(),
            config,
            started: false,
            running: false,
            pid: 0,
            exit_code: None,
        }
    }
}

/// Ended execs that are remembered for `inspect`, beyond which the oldest are forgotten.
const REMEMBERED: usize = 256;

pub struct Execs {
    containers: Containers,
    map: Mutex<HashMap<String, (u64, Exec)>>,
}

impl Execs {
    pub fn new(containers: Containers) -> Self {
        Execs {
            containers,
            map: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (u64, Exec)>> {
        self.map.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    pub fn get(&self, id: &str) -> ApiResult<Exec> {
        let found = self.lock().get(id).map(|(_, exec)| exec.clone());
        found.ok_or_else(|| ApiError::not_found(format!("No such exec instance: {id}")))
    }

    pub fn insert(&self, exec: Exec) {
        let mut map = self.lock();
        let number = map
            .values()
            .map(|(number, _)| number + 1)
            .max()
            .unwrap_or(0);
        let ended = |(_, exec): &(u64, Exec)| exec.exit_code.is_some();
        if map.len() >= REMEMBERED {
            let oldest = map
                .iter()
                .filter(|(_, exec)| ended(exec))
                .min_by_key(|(_, (number, _))| *number);
            if let Some(id) = oldest.map(|(id, _)| id.clone())
                && let Some((_, old)) = map.remove(&id)
            {
                let _ = std::fs::remove_file(self.file(&old));
            }
        }
        map.insert(exec.id.clone(), (number, exec));
    }

    /// What the next daemon has to know is saved: that it was started, and how it ended.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Exec)) {
        if let Some((_, exec)) = self.lock().get_mut(id) {
            let before = (exec.started, exec.exit_code);
            change(exec);
            if before != (exec.started, exec.exit_code) {
                self.save(exec);
            }
        }
    }

    /// Those that have not ended, as `ExecIDs` shows.
    pub fn of_container(&self, container_id: &str) -> Vec<String> {
        let map = self.lock();
        let live = map
            .values()
            .filter(|(_, exec)| exec.container_id == container_id && exec.exit_code.is_none());
        live.map(|(_, exec)| exec.id.clone()).collect()
    }

    pub fn forget(&self, id: &str) {
        if let Some((_, exec)) = self.lock().remove(id) {
            let _ = std::fs::remove_file(self.file(&exec));
        }
    }

    /// When a container is removed; its run-time folder goes with it.
    pub fn forget_container(&self, container_id: &str) {
        self.lock()
            .retain(|_, (_, exec)| exec.container_id != container_id);
    }

    fn folder(&self, container_id: &str) -> PathBuf {
        self.containers.runtime_folder(container_id).join("execs")
    }

    fn file(&self, exec: &Exec) -> PathBuf {
        self.folder(&exec.container_id)
            .join(format!("{}.json", exec.id))
    }

    /// Processes do not outlive the guest, so neither does this: it need not reach a disk.
    fn save(&self, exec: &Exec) {
        if let Err(error) = write_json(&self.file(exec), exec, false) {
            tracing::warn!(%error, exec = exec.id, "a restart of the daemon would forget a command");
        }
    }

    /// What an earlier daemon left of a container's.
    pub fn saved(&self, container_id: &str) -> Vec<Exec> {
        let Ok(files) = std::fs::read_dir(self.folder(container_id)) else {
            return Vec::new();
        };
        files
            .filter_map(|file| serde_json::from_slice(&std::fs::read(file.ok()?.path()).ok()?).ok())
            .collect()
    }
}
