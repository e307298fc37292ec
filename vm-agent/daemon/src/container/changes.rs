//! `GET /containers/{id}/changes`: what a container has changed in its image's files, as `docker diff` shows it.
//!
//! The supervisor's snapshot says where the container's own layer is and what it stands on; both are mounted apart
//! and compared. Only what is in the own layer is looked at, so the time does not grow with the image.

use super::rootfs::{Rootfs, mount_detached};
use super::snapshot;
use crate::error::{ApiError, ApiResult};
use crate::http_message::{ApiRequest, ApiResponse, ok_json};
use crate::state::Daemon;
use crate::supervisor::api::types::Mount;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the runtime makes in every container, to mount on; Docker hides the same.
const HIDDEN: [&str; 12] = [
    "/dev",
    "/dev/console",
    "/dev/mqueue",
    "/dev/pts",
    "/dev/shm",
    "/etc",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/proc",
    "/sys",
];

/// Deeper trees are not walked.
const MAX_DEPTH: usize = 512;

pub async fn serve(daemon: Arc<Daemon>, _: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    let container = daemon.containers.get(&id)?;
    let mounts = snapshot::mounts(&daemon.containers, &container.id).await?;
    let (own, below) = layers(&mounts)?;
    let own = mount_detached(vec![own]).await?;
    let below = match below {
        Some(mount) => Some(mount_detached(vec![mount]).await?),
        None => None,
    };
    let compared = tokio::task::spawn_blocking(move || compare(&own, below.as_ref()));
    let changes = compared
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?
        .map_err(|error| ApiError::from(error).context("comparing the container's files"))?;
    match changes.is_empty() {
        true => ok_json(&Value::Null),
        false => {
            let shown = changes
                .iter()
                .map(|(path, kind)| json!({ "Path": path.to_string_lossy(), "Kind": *kind as u8 }));
            ok_json(&shown.collect::<Vec<_>>())
        }
    }
}

/// The container's own layer, and what it stands on (`None`: nothing), each as a mount by itself.
fn layers(mounts: &[Mount]) -> ApiResult<(Mount, Option<Mount>)> {
    let [mount] = mounts else {
        return Err(ApiError::internal(format!(
            "a snapshot of {} mounts",
            mounts.len()
        )));
    };
    let bind = |source: &str| Mount {
        r#type: "bind".to_owned(),
        source: source.to_owned(),
        target: String::new(),
        options: vec!["ro".to_owned(), "rbind".to_owned()],
    };
    let option = |name: &str| {
        let mut options = mount.options.iter();
        options.find_map(|option| option.strip_prefix(name))
    };
    let Some(upper) = option("upperdir=") else {
        return Ok((mount.clone(), None));
    };
    let lower = option("lowerdir=").unwrap_or_default();
    let below = match lower.contains(':') {
        false => bind(lower),
        true => Mount {
            options: vec!["index=off".to_owned(), format!("lowerdir={lower}")],
            ..mount.clone()
        },
    };
    Ok((bind(upper), Some(below)))
}

/// Docker's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Modified = 0,
    Added = 1,
    Deleted = 2,
}

type Changes = BTreeMap<PathBuf, Kind>;

fn compare(own: &Rootfs, below: Option<&Rootfs>) -> io::Result<Changes> {
    let own = Folder::open(&own.path)?;
    let below = below.map(|below| Folder::open(&below.path)).transpose()?;
    let mut changes = Changes::new();
    walk(&own, below.as_ref(), Path::new("/"), &mut changes, 0)?;
    Ok(changes)
}

/// A folder held open, so that no link that takes its place meanwhile leads elsewhere.
struct Folder(File);

impl Folder {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(path)?;
        Ok(Folder(file))
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    fn child(&self, name: &OsString) -> io::Result<Self> {
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let file = File::options()
            .read(true)
            .custom_flags(flags)
            .open(self.path().join(name))?;
        Ok(Folder(file))
    }

    fn names(&self) -> io::Result<Vec<OsString>> {
        let entries = fs::read_dir(self.path())?;
        entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect()
    }

    fn look(&self, name: &OsString) -> Option<Metadata> {
        fs::symlink_metadata(self.path().join(name)).ok()
    }

    /// Whether it hides what is below it (overlayfs, "opaque directories").
    fn is_opaque(&self) -> bool {
        let path = CString::new(self.path().as_os_str().as_bytes()).unwrap_or_default();
        let mut value = [0u8; 2];
        // SAFETY: both strings end in NUL and live until after the call; the buffer has the length that is told.
        let length = unsafe {
            libc::getxattr(
                path.as_ptr(),
                c"trusted.overlay.opaque".as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
            )
        };
        length == 1 && value[0] == b'y'
    }
}

