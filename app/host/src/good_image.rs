//! The guest image that the engine came up with last: what a start falls back to when the installed one does not come up.
//!
//! ```text
//! HOME/good-image/ID/           kernel, initramfs, root.erofs, manifest.json; ID is the beginning of the image's digest
//! HOME/good-image/good.json     which of these folders is whole
//! HOME/good-image/refused.json  the installed image that did not come up, and why
//! ```
//! A copy, not hard links: an installer that writes into the old files (as those of Windows do) would change both. Where the file
//! system can share blocks (APFS, btrfs, XFS) the copy takes no room until then.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use longshore_host_api::Home;
use longshore_vm::image::{self, ImageError};
use serde::{Deserialize, Serialize};

use crate::{machine, settings_file};

/// Files of an image.
const FILES: [&str; 4] = ["kernel", "initramfs", "root.erofs", "manifest.json"];
/// Hex digits of a digest that name its folder.
const NAME: usize = 16;
/// What a copy leaves of the disk to everybody else.
const ROOM: u64 = 1 << 30;

/// A guest image and what tells it from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub folder: PathBuf,
    /// SHA-256 over the checksums of its files, in hex.
    pub digest: String,
}

impl Image {
    pub fn at(folder: PathBuf) -> Result<Self, ImageError> {
        let digest = image::digest(&folder)?;
        Ok(Self { folder, digest })
    }
}

/// An installed image in whose place the kept one runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The image's digest; empty when it is too damaged to have one.
    pub digest: String,
    /// Why it did not come up.
    pub why: String,
    /// Nothing was booted: it is tried again at each start, as it may be whole then.
    pub damaged: bool,
}

#[derive(Serialize, Deserialize)]
struct Good {
    folder: String,
    digest: String,
}

#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    #[error("the image that was copied is not whole: {0}")]
    Damaged(#[from] ImageError),
    #[error("the image has changed since the engine came up with it")]
    Changed,
    #[error("{0} has too little room for {1} MiB")]
    NoRoom(PathBuf, u64),
}

fn good_file(home: &Home) -> PathBuf {
    home.good_image_folder().join("good.json")
}

fn refused_file(home: &Home) -> PathBuf {
    home.good_image_folder().join("refused.json")
}

/// The kept image; `None` where none was kept yet. Whether its files are still whole is looked at before it is booted.
pub fn recall(home: &Home) -> Option<Image> {
    let good: Good = serde_json::from_slice(&fs::read(good_file(home)).ok()?).ok()?;
    let folder = home.good_image_folder().join(good.folder);
    folder.is_dir().then_some(Image {
        folder,
        digest: good.digest,
    })
}

/// Keeps a copy of the image in place of the one before; `None` if it is kept already, else how many bytes were copied.
///
/// The one before goes only when the new one is whole and on the disk. Takes a second or so: nothing waits for it.
pub fn keep(home: &Home, good: &Image) -> Result<Option<u64>, KeepError> {
    if recall(home).is_some_and(|kept| kept.digest == good.digest) {
        return Ok(None);
    }
    let parent = home.good_image_folder();
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| KeepError::File(path, error)
    };
    fs::create_dir_all(&parent).map_err(at(&parent))?;
    let name: String = good.digest.chars().take(NAME).collect();
    // What an interrupted copy left is in the way, and takes room.
    let before = recall(home);
    remove_others(&parent, before.as_ref().map(|kept| kept.folder.as_path()));
    let size = FILES.iter().try_fold(0, |sum, file| {
        let path = good.folder.join(file);
        fs::metadata(&path)
            .map(|m| sum + m.len())
            .map_err(at(&path))
    })?;
    if machine::free_disk(&parent).is_some_and(|free| free < size + ROOM) {
        return Err(KeepError::NoRoom(parent, size >> 20));
    }
    let folder = parent.join(&name);
    let copied = copy(good, &folder);
    if let Err(error) = copied {
        let _ = fs::remove_dir_all(&folder);
        return Err(error);
    }
    let record = Good {
        folder: name,
        digest: good.digest.clone(),
    };
    let record = serde_json::to_vec(&record).unwrap_or_default();
    settings_file::replace(&good_file(home), &record).map_err(at(&good_file(home)))?;
    remove_others(&parent, Some(&folder));
    Ok(Some(size))
}

/// On the disk, and whole.
fn copy(good: &Image, folder: &Path) -> Result<(), KeepError> {
    let failed = |path: PathBuf| move |error| KeepError::File(path, error);
    fs::create_dir(folder).map_err(failed(folder.to_owned()))?;
    for name in FILES {
        let (from, to) = (good.folder.join(name), folder.join(name));
        fs::copy(&from, &to).map_err(failed(from))?;
        let synced = File::options().write(true).open(&to);
        let synced = synced.and_then(|file| file.sync_all());
        synced.map_err(failed(to))?;
    }
    #[cfg(unix)]
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed(folder.to_owned()))?;
    // An update may have been under way.
    if image::digest(folder)? != good.digest {
        return Err(KeepError::Changed);
    }
    Ok(image::verify(folder)?)
}

/// Copies but for the one that is good.
fn remove_others(parent: &Path, good: Option<&Path>) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let folders = entries.map(|entry| entry.path()).filter(|p| p.is_dir());
    for folder in folders.filter(|folder| Some(folder.as_path()) != good) {
        if let Err(error) = fs::remove_dir_all(&folder) {
            tracing::warn!(%error, folder = %folder.display(), "an old guest image stays");
        }
    }
}

pub fn refused(home: &Home) -> Option<Refused> {
    serde_json::from_slice(&fs::read(refused_file(home)).ok()?).ok()
}

