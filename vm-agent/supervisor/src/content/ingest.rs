//! One blob being written: resumable, hashed as it goes.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::ContentStore;
use crate::digest::{Digest, Digester};
use crate::error::{Error, IoStep, Result};

/// A writer. Dropping it keeps what was written, for a later resume, where that was wanted.
pub struct Ingest<'a> {
    store: &'a ContentStore,
    dir: PathBuf,
    file: File,
    digester: Digester,
    offset: i64,
    total: i64,
    started_at: SystemTime,
    stays: bool,
}

/// A complete and verified ingest, not yet visible. Dropping it takes away what is left of it: once published, its folder only.
#[derive(Debug)]
pub struct Finished {
    dir: PathBuf,
    pub digest: Digest,
    pub size: i64,
}

pub struct IngestStatus {
    pub reference: String,
    pub offset: i64,
    pub total: i64,
    pub started_at: SystemTime,
    pub updated_at: SystemTime,
}

impl<'a> Ingest<'a> {
    pub(super) fn open(
        store: &'a ContentStore,
        dir: PathBuf,
        namespace: &str,
        reference: &str,
        total: i64,
        stays: bool,
    ) -> Result<Self> {
        let opened = Self::open_files(&dir, namespace, reference, total);
        match opened {
            Ok((file, digester, offset, total)) => Ok(Self {
                store,
                dir,
                file,
                digester,
                offset,
                total,
                started_at: SystemTime::now(),
                stays,
            }),
            Err(error) => {
                store.release(&dir);
                Err(error)
            }
        }
    }

    fn open_files(
        dir: &Path,
        namespace: &str,
        reference: &str,
        total: i64,
    ) -> Result<(File, Digester, i64, i64)> {
        let step = || format!("opening ingest {reference}");
        std::fs::create_dir_all(dir).step(step)?;
        let description = dir.join("ref");
        let total = match IngestStatus::read(dir, namespace)? {
            Some(status) if total == 0 => status.total,
            _ => total,
        };
        std::fs::write(&description, format!("{namespace}\n{total}\n{reference}")).step(step)?;
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(dir.join("data"))
            .step(step)?;
        let (mut digester, mut offset) = (Digester::default(), 0);
        let mut buffer = vec![0; 128 * 1024];
        loop {
            let n = file.read(&mut buffer).step(step)?;
            if n == 0 {
                return Ok((file, digester, offset, total));
            }
            digester.update(&buffer[..n]);
            offset += n as i64;
        }
    }

    pub fn offset(&self) -> i64 {
        self.offset
    }

    pub fn total(&self) -> i64 {
        self.total
    }

    pub fn started_at(&self) -> SystemTime {
        self.started_at
    }

    pub fn digest(&self) -> Digest {
        self.digester.current()
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .step(|| "writing content".into())?;
        self.digester.update(bytes);
        self.offset += bytes.len() as i64;
        Ok(())
    }

    /// Starts again from nothing.
    pub fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).step(|| "truncating content".into())?;
        self.file
            .seek(SeekFrom::Start(0))
            .step(|| "truncating content".into())?;
        (self.digester, self.offset) = (Digester::default(), 0);
        Ok(())
    }

    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().step(|| "flushing content".into())
    }

    /// Checks size (0: any) and digest. What is wrong is thrown away, so that a retry starts afresh.
    pub fn finish(mut self, size: i64, expected: Option<&Digest>) -> Result<Finished> {
        let digest = std::mem::take(&mut self.digester).finish();
        if size > 0 && size != self.offset {
            let error = format!("unexpected commit size {}, expected {size}", self.offset);
            return Err(Error::FailedPrecondition(error));
        }
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            let _ = std::fs::remove_dir_all(&self.dir);
            return Err(Error::FailedPrecondition(format!(
                "unexpected commit digest {digest}, expected {expected}"
            )));
        }
        self.stays = true;
        Ok(Finished {
            dir: self.dir.clone(),
            digest,
            size: self.offset,
        })
    }
}

impl Drop for Ingest<'_> {
    fn drop(&mut self) {
        if !self.stays {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
        self.store.release(&self.dir);
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Finished {
    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn open(&self) -> Result<File> {
        File::open(self.data()).step(|| format!("opening content {}", self.digest))
    }
}

impl IngestStatus {
    /// `None` when the folder holds no ingest of this namespace.
    pub(super) fn read(dir: &Path, namespace: &str) -> Result<Option<Self>> {
        let Ok(text) = std::fs::read_to_string(dir.join("ref")) else {
            return Ok(None);
        };
        let mut lines = text.splitn(3, '\n');
        let (owner, total, reference) = (lines.next(), lines.next(), lines.next());
        let Ok(data) = std::fs::metadata(dir.join("data")) else {
            return Ok(None);
        };
        if owner != Some(namespace) {
            return Ok(None);
        }
        let time = |time: std::io::Result<SystemTime>| time.unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(Some(Self {
            reference: reference.unwrap_or_default().to_owned(),
            offset: data.len() as i64,
            total: total.and_then(|total| total.parse().ok()).unwrap_or(0),
            started_at: time(data.created()),
            updated_at: time(data.modified()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resumes_verifies_and_becomes_visible_whole() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        let mut first = store.ingest("moby", "layer", 0).unwrap();
        first.write(b"hello ").unwrap();
        assert!(matches!(
            store.ingest("moby", "layer", 0),
            Err(Error::Unavailable(_))
        ));
        drop(first);

        let mut resumed = store.ingest("moby", "layer", 11).unwrap();
        assert_eq!(resumed.offset(), 6);
        resumed.write(b"world").unwrap();
        let digest = Digest::of(b"hello world");
        assert!(store.open_blob(&digest).unwrap_err().is_not_found());
        let finished = resumed.finish(11, Some(&digest)).unwrap();
        store.publish(&finished).unwrap();
        drop(finished);
        assert_eq!(left(root.path()), 0);
        assert_eq!(store.read_small(&digest, 100).unwrap(), b"hello world");
        assert!(store.read_small(&digest, 10).is_err());
    }

    /// Folders of ingests.
    fn left(root: &Path) -> usize {
        let folder = root.join("io.containerd.content.v1.content/ingest");
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn nothing_stays_of_what_cannot_be_resumed() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        store.scratch("moby", 0).unwrap().write(b"broken").unwrap();
        assert_eq!(left(root.path()), 0);
        let mut unwanted = store.scratch("moby", 0).unwrap();
        unwanted.write(b"whole").unwrap();
        drop(unwanted.finish(5, None).unwrap());
        assert_eq!(left(root.path()), 0);
        // A supervisor that is killed drops nothing.
        std::mem::forget(store.scratch("moby", 0).unwrap());
        let mut resumable = store.ingest("moby", "layer", 0).unwrap();
        resumable.write(b"kept").unwrap();
        drop(resumable);
        assert_eq!(left(root.path()), 2);
        ContentStore::open(root.path()).unwrap();
        assert_eq!(left(root.path()), 1);
    }

    #[test]
    fn refuses_what_does_not_match() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        let mut ingest = store.ingest("moby", "x", 0).unwrap();
        ingest.write(b"tampered").unwrap();
        let error = ingest.finish(0, Some(&Digest::of(b"genuine"))).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("unexpected commit digest sha256:")
        );
        assert_eq!(store.ingest("moby", "x", 0).unwrap().offset(), 0);
    }
}
