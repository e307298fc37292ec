//! Volumes of the local driver that are mounts (tmpfs, bind, nfs): mounted for their first running container, unmounted after the last.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::store::{Labels, Volume, Volumes};
use crate::error::{ApiError, ApiResult};

/// Options that the local driver knows, and those that each of them needs beside it.
const OPTIONS: [(&str, &[&str]); 4] = [
    ("device", &["type"]),
    ("o", &["device", "type"]),
    ("size", &[]),
    ("type", &["device"]),
];

/// Containers that hold each volume mounted.
pub(super) type Holders = HashMap<String, BTreeSet<String>>;

/// Docker's words for options that cannot be.
pub(super) fn check_options(name: &str, options: &Labels) -> ApiResult<()> {
    let wrong = |why: String| Err(ApiError::bad_request(format!("create {name}: {why}")));
    for option in options.keys() {
        if !OPTIONS.iter().any(|(known, _)| known == option) {
            return wrong(format!("invalid option: {option:?}"));
        }
    }
    for (option, needed) in OPTIONS {
        if !options.contains_key(option) {
            continue;
        }
        if let Some(missing) = needed.iter().find(|needed| !options.contains_key(**needed)) {
            return wrong(format!("missing required option: {missing:?}"));
        }
    }
    match options.get("size") {
        Some(_) => wrong("quota size requested but no quota support".to_owned()),
        None => Ok(()),
    }
}

/// What mount(2) is told.
struct MountOptions {
    source: String,
    kind: String,
    flags: MsFlags,
    data: String,
}

impl MountOptions {
    fn of(options: &Labels) -> Option<Self> {
        let get = |name: &str| options.get(name).cloned().unwrap_or_default();
        let (source, kind) = (get("device"), get("type"));
        if source.is_empty() || kind.is_empty() {
            return None;
        }
        let (mut flags, mut data) = (MsFlags::empty(), Vec::new());
        let words = get("o");
        for word in words.split(',').filter(|word| !word.is_empty()) {
            match flag_of(word) {
                Some(flag) => flags |= flag,
                None if matches!(word, "rw" | "defaults" | "exec" | "suid" | "dev") => {}
                None => data.push(word),
            }
        }
        Some(MountOptions {
            source,
            kind,
            flags,
            data: data.join(","),
        })
    }
}

fn flag_of(word: &str) -> Option<MsFlags> {
    Some(match word {
        "bind" => MsFlags::MS_BIND,
        "rbind" => MsFlags::MS_BIND | MsFlags::MS_REC,
        "ro" => MsFlags::MS_RDONLY,
        "noexec" => MsFlags::MS_NOEXEC,
        "nosuid" => MsFlags::MS_NOSUID,
        "nodev" => MsFlags::MS_NODEV,
        "noatime" => MsFlags::MS_NOATIME,
        "nodiratime" => MsFlags::MS_NODIRATIME,
        "relatime" => MsFlags::MS_RELATIME,
        "strictatime" => MsFlags::MS_STRICTATIME,
        "sync" => MsFlags::MS_SYNCHRONOUS,
        "dirsync" => MsFlags::MS_DIRSYNC,
        _ => return None,
    })
}

impl Volumes {
    /// Before a container with the volume starts; `attributes` are those of Docker's `mount` event.
    pub async fn mount(
        &self,
        name: &str,
        container_id: &str,
        attributes: &[(&str, &str)],
    ) -> ApiResult<()> {
        let volume = self.get(name)?;
        let mut holders = self.holders.lock().await;
        if let Some(options) = volume.options.as_ref().and_then(MountOptions::of) {
            let target = volume.mountpoint.clone();
            let done = tokio::task::spawn_blocking(move || mount_once(&options, &target)).await;
            done.map_err(|error| ApiError::internal(error.to_string()))?
                .map_err(|error| failed(&volume, &error))?;
        }
        holders
            .entry(name.to_owned())
            .or_default()
            .insert(container_id.to_owned());
        drop(holders);
        self.event("mount", name, attributes);
        Ok(())
    }

