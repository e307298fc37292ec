//! The overlay snapshotter: a folder per snapshot (`fs`, `work`), stacked by overlayfs when mounted.

pub mod changes;
pub mod service;

pub use changes::{Prepared, prepare, view};

use std::collections::HashSet;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use longshore_supervisor_api::services::v1::snapshots::{Info, Kind};
use longshore_supervisor_api::types::Mount;

use crate::error::{Error, IoStep, Result};
use crate::store::{self, Records, key};

pub const SNAPSHOTTER: &str = "overlayfs";

/// A snapshot's record.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Snapshot {
    #[prost(message, optional, tag = "1")]
    pub info: Option<Info>,
    /// Names the folder.
    #[prost(uint64, tag = "2")]
    pub id: u64,
    /// Disk usage of a committed snapshot, once somebody has asked.
    #[prost(message, optional, tag = "3")]
    pub usage: Option<Usage>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Usage {
    #[prost(int64, tag = "1")]
    pub size: i64,
    #[prost(int64, tag = "2")]
    pub inodes: i64,
}

impl Snapshot {
    pub fn info(&self) -> &Info {
        static EMPTY: std::sync::LazyLock<Info> = std::sync::LazyLock::new(Info::default);
        self.info.as_ref().unwrap_or(&EMPTY)
    }
}

/// The snapshotter's folders.
pub struct Overlay {
    root: PathBuf,
}

impl Overlay {
    pub fn open(root: &Path) -> Result<Self> {
        let root = root.join("io.containerd.snapshotter.v1.overlayfs/snapshots");
        std::fs::create_dir_all(&root).step(|| format!("creating {}", root.display()))?;
        Ok(Self { root })
    }

    pub fn dir(&self, id: u64) -> PathBuf {
        self.root.join(id.to_string())
    }

    pub fn fs(&self, id: u64) -> PathBuf {
        self.dir(id).join("fs")
    }

    pub fn exists(&self, id: u64) -> bool {
        self.fs(id).is_dir()
    }

    /// A folder under a name that no record has yet; what is left of it after a crash is removed.
    pub fn new_folder(&self, writable: bool) -> Result<PathBuf> {
        let dir = self
            .root
            .join(format!("new-{:016x}", rand::random::<u64>()));
        let mut builder = std::fs::DirBuilder::new();
        let step = || format!("creating {}", dir.display());
        builder.mode(0o700).create(&dir).step(step)?;
        builder.mode(0o755).create(dir.join("fs")).step(step)?;
        if writable {
            builder.mode(0o711).create(dir.join("work")).step(step)?;
        }
        Ok(dir)
    }

    pub fn adopt(&self, folder: &Path, id: u64) -> Result<()> {
        let target = self.dir(id);
        std::fs::rename(folder, &target).step(|| format!("renaming to {}", target.display()))
    }

    /// Flushes what [`Self::adopt`] has renamed, so that no record outlives its folder.
    pub fn sync_names(&self) -> Result<()> {
        std::fs::File::open(&self.root)
            .and_then(|folder| folder.sync_all())
            .step(|| "flushing the names of snapshots".into())
    }

    /// The mounts of a snapshot; `parents` from the nearest to the base.
    pub fn mounts(&self, snapshot: &Snapshot, parents: &[u64]) -> Vec<Mount> {
        let active = snapshot.info().kind == Kind::Active as i32;
        let bind = |source: PathBuf, mode: &str| {
            vec![Mount {
                r#type: "bind".into(),
                source: source.display().to_string(),
                target: String::new(),
                options: vec![mode.into(), "rbind".into()],
            }]
        };
        match parents {
            [] => bind(self.fs(snapshot.id), if active { "rw" } else { "ro" }),
            [parent] if !active => bind(self.fs(*parent), "ro"),
            parents => {
                let mut options = vec!["index=off".to_owned()];
                if active {
                    let dir = self.dir(snapshot.id);
                    options.push(format!("workdir={}", dir.join("work").display()));
                    options.push(format!("upperdir={}", dir.join("fs").display()));
                }
                let lower: Vec<String> = parents
                    .iter()
                    .map(|id| self.fs(*id).display().to_string())
                    .collect();
                options.push(format!("lowerdir={}", lower.join(":")));
                vec![Mount {
                    r#type: "overlay".into(),
                    source: "overlay".into(),
                    target: String::new(),
                    options,
                }]
            }
        }
    }

    /// Takes a folder out of sight at once and removes it in the background.
    pub fn remove_later(&self, id: u64) {
        let (dir, dead) = (self.dir(id), self.root.join(format!("rm-{id}")));
        if let Err(error) = std::fs::rename(&dir, &dead) {
            tracing::warn!(%error, id, "removing a snapshot");
            return;
        }
        let remove = move || {
            if let Err(error) = std::fs::remove_dir_all(&dead) {
                tracing::warn!(%error, id, "removing a snapshot");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(handle) => drop(handle.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }

    pub fn remove_all_but(&self, ids: &HashSet<u64>) -> Result<()> {
        for entry in std::fs::read_dir(&self.root).step(|| "listing snapshots".into())? {
            let entry = entry.step(|| "listing snapshots".into())?;
            let id = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u64>().ok());
            if id.is_none_or(|id| !ids.contains(&id))
                && let Err(error) = std::fs::remove_dir_all(entry.path())
            {
                tracing::warn!(%error, path = %entry.path().display(), "removing a leftover");
            }
        }
        Ok(())
    }

    pub fn measure(&self, id: u64) -> Result<Usage> {
        let mut usage = Usage::default();
        let mut seen = HashSet::new();
        let mut pending = vec![self.fs(id)];
        while let Some(path) = pending.pop() {
            let step = || format!("measuring {}", path.display());
            let metadata = match std::fs::symlink_metadata(&path) {
                // A container may be writing meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.step(step)?,
            };
            if !seen.insert((metadata.dev(), metadata.ino())) {
                continue;
            }
            usage.inodes += 1;
            usage.size += metadata.blocks() as i64 * 512;
            if metadata.is_dir() {
                for entry in std::fs::read_dir(&path).step(step)? {
                    pending.push(entry.step(step)?.path());
                }
            }
        }
        Ok(usage)
    }
}

pub fn find(records: &impl Records, namespace: &str, name: &str) -> Result<Snapshot> {
    records
        .get(store::SNAPSHOTS, &key(&[namespace, name]))?
        .ok_or_else(|| Error::NotFound(format!("snapshot {name} does not exist")))
}

/// The folders under a snapshot, from the nearest to the base.
pub fn parents(records: &impl Records, namespace: &str, snapshot: &Snapshot) -> Result<Vec<u64>> {
    let mut ids = Vec::new();
    let mut parent = snapshot.info().parent.clone();
    while !parent.is_empty() {
        let next = find(records, namespace, &parent)?;
        ids.push(next.id);
        parent = next.info().parent.clone();
    }
    Ok(ids)
}
