//! A container as the daemon knows it, in memory and on disk: what was asked, what it became, what it does now.

use super::config::{ContainerConfig, HostConfig, NetworkingConfig};
use super::health::Health;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A container at one moment. Never changes: each change makes a new one in its place.
#[derive(Debug, Clone)]
pub struct Container {
    pub fixed: Fixed,
    pub state: State,
    /// Has a process (paused counts).
    pub running: bool,
    /// Of process 1 in the guest; 0 when not running.
    pub pid: u32,
    /// The image as the client named it.
    pub image: String,
}

impl Container {
    pub fn new(fixed: Fixed, state: State) -> Self {
        let (running, pid) = (state.is_running(), state.pid);
        Container {
            image: fixed.config.image.clone(),
            fixed,
            state,
            running,
            pid,
        }
    }

    /// The same container with another state.
    pub fn with_state(&self, state: State) -> Self {
        Container::new(self.fixed.clone(), state)
    }
}

impl std::ops::Deref for Container {
    type Target = Fixed;

    fn deref(&self) -> &Fixed {
        &self.fixed
    }
}

/// What changes seldom (rename, update): `config.json`, made durable before it is acknowledged.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Fixed {
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    pub created: DateTime<Utc>,
    /// The image's id (`sha256:…`).
    pub image_id: String,
    /// The digest of the manifest or index that `image` was.
    #[serde(default)]
    pub image_manifest: String,
    #[serde(default)]
    pub image_manifest_size: i64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub image_manifest_annotations: BTreeMap<String, String>,
    /// Process 1: program and arguments.
    pub path: String,
    pub args: Vec<String>,
    /// The request merged with the image's configuration.
    pub config: ContainerConfig,
    pub host_config: HostConfig,
    pub networking: NetworkingConfig,
    /// Disconnected from the network of its mode, which it no longer joins while it has others.
    #[serde(default)]
    pub left_first_network: bool,
    pub mounts: Vec<MountPoint>,
    /// The image's snapshot that the container's own stands on.
    pub snapshot_parent: String,
    /// The shim (`io.containerd.longshore.v2`) and the runtime that it is told to run, if any.
    pub shim: String,
    #[serde(default)]
    pub runtime_binary: String,
}

impl Fixed {
    pub fn short_id(&self) -> &str {
        crate::identity::short(&self.id)
    }
}

/// What changes with every start and stop: `state.json`.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    pub status: Status,
    pub pid: u32,
    pub exit_code: i32,
    pub error: String,
    pub oom_killed: bool,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    /// Automatic restarts since the last start by hand.
    pub restart_count: u32,
    /// Stopped by a request: no restart policy but `always` at boot starts it again.
    pub stopped_by_hand: bool,
    /// The boot (`/proc/sys/kernel/random/boot_id`) in which it last started.
    pub boot: String,
    /// Of a container with a health check, from its first start on.
    pub health: Option<Health>,
    /// From the moment the container is on disk until its `create` event is in the journal.
    pub creation_unannounced: bool,
    /// The same for its exit and the `die` event.
    pub exit_unannounced: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Removing => "removing",
            Status::Exited => "exited",
            Status::Dead => "dead",
        }
    }

    pub const ALL: [Status; 7] = [
        Status::Created,
        Status::Running,
        Status::Paused,
        Status::Restarting,
        Status::Removing,
        Status::Exited,
        Status::Dead,
    ];
}

impl State {
    /// Whether there is a process (paused counts), as `State.Running` says.
    pub fn is_running(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused)
    }
}

/// A mount that a container has, as `inspect` shows it.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MountPoint {
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub source: String,
    pub destination: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    pub mode: String,
    #[serde(rename = "RW")]
    pub rw: bool,
    pub propagation: String,
    /// Not Docker's: the image's files are copied into the volume at first use.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub copy_up: bool,
    /// Not Docker's: options of a tmpfs, `subpath` of a volume, `nonrecursive` of a bind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// Docker's times: RFC 3339 with nanoseconds, and year one for never.
pub fn timestamp(time: Option<DateTime<Utc>>) -> String {
    match time {
        Some(time) => trim_zeros(&time.to_rfc3339_opts(SecondsFormat::Nanos, true)),
        None => "0001-01-01T00:00:00Z".to_owned(),
    }
}

/// Go prints no zeros at the end of a fraction.
fn trim_zeros(text: &str) -> String {
    let Some((seconds, fraction)) = text.trim_end_matches('Z').split_once('.') else {
        return text.to_owned();
    };
    match fraction.trim_end_matches('0') {
        "" => format!("{seconds}Z"),
        rest => format!("{seconds}.{rest}Z"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_gos() {
        let table = [
            (
                Some("2026-01-02T03:04:05.120000000Z"),
                "2026-01-02T03:04:05.12Z",
            ),
            (Some("2026-01-02T03:04:05Z"), "2026-01-02T03:04:05Z"),
            (None, "0001-01-01T00:00:00Z"),
        ];
        for (time, expected) in table {
            assert_eq!(timestamp(time.map(|text| text.parse().unwrap())), expected);
        }
    }
}
