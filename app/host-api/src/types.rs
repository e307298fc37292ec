//! Requests and responses.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// Where the VM stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum State {
    Stopped,
    Starting,
    Running,
    Paused,
    Stopping,
    Failed,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Stopped => "stopped",
            State::Starting => "starting",
            State::Running => "running",
            State::Paused => "paused",
            State::Stopping => "stopping",
            State::Failed => "failed",
        }
    }
}

/// `GET /v1/status`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Status {
    pub state: State,
    /// The stage of a start, or why the VM failed or is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub detail: Option<String>,
    /// What is not as it should be though the VM runs, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub warning: Option<String>,
    pub version: String,
    pub home: PathBuf,
    pub docker_host: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub vm: Option<VmFacts>,
    pub shares: Vec<ShareStatus>,
    pub ports: Vec<PublishedPort>,
    pub host_pid: u32,
}

/// What the running VM was made of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct VmFacts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub pid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub qemu_pid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub qemu_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub accelerator: Option<String>,
    /// Why this accelerator, when it is not the one that was hoped for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub accelerator_reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub channel: Option<String>,
    pub cpus: u32,
    pub memory: u64,
    pub disk: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ShareStatus {
    pub path: PathBuf,
    pub read_only: bool,
    pub mounted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct PublishedPort {
    /// `127.0.0.1:8080/tcp`
    pub host: String,
    /// The port dialled in the guest.
    pub guest: String,
}

/// `POST /v1/start`: what is set becomes the setting of the same name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(test, ts(optional_fields))]
#[serde(deny_unknown_fields, default)]
pub struct StartRequest {
    pub cpus: Option<u32>,
    pub memory: Option<String>,
    pub disk: Option<String>,
    pub accelerator: Option<String>,
    pub channel: Option<String>,
    pub shares: Vec<String>,
    /// The installed guest image is tried again, though it did not come up.
    pub retry_image: bool,
}

/// One line of the answer to start, stop and restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Progress {
    /// A stage has begun.
    Stage {
        name: String,
        text: String,
        elapsed_ms: u64,
    },
    /// Something that the user should know, and that does not stop the work.
    Notice {
        text: String,
    },
    Done {
        /// The request found its work already done.
        already: bool,
        status: Box<Status>,
        elapsed_ms: u64,
    },
    Failed {
        error: ApiError,
    },
}

/// `POST /v1/settings`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct SettingsChange {
    /// `key=value`, `key+=value`, `key-=value`, or `key=` for the default; all are applied or none.
    pub assignments: Vec<String>,
}

/// The answer to a change of settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct SettingsChanged {
    #[cfg_attr(test, ts(type = "Record<string, unknown>"))]
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// What the user should know, such as that a restart is needed.
    pub notices: Vec<String>,
}

/// `POST /v1/shares` and `DELETE /v1/shares`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct ShareRequest {
    pub path: String,
}

/// What `logs` can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum LogSource {
    Host,
    Console,
    Daemon,
    Supervisor,
    Agent,
}

impl LogSource {
    pub fn as_str(self) -> &'static str {
        match self {
            LogSource::Host => "host",
            LogSource::Console => "console",
            LogSource::Daemon => "daemon",
            LogSource::Supervisor => "supervisor",
            LogSource::Agent => "agent",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::Host,
            Self::Console,
            Self::Daemon,
            Self::Supervisor,
            Self::Agent,
        ]
        .into_iter()
        .find(|s| s.as_str() == name)
    }
}

/// One line of `GET /v1/watch`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct EngineState {
    pub state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub detail: Option<String>,
}

/// `GET /v1/machine`: what this machine has, in bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct MachineFacts {
    pub cpus: u32,
    pub memory: u64,
    /// The folder of the data disk.
    pub data_folder: PathBuf,
    /// What the data disk takes now.
    pub data_disk: u64,
    /// What is left where the data disk is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub free_disk: Option<u64>,
}

/// The answer to `POST /v1/ui`, which opens the pages for a browser; `DELETE /v1/ui` closes them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct UiAddress {
    /// Works once.
    pub url: String,
}

/// The answer to `POST /v1/welcome`, which runs a first container.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Welcome {
    /// The container's.
    pub name: String,
    /// Its page, when its port is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub url: Option<String>,
}

/// A page's request to `/api/…` or `/docker/…`: the first message on a browser's `stream` socket, and what the window hands on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct StreamRequest {
    pub method: String,
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub body: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub registry_auth: Option<String>,
}

/// Where the data disk shall be.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct DataMove {
    /// An absolute path; made when it is not there.
    pub folder: PathBuf,
}

/// How far the window is with an answer that it saves as a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Saving {
    pub bytes: u64,
    /// Bytes that will come, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub total: Option<u64>,
    /// The file, once it is whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub path: Option<PathBuf>,
}

/// The window's request with a body of any size, which follows in pieces.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct UploadRequest {
    pub method: String,
    pub path: String,
    pub content_type: String,
    /// Bytes of the body.
    pub size: u64,
}

/// The first answer to a [`StreamRequest`]; the body follows as binary messages.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct StreamHead {
    pub status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub content_type: Option<String>,
}

/// Whose terminal a page opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TerminalKind {
    Exec,
    Attach,
}

/// `GET /v1/layers`: who runs in the guest, and who has started whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Layers {
    /// Of the guest.
    pub uptime_ms: u64,
    pub services: Vec<LayerService>,
    pub processes: Vec<ChainProcess>,
    /// How many more there are.
    pub left_out: u32,
}

/// A process that the guest's init keeps running.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct LayerService {
    pub name: String,
    /// How often it was started since boot.
    pub starts: u32,
    /// How it ended last (`exit 1`, `signal 9`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub last_exit: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ChainProcess {
    pub pid: u32,
    pub parent: u32,
    /// `init`, a service's name, `shim`, or `container` for what a shim has started.
    pub layer: String,
    pub name: String,
    /// The container that a shim is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub subject: Option<String>,
    pub rss_kib: u64,
    pub cpu_ms: u64,
    pub uptime_ms: u64,
}

/// What a container uses, with the names and units of Docker's `GET /containers/ID/stats`: a value of `GET /v1/usage`, by what was asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ContainerUsage {
    #[serde(default)]
    pub cpu_stats: CpuStats,
    #[serde(default)]
    pub memory_stats: MemoryStats,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct CpuStats {
    pub cpu_usage: CpuUsage,
    /// Nanoseconds that all CPUs of the VM ran for together.
    pub system_cpu_usage: u64,
    pub online_cpus: u32,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct CpuUsage {
    /// Nanoseconds.
    pub total_usage: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct MemoryStats {
    /// Bytes, with the page cache.
    pub usage: u64,
    pub limit: u64,
    pub stats: MemoryDetails,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct MemoryDetails {
    /// Bytes of page cache that can be dropped at once.
    pub inactive_file: u64,
}

/// A finished span: an element of `GET /v1/requests`, a line of `GET /v1/trace/ID`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct TraceSpan {
    pub trace_id: String,
    pub span_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub parent_id: Option<String>,
    /// The process that wrote it.
    pub service: String,
    pub name: String,
    /// Microseconds since 1970.
    pub start_us: u64,
    pub duration_us: u64,
    #[serde(default)]
    #[cfg_attr(test, ts(type = "Record<string, unknown>"))]
    pub fields: serde_json::Map<String, serde_json::Value>,
}
