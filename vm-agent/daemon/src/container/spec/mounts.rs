//! The mounts of a container in the OCI's form: the system's, Docker's files in /etc, and the user's.

use super::super::config::HostConfig;
use super::super::record::{Container, MountPoint};
use crate::error::{ApiError, ApiResult};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use serde_json::{Value, json};
use std::os::fd::AsRawFd;
use std::path::Path;

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

fn bind(destination: &str, source: &str, options: &[&str]) -> Value {
    mount(destination, "bind", source, options)
}

/// /proc, /dev, /sys and what is in them.
fn system(host: &HostConfig, ipc_peer: Option<u32>) -> Vec<Value> {
    let sys: &[&str] = match host.privileged {
        true => &["nosuid", "noexec", "nodev", "rw"],
        false => &["nosuid", "noexec", "nodev", "ro"],
    };
    let cgroup: &[&str] = match host.privileged {
        true => &["rw", "nosuid", "noexec", "nodev"],
        false => &["ro", "nosuid", "noexec", "nodev"],
    };
    let plain = &["nosuid", "noexec", "nodev"];
    let mut mounts = vec![
        mount("/proc", "proc", "proc", plain),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount("/sys", "sysfs", "sysfs", sys),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", cgroup),
    ];
    match (host.ipc_mode.as_str(), ipc_peer) {
        ("host", _) => {
            mounts.push(bind("/dev/mqueue", "/dev/mqueue", &["rbind", "rprivate"]));
            mounts.push(bind("/dev/shm", "/dev/shm", &["rbind", "rprivate"]));
        }
        (_, Some(pid)) => {
            mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", plain));
            mounts.push(bind(
                "/dev/shm",
                &format!("/proc/{pid}/root/dev/shm"),
                &["rbind", "rprivate"],
            ));
        }
        ("none", _) => mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", plain)),
        _ => {
            let size = format!("size={}", host.shm_size);
            mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", plain));
            let options = ["nosuid", "noexec", "nodev", "mode=1777", &size];
            mounts.push(mount("/dev/shm", "tmpfs", "shm", &options));
        }
    }
    mounts
}

fn users(point: &MountPoint) -> ApiResult<Value> {
    if point.kind == "tmpfs" {
        let mut options = vec!["noexec", "nosuid", "nodev"];
        for option in &point.options {
            // The user's word replaces the default of the same name.
            match option.as_str() {
                "exec" => options.retain(|have| *have != "noexec"),
                "suid" => options.retain(|have| *have != "nosuid"),
                "dev" => options.retain(|have| *have != "nodev"),
                _ => {}
            }
            if !options.contains(&option.as_str()) {
                options.push(option);
            }
        }
        if !point.rw && !options.contains(&"ro") {
            options.push("ro");
        }
        return Ok(mount(&point.destination, "tmpfs", "tmpfs", &options));
    }
    let recursive = !point.options.iter().any(|option| option == "nonrecursive");
    let mut options = vec![if recursive { "rbind" } else { "bind" }];
    if !point.propagation.is_empty() {
        options.push(&point.propagation);
    }
    if !point.rw {
        options.push("ro");
    }
    Ok(bind(&point.destination, &source(point)?, &options))
}

/// What of this machine is mounted: a bind's source, a volume's folder, or the part of it that is asked for.
pub fn source(point: &MountPoint) -> ApiResult<String> {
    let mut options = point.options.iter();
    match options.find_map(|option| option.strip_prefix("subpath=")) {
        Some(subpath) => inside(&point.source, subpath),
        None => Ok(point.source.clone()),
    }
}

/// A path in a volume, whose links (a container may have made them) do not lead out of it.
fn inside(volume: &str, subpath: &str) -> ApiResult<String> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let missing = |error: std::io::Error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            _ => error.to_string(),
        };
        ApiError::not_found(format!("cannot access path {volume}/{subpath}: {why}"))
    };
    let root = std::fs::File::open(volume).map_err(missing)?;
    let found = openat2(&root, subpath, how).map_err(|errno| missing(errno.into()))?;
    let path = std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
    Ok(path.to_string_lossy().into_owned())
}