/// Lists what `own` changes; true when there is anything inside.
fn walk(
    own: &Folder,
    below: Option<&Folder>,
    inside: &Path,
    changes: &mut Changes,
    depth: usize,
) -> io::Result<bool> {
    let before = changes.len();
    if depth > MAX_DEPTH {
        return Ok(false);
    }
    let names = own.names()?;
    for name in &names {
        // It may go while the container runs.
        let Some(meta) = own.look(name) else { continue };
        let path = inside.join(name);
        let old = below.and_then(|below| below.look(name));
        if meta.file_type().is_char_device() && meta.rdev() == 0 {
            if old.is_some() {
                changes.insert(path, Kind::Deleted);
            }
            continue;
        }
        let hidden = HIDDEN.iter().any(|hidden| path == Path::new(hidden));
        let kind = match &old {
            None if hidden => None,
            None => Some(Kind::Added),
            Some(old) => differs(&meta, old).then_some(Kind::Modified),
        };
        let mut filled = false;
        if meta.is_dir()
            && let Ok(own) = own.child(name)
        {
            let was_folder = old.as_ref().is_some_and(Metadata::is_dir);
            let below = below
                .filter(|_| was_folder)
                .and_then(|below| below.child(name).ok());
            filled = walk(&own, below.as_ref(), &path, changes, depth + 1)?;
        }
        let kind = match (kind, &old) {
            (None, Some(_)) if filled => Some(Kind::Modified),
            (None, None) if filled => Some(Kind::Added),
            (kind, _) => kind,
        };
        if let Some(kind) = kind {
            changes.insert(path, kind);
        }
    }
    if let Some(below) = below.filter(|_| own.is_opaque()) {
        for name in below.names()? {
            if !names.contains(&name) {
                changes.insert(inside.join(name), Kind::Deleted);
            }
        }
    }
    Ok(changes.len() > before)
}

/// Docker's measure: overlayfs copies files up that are then not changed.
fn differs(new: &Metadata, old: &Metadata) -> bool {
    let owner = |meta: &Metadata| (meta.mode(), meta.uid(), meta.gid(), meta.rdev());
    let content = |meta: &Metadata| (meta.mtime(), meta.mtime_nsec(), meta.size());
    owner(new) != owner(old) || !new.is_dir() && content(new) != content(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_taken_apart() {
        let overlay = |options: &[&str]| Mount {
            r#type: "overlay".into(),
            source: "overlay".into(),
            target: String::new(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        let (own, below) =
            layers(&[overlay(&["workdir=/w", "upperdir=/u", "lowerdir=/a"])]).unwrap();
        assert_eq!((own.r#type.as_str(), own.source.as_str()), ("bind", "/u"));
        assert_eq!(below.unwrap().source, "/a");
        let (_, below) = layers(&[overlay(&["upperdir=/u", "lowerdir=/a:/b"])]).unwrap();
        assert_eq!(below.unwrap().options, ["index=off", "lowerdir=/a:/b"]);
        assert!(layers(&[]).is_err());
    }

    #[test]
    fn changes_are_found() {
        let root = std::env::temp_dir().join(format!("changes-{}", crate::identity::new_id()));
        let (own, below) = (root.join("own"), root.join("below"));
        for folder in [
            "own/etc",
            "own/new/deep",
            "below/etc",
            "own/dev",
            "own/proc",
        ] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(below.join("etc/passwd"), "a").unwrap();
        fs::write(own.join("etc/passwd"), "ab").unwrap();
        fs::write(own.join("etc/hosts"), "").unwrap();
        fs::write(own.join("new/deep/x"), "").unwrap();
        let (own, below) = (Folder::open(&own).unwrap(), Folder::open(&below).unwrap());
        let mut changes = Changes::new();
        walk(&own, Some(&below), Path::new("/"), &mut changes, 0).unwrap();
        let found: Vec<_> = changes
            .iter()
            .map(|(path, kind)| (path.to_str().unwrap(), *kind))
            .collect();
        let expected = [
            ("/etc", Kind::Modified),
            ("/etc/passwd", Kind::Modified),
            ("/new", Kind::Added),
            ("/new/deep", Kind::Added),
            ("/new/deep/x", Kind::Added),
        ];
        assert_eq!(found, expected);
        fs::remove_dir_all(root).unwrap();
    }
}
