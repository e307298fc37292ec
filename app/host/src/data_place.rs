//! Where the data disk is: in the instance's own folder, or where the user has moved it.
//!
//! ```text
//! data.moving.json    a move has begun: {"from": DISK, "to": DISK}
//! DISK.part           its copy, until it is whole and looked at
//! DISK                the same, whole
//! data.json           the folder that counts: {"folder": FOLDER}; this file's change is the move
//! ```
//! Whoever is killed in the middle leaves the disk at one place that counts; [`settle`] clears the other one.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use longshore_host_api::{ApiError, ErrorCode, Home, Size};
use serde::{Deserialize, Serialize};

use crate::{machine, settings_file};

const DISK: &str = "data.img";
/// What is left free where the disk goes.
const MARGIN: u64 = 256 << 20;
/// A block without a set bit is not written.
const BLOCK: usize = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Place {
    folder: PathBuf,
}

/// The disk that counts. Where it is said, but cannot be read, an error: another one must not be taken for it.
pub fn disk(home: &Home) -> io::Result<PathBuf> {
    Ok(match read::<Place>(&home.data_place_file())? {
        Some(place) => place.folder.join(DISK),
        None => home.data_disk(),
    })
}

/// The disk of a start. One that was moved is never made anew: what is missing is a drive.
pub fn disk_to_start(home: &Home) -> Result<PathBuf, ApiError> {
    let disk = known(home)?;
    if disk == home.data_disk() || disk.exists() {
        return Ok(disk);
    }
    let why = format!(
        "the data disk is not at {}, where it was moved to",
        disk.display()
    );
    Err(ApiError::new(ErrorCode::Unavailable, why)
        .at_stage("check")
        .with_hint("connect the drive that it is on, and start again"))
}

fn known(home: &Home) -> Result<PathBuf, ApiError> {
    disk(home).map_err(|error| {
        let why = format!("where the data disk is cannot be told: {error}");
        ApiError::new(ErrorCode::Unavailable, why)
            .at_stage("check")
            .with_hint("write the folder that has data.img into this file again, or remove it if it is the instance's own")
    })
}

/// One move, of which nothing has been done.
#[derive(Debug, Serialize, Deserialize)]
pub struct Move {
    from: PathBuf,
    to: PathBuf,
}

/// What a move does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Copying,
    Comparing,
}

/// Whether the disk can go to `folder`, which need not be there.
pub fn plan(home: &Home, folder: &Path) -> Result<Move, ApiError> {
    if !folder.is_absolute() {
        let why = format!("{:?} is not an absolute path", folder.display());
        return Err(ApiError::invalid(why));
    }
    let folder: PathBuf = folder.components().collect();
    let cannot = |e: io::Error| ApiError::invalid(format!("{}: {e}", folder.display()));
    let nearest = folder.ancestors().find(|path| path.exists());
    if let Some(there) = nearest.filter(|there| !there.is_dir()) {
        let why = format!("{} is not a folder", there.display());
        return Err(ApiError::invalid(why));
    }
    let (from, to) = (known(home)?, folder.join(DISK));
    if from == to || same_file(&from, &to) {
        let why = format!("the data is in {} already", folder.display());
        return Err(ApiError::conflict(why));
    }
    if fs::symlink_metadata(&to).is_ok() {
        let why = format!("there is a {} already", to.display());
        return Err(ApiError::conflict(why)
            .with_hint("choose another folder, or remove it if nothing needs it"));
    }
    let nearest = nearest.unwrap_or(&folder);
    writable(nearest).map_err(cannot)?;
    let taken = machine::allocated(&from);
    if !same_file_system(&from, nearest)
        && let Some(free) = machine::free_disk(nearest)
        && free < taken + MARGIN
    {
        let why = format!(
            "the data takes {}, and only {} are free on the disk of {}",
            Size(taken),
            Size(free),
            folder.display()
        );
        return Err(ApiError::conflict(why));
    }
    Ok(Move { from, to })
}

