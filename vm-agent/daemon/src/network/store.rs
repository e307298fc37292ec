//! Networks on disk, and the sandboxes of running containers on tmpfs.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::model::{Network, Sandbox};

/// Where state is kept.
#[derive(Clone, Debug)]
pub struct Store {
    /// Definitions, which last.
    networks: PathBuf,
    /// One file for each running container; endpoints end with the boot, and so does this folder.
    sandboxes: PathBuf,
}

impl Store {
    pub fn open(data: &Path, exec: &Path) -> io::Result<Self> {
        let (data, sandboxes) = (data.join("network"), exec.join("sandboxes"));
        fs::create_dir_all(&data)?;
        fs::create_dir_all(&sandboxes)?;
        Ok(Self {
            networks: data.join("networks.json"),
            sandboxes,
        })
    }

    pub fn load_networks(&self) -> io::Result<BTreeMap<String, Network>> {
        let text = match fs::read(&self.networks) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(error),
        };
        let list: Vec<Network> = serde_json::from_slice(&text)?;
        Ok(list
            .into_iter()
            .map(|network| (network.id.clone(), network))
            .collect())
    }

    /// On disk for good when this returns.
    pub fn save_networks(&self, networks: &BTreeMap<String, Network>) -> io::Result<()> {
        let list: Vec<_> = networks.values().collect();
        write_durably(&self.networks, &serde_json::to_vec_pretty(&list)?)
    }

    /// The sandboxes whose namespaces still exist.
    pub fn load_sandboxes(&self) -> io::Result<HashMap<String, Sandbox>> {
        let mut found = HashMap::new();
        for entry in fs::read_dir(&self.sandboxes)? {
            let path = entry?.path();
            let parsed = fs::read(&path)
                .ok()
                .and_then(|text| serde_json::from_slice::<Sandbox>(&text).ok());
            match parsed {
                Some(sandbox) => drop(found.insert(sandbox.container_id.clone(), sandbox)),
                None => drop(fs::remove_file(&path)),
            }
        }
        Ok(found)
    }

    pub fn save_sandbox(&self, sandbox: &Sandbox) -> io::Result<()> {
        let path = self.sandboxes.join(&sandbox.container_id);
        let fresh = self.sandboxes.join(format!(".{}", sandbox.container_id));
        fs::write(&fresh, serde_json::to_vec(sandbox)?)?;
        fs::rename(fresh, path)
    }

    pub fn forget_sandbox(&self, container_id: &str) {
        let _ = fs::remove_file(self.sandboxes.join(container_id));
    }
}

/// Replaces a file whole: written beside it, flushed, renamed, and the rename flushed.
pub fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let mut file = File::create(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(folder)?.sync_all()
}