    /// A container that ran when this daemon started holds its volumes as before.
    pub async fn holds(&self, name: &str, container_id: &str) {
        let mut holders = self.holders.lock().await;
        holders
            .entry(name.to_owned())
            .or_default()
            .insert(container_id.to_owned());
    }

    /// After a container's end. Does nothing for one that does not hold the volume.
    pub async fn unmount(&self, name: &str, container_id: &str) {
        let mut holders = self.holders.lock().await;
        let Some(of_volume) = holders.get_mut(name) else {
            return;
        };
        if !of_volume.remove(container_id) {
            return;
        }
        let last = of_volume.is_empty();
        if last {
            holders.remove(name);
        }
        let mounted = self
            .get(name)
            .ok()
            .filter(|volume| volume.options.as_ref().and_then(MountOptions::of).is_some());
        if let (true, Some(volume)) = (last, mounted) {
            let target = volume.mountpoint;
            let done =
                tokio::task::spawn_blocking(move || umount2(&target, MntFlags::MNT_DETACH)).await;
            if !matches!(done, Ok(Ok(()))) {
                tracing::warn!(?done, name, "unmounting a volume");
            }
        }
        drop(holders);
        let attributes = [("container", container_id), ("driver", "local")];
        self.event("unmount", name, &attributes);
    }
}

/// In Docker's words, with mount(2)'s own reason.
fn failed(volume: &Volume, error: &io::Error) -> ApiError {
    let device = volume.options.as_ref().and_then(|all| all.get("device"));
    let reason = nix::Error::from_raw(error.raw_os_error().unwrap_or(libc::EIO)).desc();
    ApiError::internal(format!(
        "error while mounting volume '{}': failed to mount local volume: mount {}:{}: {}",
        volume.mountpoint.display(),
        device.map_or("", String::as_str),
        volume.mountpoint.display(),
        reason.to_ascii_lowercase(),
    ))
}

fn mount_once(options: &MountOptions, target: &Path) -> io::Result<()> {
    if is_mounted(target)? {
        return Ok(());
    }
    // A bind mount takes its flags only in a second step.
    let binding = options.flags.contains(MsFlags::MS_BIND);
    let first = match binding {
        true => options.flags & (MsFlags::MS_BIND | MsFlags::MS_REC),
        false => options.flags,
    };
    let data = Some(options.data.as_str()).filter(|data| !data.is_empty());
    mount(
        Some(options.source.as_str()),
        target,
        Some(options.kind.as_str()),
        first,
        data,
    )?;
    let rest = options.flags - (MsFlags::MS_BIND | MsFlags::MS_REC);
    if binding && !rest.is_empty() {
        let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | rest;
        mount(None::<&str>, target, None::<&str>, again, None::<&str>)?;
    }
    Ok(())
}

fn is_mounted(target: &Path) -> io::Result<bool> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let target = std::fs::canonicalize(target)?;
    // proc(5): the fifth field is the mount point.
    let mut places = table.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(places.any(|place| target == Path::new(place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()));
        owned.collect()
    }

    #[test]
    fn options_are_checked_in_dockers_words() {
        for (pairs, expected) in [
            (
                &[("nonsense", "1")][..],
                Some("create v: invalid option: \"nonsense\""),
            ),
            (
                &[("device", "/x")],
                Some("create v: missing required option: \"type\""),
            ),
            (
                &[("type", "tmpfs")],
                Some("create v: missing required option: \"device\""),
            ),
            (
                &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")],
                None,
            ),
        ] {
            let got = check_options("v", &labels(pairs)).err();
            assert_eq!(
                got.map(|error| error.message).as_deref(),
                expected,
                "{pairs:?}"
            );
        }
    }

    #[test]
    fn words_become_flags_and_the_rest_is_the_file_systems() {
        let options = labels(&[
            ("type", "none"),
            ("device", "/x"),
            ("o", "bind,ro,uid=5,rw"),
        ]);
        let parsed = MountOptions::of(&options).unwrap();
        assert_eq!(parsed.flags, MsFlags::MS_BIND | MsFlags::MS_RDONLY);
        assert_eq!(parsed.data, "uid=5");
        assert!(MountOptions::of(&labels(&[])).is_none());
    }
}