impl Move {
    /// Moves the disk of an engine that does not run. `told` hears bytes that are done, of how many. Until the end counts the old one.
    pub fn run(&self, home: &Home, told: &mut dyn FnMut(Step, u64, u64)) -> io::Result<()> {
        let folder = self.to.parent().unwrap_or(&self.to);
        make_private(folder)?;
        let intent = serde_json::to_vec(self)?;
        settings_file::replace(&home.data_move_file(), &intent)?;
        let made = self.bring(told).and_then(|()| {
            let place = serde_json::to_vec(&Place {
                folder: folder.to_owned(),
            })?;
            settings_file::replace(&home.data_place_file(), &place)
        });
        // Whichever counts now stays.
        settle(home);
        made
    }

    /// The same disk at the other place.
    fn bring(&self, told: &mut dyn FnMut(Step, u64, u64)) -> io::Result<()> {
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        if !self.from.exists() {
            // Nothing was ever started. The first start finds an empty disk and makes it as large as it is to be.
            options.open(&self.to)?.sync_all()?;
            return sync_folder(&self.to);
        }
        if fs::hard_link(&self.from, &self.to).is_ok() {
            return sync_folder(&self.to);
        }
        let part = part(&self.to);
        let from = File::open(&self.from)?;
        let _ = fs::remove_file(&part);
        let copy = options.open(&part)?;
        copy_sparse(&from, &copy, &mut |done, all| {
            told(Step::Copying, done, all)
        })?;
        copy.sync_all()?;
        forget_cached(&copy);
        compare(&from, &copy, &mut |done, all| {
            told(Step::Comparing, done, all)
        })?;
        drop(copy);
        // Where there are no hard links there is this instant in which somebody else's file of that name would be lost.
        if fs::hard_link(&part, &self.to).is_err() {
            fs::rename(&part, &self.to)?;
        }
        sync_folder(&self.to)
    }
}

/// Clears what a move has left that does not count: the copy of one that did not come to its end, the old disk of one that did.
pub fn settle(home: &Home) {
    let (begun, counts) = match (read::<Move>(&home.data_move_file()), disk(home)) {
        (Ok(None), _) => return,
        (Ok(Some(begun)), Ok(counts)) => (begun, counts),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "what a move of the data left is not touched");
            return;
        }
    };
    let _ = fs::remove_file(part(&begun.to));
    let done = if counts == begun.to {
        // The old one only if the new one is there, as large as it.
        let length = |path: &Path| fs::metadata(path).map(|meta| meta.len()).ok();
        match length(&begun.from) {
            Some(old) if length(&begun.to) == Some(old) => fs::remove_file(&begun.from),
            _ => Ok(()),
        }
    } else if counts == begun.from && begun.from.exists() && begun.to.exists() {
        // The intent was written when there was none: it is ours.
        fs::remove_file(&begun.to)
    } else {
        Ok(())
    };
    match done {
        Ok(()) => {
            let _ = fs::remove_file(home.data_move_file());
            if counts == home.data_disk() {
                let _ = fs::remove_file(home.data_place_file());
            }
        }
        Err(error) => tracing::warn!(%error, "what a move of the data left cannot be removed"),
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| named(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(named(error)),
    }
}

fn part(disk: &Path) -> PathBuf {
    disk.with_extension("img.part")
}

fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn writable(folder: &Path) -> io::Result<()> {
    let probe = folder.join(format!(".longshore-{}", std::process::id()));
    File::options().write(true).create_new(true).open(&probe)?;
    fs::remove_file(&probe)
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    identity(a).is_some_and(|a| identity(b) == Some(a))
}

#[cfg(not(unix))]
fn same_file(_: &Path, _: &Path) -> bool {
    false
}

/// Then a move is a second name, and takes no room.
#[cfg(unix)]
fn same_file_system(file: &Path, folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    device(file).is_some_and(|found| device(folder) == Some(found))
}

#[cfg(not(unix))]
fn same_file_system(_: &Path, _: &Path) -> bool {
    false
}

/// So that a comparison reads what is on the disk.
fn forget_cached(_file: &File) {
    #[cfg(target_os = "linux")]
    let _ = nix::fcntl::posix_fadvise(
        _file,
        0,
        0,
        nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    );
}

