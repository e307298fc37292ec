//! The content store: blobs by digest, whole and verified or not there at all.
//!
//! A blob is written to an ingest folder, hashed on the way, and renamed into place when its digest
//! is right. Files are shared by all namespaces; which namespace sees a blob is in the metadata store.

mod ingest;
pub mod service;
mod writing;

pub use ingest::{Finished, Ingest, IngestStatus};

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, RwLock};

use crate::digest::Digest;
use crate::error::{Error, IoStep, Result};

/// Folders of ingests that end with their writer begin so.
const SCRATCH: &str = "scratch-";

pub struct ContentStore {
    blobs: PathBuf,
    ingests: PathBuf,
    /// Folders of ingests that have a writer.
    active: Mutex<HashSet<PathBuf>>,
    /// Held shared while a blob becomes visible, exclusively while blobs are swept.
    pub gate: RwLock<()>,
}

impl ContentStore {
    pub fn open(root: &Path) -> Result<Self> {
        let root = root.join("io.containerd.content.v1.content");
        let (blobs, ingests) = (root.join("blobs/sha256"), root.join("ingest"));
        for dir in [&blobs, &ingests] {
            std::fs::create_dir_all(dir).step(|| format!("creating {}", dir.display()))?;
        }
        // What the last life of the supervisor was writing when it ended.
        for entry in std::fs::read_dir(&ingests).step(|| "listing ingests".into())? {
            let entry = entry.step(|| "listing ingests".into())?;
            if entry.file_name().to_string_lossy().starts_with(SCRATCH) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        Ok(Self {
            blobs,
            ingests,
            active: Mutex::default(),
            gate: RwLock::default(),
        })
    }

    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        match File::open(self.path(digest)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::NotFound(format!("content {digest}")))
            }
            other => other.step(|| format!("opening content {digest}")),
        }
    }

    /// A small blob as a whole; `limit` guards against a manifest that is none.
    pub fn read_small(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        use std::io::Read;
        let file = self.open_blob(digest)?;
        let mut bytes = Vec::new();
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .step(|| format!("reading content {digest}"))?;
        if bytes.len() as u64 > limit {
            return Err(Error::InvalidArgument(format!(
                "content {digest} is larger than {limit} bytes"
            )));
        }
        Ok(bytes)
    }

    /// Every blob file with its size.
    pub fn files(&self) -> Result<Vec<(Digest, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.blobs).step(|| "listing blobs".into())? {
            let entry = entry.step(|| "listing blobs".into())?;
            let name = format!("sha256:{}", entry.file_name().to_string_lossy());
            let size = entry.metadata().step(|| "listing blobs".into())?.len();
            if let Ok(digest) = name.parse() {
                files.push((digest, size));
            }
        }
        Ok(files)
    }

    pub fn remove_file(&self, digest: &Digest) {
        if let Err(error) = std::fs::remove_file(self.path(digest)) {
            tracing::warn!(%digest, %error, "removing a blob");
        }
    }

    fn ingest_dir(&self, namespace: &str, reference: &str) -> PathBuf {
        self.ingests
            .join(Digest::of(format!("{namespace}\0{reference}").as_bytes()).hex())
    }

    /// Starts or resumes writing what `reference` names. One writer at a time.
    pub fn ingest(&self, namespace: &str, reference: &str, total: i64) -> Result<Ingest<'_>> {
        let dir = self.ingest_dir(namespace, reference);
        if !self
            .active
            .lock()
            .expect("no panic under this lock")
            .insert(dir.clone())
        {
            return Err(Error::Unavailable(format!("ref {reference} locked")));
        }
        Ingest::open(self, dir, namespace, reference, total, true)
    }

    /// Starts writing what nobody can resume: unless it is finished and published, nothing of it stays.
    pub fn scratch(&self, namespace: &str, total: i64) -> Result<Ingest<'_>> {
        let reference = format!("{SCRATCH}{:032x}", rand::random::<u128>());
        let dir = self.ingests.join(&reference);
        Ingest::open(self, dir, namespace, &reference, total, false)
    }

    fn release(&self, dir: &Path) {
        self.active
            .lock()
            .expect("no panic under this lock")
            .remove(dir);
    }

    pub fn ingest_status(&self, namespace: &str, reference: &str) -> Result<IngestStatus> {
        IngestStatus::read(&self.ingest_dir(namespace, reference), namespace)?
            .ok_or_else(|| Error::NotFound(format!("ref {reference}")))
    }

    pub fn ingest_statuses(&self, namespace: &str) -> Result<Vec<IngestStatus>> {
        let mut statuses = Vec::new();
        for entry in std::fs::read_dir(&self.ingests).step(|| "listing ingests".into())? {
            let dir = entry.step(|| "listing ingests".into())?.path();
            statuses.extend(IngestStatus::read(&dir, namespace)?);
        }
        Ok(statuses)
    }

    pub fn abort(&self, namespace: &str, reference: &str) -> Result<()> {
        let dir = self.ingest_dir(namespace, reference);
        if !dir.exists() {
            return Err(Error::NotFound(format!("ref {reference}")));
        }
        std::fs::remove_dir_all(&dir).step(|| format!("aborting ref {reference}"))
    }

    /// Makes a finished ingest a blob. The caller records it in the same metadata change, after [`Self::sync_names`].
    pub fn publish(&self, finished: &Finished) -> Result<()> {
        let target = self.path(&finished.digest);
        if !target.exists() {
            std::fs::rename(finished.data(), &target)
                .step(|| format!("publishing content {}", finished.digest))?;
        }
        Ok(())
    }

    /// Flushes what [`Self::publish`] has renamed. A record that lasts of a file that does not is an image that was
    /// acknowledged and is lost: the metadata's own flush writes no other file's name.
    pub fn sync_names(&self) -> Result<()> {
        File::open(&self.blobs)
            .and_then(|folder| folder.sync_all())
            .step(|| "flushing the names of blobs".into())
    }

    /// Flushes everything written to the store's file system, in one go.
    pub fn sync_file_system(&self) -> Result<()> {
        let dir = File::open(&self.blobs).step(|| "opening the content store".into())?;
        nix::unistd::syncfs(&dir).step(|| "flushing the content store".into())
    }
}