/// Remembers that the installed image did not come up, and the kept one did.
pub fn refuse(home: &Home, refused: &Refused) {
    let record = serde_json::to_vec(refused).unwrap_or_default();
    if let Err(error) = settings_file::replace(&refused_file(home), &record) {
        tracing::warn!(%error, "the installed guest image will be tried again at each start");
    }
}

/// The installed image is to be tried, or has come up.
pub fn forgive(home: &Home) {
    if let Err(error) = fs::remove_file(refused_file(home))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "the installed guest image counts as one that does not come up");
    }
}

/// The images to start with, in the order in which they are tried.
///
/// The installed one comes first, unless it is known not to come up; the kept one follows where it is another.
pub fn candidates(home: &Home, installed: Option<Image>) -> Vec<Image> {
    let kept = recall(home);
    let known = |image: &Image| {
        refused(home).is_some_and(|refused| !refused.damaged && refused.digest == image.digest)
    };
    match (installed, kept) {
        (Some(installed), Some(kept)) if kept.digest == installed.digest => {
            // The copy helps where the files themselves have been damaged since.
            vec![installed, kept]
        }
        (Some(installed), Some(kept)) if known(&installed) => vec![kept, installed],
        (installed, kept) => installed.into_iter().chain(kept).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    fn install(folder: &Path, kernel: &str) -> Image {
        fs::create_dir_all(folder).unwrap();
        let mut files = Vec::new();
        for (name, content) in [("kernel", kernel), ("initramfs", "i"), ("root.erofs", "r")] {
            fs::write(folder.join(name), content).unwrap();
            let digest = Sha256::digest(content);
            let sha256: String = digest.iter().map(|b| format!("{b:02x}")).collect();
            files.push(serde_json::json!({"name": name, "size": content.len(), "sha256": sha256}));
        }
        let manifest = serde_json::json!({"architecture": std::env::consts::ARCH, "files": files});
        fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
        Image::at(folder.to_owned()).unwrap()
    }

    struct Setting {
        _dir: tempfile::TempDir,
        home: Home,
        folder: PathBuf,
    }

    fn setting() -> Setting {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home")).unwrap();
        home.create().unwrap();
        let folder = dir.path().join("installed");
        Setting {
            _dir: dir,
            home,
            folder,
        }
    }

    fn copies(home: &Home) -> usize {
        let entries = fs::read_dir(home.good_image_folder()).unwrap().flatten();
        entries.filter(|entry| entry.path().is_dir()).count()
    }

    #[test]
    fn the_kept_copy_is_the_last_good_one_whatever_becomes_of_the_files() {
        let Setting { _dir, home, folder } = setting();
        assert_eq!(recall(&home), None);
        let first = install(&folder, "first");
        assert!(keep(&home, &first).unwrap().is_some());
        assert_eq!(keep(&home, &first).unwrap(), None);
        // An installer that writes into the files that are there.
        let second = install(&folder, "second");
        let kept = recall(&home).unwrap();
        assert_eq!(kept.digest, first.digest);
        assert_eq!(fs::read(kept.folder.join("kernel")).unwrap(), b"first");
        image::verify(&kept.folder).unwrap();
        keep(&home, &second).unwrap();
        assert_eq!(recall(&home).unwrap().digest, second.digest);
        assert_eq!(copies(&home), 1);
    }

    #[test]
    fn what_is_not_whole_replaces_nothing() {
        let Setting { _dir, home, folder } = setting();
        let first = install(&folder, "first");
        keep(&home, &first).unwrap();
        let second = install(&folder, "second");
        fs::write(folder.join("kernel"), "sec0nd").unwrap();
        assert!(matches!(
            keep(&home, &second),
            Err(KeepError::Damaged(ImageError::Checksum { .. }))
        ));
        let second = install(&folder, "second");
        install(&folder, "third!");
        assert!(matches!(keep(&home, &second), Err(KeepError::Changed)));
        assert_eq!(recall(&home).unwrap().digest, first.digest);
        assert_eq!(copies(&home), 1);
    }

    #[test]
    fn an_interrupted_copy_is_no_image_and_goes_with_the_next() {
        let Setting { _dir, home, folder } = setting();
        let half = home.good_image_folder().join("0123456789abcdef");
        fs::create_dir_all(&half).unwrap();
        fs::write(half.join("kernel"), "ha").unwrap();
        assert_eq!(recall(&home), None);
        keep(&home, &install(&folder, "first")).unwrap();
        assert_eq!(copies(&home), 1);
        assert!(!half.exists());
    }

    #[test]
    fn which_image_comes_first() {
        let Setting { _dir, home, folder } = setting();
        let order = |installed: Option<&Image>| -> Vec<String> {
            let candidates = candidates(&home, installed.cloned());
            candidates.into_iter().map(|image| image.digest).collect()
        };
        let good = install(&folder, "good");
        assert_eq!(order(Some(&good)), [good.digest.as_str()]);
        keep(&home, &good).unwrap();
        assert_eq!(order(None), [good.digest.as_str()]);
        let next = install(&folder, "next");
        let (good, new) = (good.digest.as_str(), next.digest.as_str());
        assert_eq!(order(Some(&next)), [new, good]);
        let mut refused = Refused {
            digest: new.to_owned(),
            why: "it panics".to_owned(),
            damaged: false,
        };
        refuse(&home, &refused);
        assert_eq!(order(Some(&next)), [good, new]);
        // Until the installed one changes again.
        let after = install(&folder, "after");
        assert_eq!(order(Some(&after)), [after.digest.as_str(), good]);
        refused.damaged = true;
        refuse(&home, &refused);
        assert_eq!(order(Some(&next)), [new, good]);
        forgive(&home);
        assert_eq!(super::refused(&home), None);
    }
}