/// Where the next data begins, from `at` on; `None` behind the last.
#[cfg(target_os = "linux")]
fn next_data(file: &File, at: u64) -> io::Result<Option<u64>> {
    use nix::unistd::{Whence, lseek};
    match lseek(
        file,
        i64::try_from(at).map_err(io::Error::other)?,
        Whence::SeekData,
    ) {
        Ok(found) => Ok(u64::try_from(found).ok()),
        Err(nix::Error::ENXIO) => Ok(None),
        // A file system that does not know: all of it is data.
        Err(_) => Ok(Some(at)),
    }
}

#[cfg(not(target_os = "linux"))]
fn next_data(_: &File, at: u64) -> io::Result<Option<u64>> {
    Ok(Some(at))
}

/// Hands each block that is no hole to `each`.
fn blocks(file: &File, each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut file = file;
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    while at < length {
        let Some(data) = next_data(file, at)? else {
            return Ok(());
        };
        // Whole blocks, wherever the data begins in one.
        at = data - data % BLOCK as u64;
        let size = BLOCK.min(usize::try_from(length - at).unwrap_or(BLOCK));
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut block[..size])?;
        each(at, &block[..size])?;
        at += size as u64;
    }
    Ok(())
}

fn copy_sparse(from: &File, to: &File, told: &mut dyn FnMut(u64, u64)) -> io::Result<()> {
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut to = to;
    blocks(from, &mut |at, block| {
        if block.iter().any(|byte| *byte != 0) {
            to.seek(SeekFrom::Start(at))?;
            to.write_all(block)?;
        }
        told(at + block.len() as u64, length);
        Ok(())
    })
}