fn destination(mount: &Value) -> &str {
    mount["destination"].as_str().unwrap_or_default()
}

/// All mounts, parents before children; the user's replace the system's at the same place.
pub fn all(
    container: &Container,
    folder: &Path,
    init: Option<&Path>,
    ipc_peer: Option<u32>,
) -> ApiResult<Vec<Value>> {
    let mut mounts = system(&container.host_config, ipc_peer);
    let own = container.mounts.iter().map(users);
    let mut own = own.collect::<ApiResult<Vec<Value>>>()?;
    for name in ["resolv.conf", "hostname", "hosts"] {
        let target = format!("/etc/{name}");
        let source = folder.join(name);
        if !own.iter().any(|mount| destination(mount) == target) {
            let mut options = vec!["rbind", "rprivate"];
            if container.host_config.readonly_rootfs {
                options.push("ro");
            }
            own.push(bind(&target, &source.to_string_lossy(), &options));
        }
    }
    if let Some(init) = init {
        own.push(bind(
            "/sbin/docker-init",
            &init.to_string_lossy(),
            &["bind", "ro"],
        ));
    }
    let dev_is_users = own.iter().any(|mount| destination(mount) == "/dev");
    mounts.retain(|mount| {
        let place = destination(mount);
        let replaced = own.iter().any(|other| destination(other) == place);
        let hidden = dev_is_users && place.starts_with("/dev/");
        !replaced && !hidden
    });
    own.sort_by_key(|mount| destination(mount).matches('/').count());
    mounts.extend(own);
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(points: Vec<MountPoint>) -> Container {
        let mut fixed = super::super::super::record::Fixed {
            mounts: points,
            ..Default::default()
        };
        fixed.host_config.shm_size = 64 << 20;
        Container::new(fixed, Default::default())
    }

    fn point(kind: &str, destination: &str, options: &[&str]) -> MountPoint {
        MountPoint {
            kind: kind.into(),
            source: "/src".into(),
            destination: destination.into(),
            rw: true,
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn the_users_mounts_replace_the_systems_and_come_in_depth_order() {
        let points = vec![
            point("bind", "/a/b/c", &[]),
            point("bind", "/a", &[]),
            point("bind", "/dev/shm", &[]),
        ];
        let all = all(&container(points), Path::new("/nonexistent"), None, None).unwrap();
        let places: Vec<&str> = all.iter().map(destination).collect();
        assert_eq!(
            places,
            [
                "/proc",
                "/dev",
                "/dev/pts",
                "/sys",
                "/sys/fs/cgroup",
                "/dev/mqueue",
                "/a",
                "/dev/shm",
                "/etc/resolv.conf",
                "/etc/hostname",
                "/etc/hosts",
                "/a/b/c"
            ]
        );
    }

    #[test]
    fn tmpfs_options_replace_defaults() {
        let table: [(&[&str], &[&str]); 3] = [
            (&[], &["noexec", "nosuid", "nodev"]),
            (
                &["exec", "size=1m"],
                &["nosuid", "nodev", "exec", "size=1m"],
            ),
            (&["rw", "noexec"], &["noexec", "nosuid", "nodev", "rw"]),
        ];
        for (options, expected) in table {
            assert_eq!(
                users(&point("tmpfs", "/t", options)).unwrap()["options"],
                json!(expected)
            );
        }
    }
    #[test]
    fn a_subpath_ends_inside_its_volume() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("volume");
        std::fs::create_dir_all(volume.join("real")).unwrap();
        std::fs::create_dir(folder.path().join("secret")).unwrap();
        let link = |name: &str, target: &str| {
            std::os::unix::fs::symlink(target, volume.join(name)).unwrap();
        };
        link("good", "real");
        link("up", "../secret");
        link("absolute", folder.path().join("secret").to_str().unwrap());
        let volume = volume.to_str().unwrap();
        assert_eq!(inside(volume, "good").unwrap(), format!("{volume}/real"));
        for path in ["up", "absolute", "missing"] {
            let error = inside(volume, path).unwrap_err();
            assert!(
                error.message.contains("no such file or directory"),
                "{path}"
            );
            assert_eq!(error.status, http::StatusCode::NOT_FOUND);
        }
    }
}
