//! Requests of the host to the agent on [`crate::ports::CONTROL`]: JSON lines, answered by `id`, in any order.

use crate::config::Share;
use serde::{Deserialize, Serialize};

/// One line from the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestLine {
    pub version: u32,
    /// Chosen by the host; the reply carries it back.
    pub id: u64,
    #[serde(flatten)]
    pub request: Request,
}

/// What the host may ask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
pub enum Request {
    /// The first request of a connection; answered by [`Reply::Hello`].
    Hello,
    /// Answered by [`Reply::Status`] at once.
    Status,
    /// Answered by [`Reply::Status`] once the guest is set up: network, shares, data disk, and every service started.
    /// (A service answers for itself on its own port: its socket exists from the start, and a client there waits.)
    WaitReady,
    /// Mounts a virtiofs share that the host has just plugged in; `path` is made when missing.
    MountShare(Share),
    UnmountShare {
        tag: String,
    },
    /// The host's clock, nanoseconds since 1970 (when the guest begins to run, after the host slept, now and then).
    SetTime {
        unix_ns: u64,
    },
    /// Replaces the daemon's part of the configuration and lets the daemon read it again (SIGHUP).
    Configure {
        daemon_json: serde_json::Value,
    },
    /// Orderly power-off; the reply says that it has begun.
    Shutdown,
    Stats,
    /// The finished spans of one trace, from every service's ring.
    Trace {
        /// 32 lower-case hex digits.
        trace_id: String,
    },
    /// The last requests that the daemon has answered, newest first: the first span of each, as [`Reply::Spans`].
    Requests {
        most: u32,
    },
    /// Answered by [`Reply::Layers`].
    Layers,
    /// Kills a service's process, which init starts again.
    KillService {
        service: KillableService,
    },
}

/// The services that live apart from the containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KillableService {
    Daemon,
    Supervisor,
}

impl KillableService {
    pub fn as_str(self) -> &'static str {
        match self {
            KillableService::Daemon => "daemon",
            KillableService::Supervisor => "supervisor",
        }
    }
}

/// One line from the guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplyLine {
    pub version: u32,
    pub id: u64,
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Ok(Reply),
    /// What failed and why, for people.
    Error(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum Reply {
    Hello(Hello),
    Status(Status),
    Stats(Stats),
    Spans(Vec<Span>),
    Layers(Layers),
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the agent's crate.
    pub agent: String,
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub architecture: String,
    /// Changes with each boot.
    pub boot_id: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub hostname: String,
    pub uptime_ms: u64,
    pub services: Vec<ServiceStatus>,
    /// In the order in which they were reached.
    pub stages: Vec<BootStage>,
    pub shares: Vec<ShareStatus>,
    /// What is wrong, a line each (a share that would not mount, a disk that was refused, …).
    pub problems: Vec<String>,
    /// Network, shares and data disk are set up, and every service runs.
    pub ready: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    pub state: ServiceState,
    pub pid: Option<u32>,
    /// How often it was started since boot.
    pub starts: u32,
    /// How it ended last (`exit 1`, `signal 9`).
    pub last_exit: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    Waiting,
    Running,
    /// A one-shot that is done.
    Done,
    /// Died; init starts it again after its back-off.
    BackOff,
    Failed,
}

/// A point of the boot and the guest's uptime when it was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootStage {
    pub name: String,
    pub uptime_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareStatus {
    #[serde(flatten)]
    pub share: Share,
    pub mounted: bool,
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    pub memory_total_kib: u64,
    pub memory_available_kib: u64,
    pub memory_free_kib: u64,
    pub disk_total_bytes: u64,
    pub disk_free_bytes: u64,
    pub processes: Vec<ProcessStats>,
}

/// One of our processes in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStats {
    pub pid: u32,
    pub name: String,
    pub rss_kib: u64,
    pub pss_kib: u64,
    pub threads: u32,
    /// User and system time used.
    pub cpu_ms: u64,
}

/// Who runs in the guest, and who has started whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    pub uptime_ms: u64,
    pub services: Vec<ServiceStatus>,
    pub processes: Vec<LayerProcess>,
    /// How many more there are.
    pub left_out: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerProcess {
    pub pid: u32,
    pub parent: u32,
    /// `init`, a service's name, `shim`, or `container` for what a shim has started.
    pub layer: String,
    pub name: String,
    /// What a shim was started for: its `-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    pub rss_kib: u64,
    /// User and system time used.
    pub cpu_ms: u64,
    pub uptime_ms: u64,
}

/// A finished span, as `longshore-trace` writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub trace_id: String,
    pub span_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
    /// The process that wrote it.
    pub service: String,
    pub name: String,
    /// Microseconds since 1970.
    pub start_us: u64,
    pub duration_us: u64,
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_as_documented() {
        let request = |request| RequestLine {
            version: 1,
            id: 7,
            request,
        };
        let share = Share {
            tag: "t".into(),
            path: "/p".into(),
            read_only: true,
        };
        let cases = [
            (
                request(Request::Hello),
                r#"{"version":1,"id":7,"method":"hello"}"#,
            ),
            (
                request(Request::MountShare(share)),
                r#"{"version":1,"id":7,"method":"mount_share","params":{"tag":"t","path":"/p","read_only":true}}"#,
            ),
            (
                request(Request::SetTime { unix_ns: 5 }),
                r#"{"version":1,"id":7,"method":"set_time","params":{"unix_ns":5}}"#,
            ),
        ];
        for (line, json) in cases {
            assert_eq!(serde_json::to_string(&line).unwrap(), json);
            assert_eq!(serde_json::from_str::<RequestLine>(json).unwrap(), line);
        }
        let replies = [
            (
                Outcome::Ok(Reply::Done),
                r#"{"version":1,"id":7,"ok":{"kind":"done"}}"#,
            ),
            (
                Outcome::Error("no".into()),
                r#"{"version":1,"id":7,"error":"no"}"#,
            ),
        ];
        for (outcome, json) in replies {
            let line = ReplyLine {
                version: 1,
                id: 7,
                outcome,
            };
            assert_eq!(serde_json::to_string(&line).unwrap(), json);
            assert_eq!(serde_json::from_str::<ReplyLine>(json).unwrap(), line);
        }
    }
}