fn compare(from: &File, to: &File, told: &mut dyn FnMut(u64, u64)) -> io::Result<()> {
    let length = from.metadata()?.len();
    let differs = || io::Error::other("the copy is not the same as what was copied");
    if to.metadata()?.len() != length {
        return Err(differs());
    }
    let mut copy = to;
    let mut other = vec![0; BLOCK];
    blocks(from, &mut |at, block| {
        copy.seek(SeekFrom::Start(at))?;
        copy.read_exact(&mut other[..block.len()])?;
        told(at + block.len() as u64, length);
        match other[..block.len()] == *block {
            true => Ok(()),
            false => Err(differs()),
        }
    })
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    /// An instance whose disk holds something in the middle of nothing.
    fn instance() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home")).unwrap();
        home.create().unwrap();
        let disk = File::create(home.data_disk()).unwrap();
        disk.set_len(256 << 20).unwrap();
        disk.write_all_at(b"kept", (100 << 20) + 5).unwrap();
        (dir, home)
    }

    fn kept(path: &Path) -> bool {
        let mut text = [0; 4];
        let file = File::open(path).unwrap();
        file.read_exact_at(&mut text, (100 << 20) + 5).unwrap();
        file.metadata().unwrap().len() == 256 << 20 && &text == b"kept"
    }

    #[test]
    fn a_copy_is_the_same_and_as_sparse() {
        let (dir, home) = instance();
        let (from, path) = (
            File::open(home.data_disk()).unwrap(),
            dir.path().join("copy"),
        );
        let copy = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        let mut seen = 0;
        copy_sparse(&from, &copy, &mut |done, _| seen = done).unwrap();
        assert!(seen > 100 << 20);
        compare(&from, &copy, &mut |_, _| {}).unwrap();
        assert!(kept(&path));
        assert!(fs::metadata(&path).unwrap().blocks() * 512 < 8 << 20);
        copy.write_all_at(b"lost", (100 << 20) + 5).unwrap();
        assert!(compare(&from, &copy, &mut |_, _| {}).is_err());
    }

    #[test]
    fn there_and_back_again() {
        let (dir, home) = instance();
        let away = dir.path().join("away/deep");
        plan(&home, &away)
            .unwrap()
            .run(&home, &mut |_, _, _| {})
            .unwrap();
        assert_eq!(disk(&home).unwrap(), away.join(DISK));
        assert!(kept(&disk(&home).unwrap()) && !home.data_disk().exists());
        assert!(disk_to_start(&home).is_ok());
        // A drive that is not there is not an empty one.
        fs::rename(away.join(DISK), away.join("x")).unwrap();
        assert!(
            disk_to_start(&home)
                .unwrap_err()
                .message
                .contains("moved to")
        );
        fs::rename(away.join("x"), away.join(DISK)).unwrap();
        plan(&home, home.root())
            .unwrap()
            .run(&home, &mut |_, _, _| {})
            .unwrap();
        assert_eq!(disk(&home).unwrap(), home.data_disk());
        assert!(kept(&home.data_disk()) && !away.join(DISK).exists());
        assert!(!home.data_place_file().exists() && !home.data_move_file().exists());
    }

    #[test]
    fn before_the_first_start_the_place_of_the_disk_is_chosen() {
        let (dir, home) = instance();
        fs::remove_file(home.data_disk()).unwrap();
        let away = dir.path().join("away");
        plan(&home, &away)
            .unwrap()
            .run(&home, &mut |_, _, _| {})
            .unwrap();
        assert_eq!(disk_to_start(&home).unwrap(), away.join(DISK));
        assert_eq!(fs::metadata(away.join(DISK)).unwrap().len(), 0);
    }

    /// As all data would seem gone if a new disk were made in the instance's own folder.
    #[test]
    fn a_place_that_cannot_be_read_is_not_the_usual_one() {
        let (dir, home) = instance();
        let away = dir.path().join("away");
        let moved = plan(&home, &away).unwrap();
        moved.run(&home, &mut |_, _, _| {}).unwrap();
        let intent = serde_json::to_vec(&moved).unwrap();
        settings_file::replace(&home.data_move_file(), &intent).unwrap();
        fs::write(home.data_place_file(), "{").unwrap();
        settle(&home);
        assert!(kept(&away.join(DISK)));
        let refused = disk_to_start(&home).unwrap_err().message;
        assert!(refused.contains("data.json"), "{refused}");
        assert!(plan(&home, dir.path()).is_err());
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        let (dir, home) = instance();
        let refusal = |folder: &Path| plan(&home, folder).unwrap_err().message;
        assert!(refusal(Path::new("relative")).contains("absolute"));
        assert!(refusal(home.root()).contains("already"));
        let taken = dir.path().join("taken");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join(DISK), "someone's").unwrap();
        assert!(refusal(&taken).contains("there is a"));
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(refusal(&file.join("below")).contains("not a folder"));
        assert!(refusal(Path::new("/proc/longshore")).contains("/proc"));
    }

    /// Killed at each moment, the disk is whole at the place that counts and nowhere else.
    #[test]
    fn a_move_that_was_killed_is_settled() {
        for moment in 0..4 {
            let (dir, home) = instance();
            let away = dir.path().join("away");
            fs::create_dir(&away).unwrap();
            let begun = plan(&home, &away).unwrap();
            let intent = serde_json::to_vec(&begun).unwrap();
            settings_file::replace(&home.data_move_file(), &intent).unwrap();
            fs::write(part(&begun.to), "half").unwrap();
            if moment > 0 {
                fs::copy(&begun.from, &begun.to).unwrap();
            }
            if moment > 1 {
                let place = serde_json::to_vec(&Place {
                    folder: away.clone(),
                })
                .unwrap();
                settings_file::replace(&home.data_place_file(), &place).unwrap();
            }
            if moment > 2 {
                fs::remove_file(&begun.from).unwrap();
            }
            settle(&home);
            let counts = disk(&home).unwrap();
            assert_eq!(counts == begun.to, moment > 1, "moment {moment}");
            assert!(kept(&counts), "moment {moment}");
            assert_eq!(begun.from.exists(), moment < 2);
            assert_eq!(begun.to.exists(), moment >= 2);
            assert!(!part(&begun.to).exists() && !home.data_move_file().exists());
        }
    }
}
