//! What `longshore-vm` is told and tells on `vm/vm.sock`: JSON lines, answered by `id`.
//!
//! ```text
//! → {"id":1,"method":"watch"}
//! ← {"id":1,"ok":{"kind":"state","value":{"state":"starting","stage":"kernel"}}}
//! ← {"id":1,"ok":{"kind":"state","value":{"state":"running",…}}}          one line for each change
//! → {"id":2,"method":"stop","params":{"deadline_ms":10000,"force":false}}
//! ← {"id":2,"ok":{"kind":"done"}}                                          once the VM has stopped
//! ```
//! The process ends after the VM has stopped or failed; a watcher sees the last state first, then EOF.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Version of these messages; [`Request::Version`] tells it.
pub const VERSION: u32 = 1;

/// One line to `longshore-vm`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestLine {
    /// Chosen by the client; every reply carries it back.
    pub id: u64,
    #[serde(flatten)]
    pub request: Request,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
pub enum Request {
    /// Answered by [`Reply::Version`].
    Version,
    /// The state now; answered by [`Reply::State`].
    State,
    /// The state now and at every change, until the connection ends.
    Watch,
    /// Orderly power-off; after `deadline_ms` (10 s when left out), or at once with `force`, QEMU is ended the hard way.
    /// Answered when QEMU is gone.
    Stop {
        #[serde(default = "default_deadline_ms")]
        deadline_ms: u64,
        #[serde(default)]
        force: bool,
    },
    /// Stops the guest's CPUs.
    Pause,
    /// Lets the CPUs run, also after [`PauseReason::DiskFull`] or [`PauseReason::DiskError`]: the failed write is tried again.
    Resume,
    /// Plugs a folder into the running guest; the agent still has to mount it (`control::Request::MountShare`).
    AddShare(ShareConfig),
    /// Unplugs it; unmount it in the guest first.
    RemoveShare { tag: String },
    /// Grows the data disk to `bytes`; never shrinks it. The guest sees the new size at once, its file system is grown at
    /// the next boot.
    GrowDisk { bytes: u64 },
}

fn default_deadline_ms() -> u64 {
    10_000
}

/// A host folder for the guest, served over virtiofs.
///
/// Without `socket`, `longshore-vm` starts `longshore-file-share --fd 3 --shared-dir PATH --tag TAG [--read-only] [--mask PATH]…` beside
/// itself, with a listening vhost-user socket as descriptor 3, and ends it with the VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareConfig {
    /// The virtiofs tag: 1 to 36 bytes of `[A-Za-z0-9_.-]`.
    pub tag: String,
    /// The folder on the host, absolute.
    pub path: PathBuf,
    #[serde(default)]
    pub read_only: bool,
    /// Absolute paths that the guest does not see, wherever they lie in the folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masks: Vec<PathBuf>,
    /// The listening vhost-user socket of a file server that somebody else runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

/// One line from `longshore-vm`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplyLine {
    pub id: u64,
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Ok(Reply),
    Error(ControlError),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum Reply {
    Version(VersionInfo),
    State(VmState),
    Done,
}

/// What went wrong with a request, for people, and a code for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ControlError {
    pub code: ErrorCode,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The line is no request.
    BadRequest,
    /// The VM's state does not allow it.
    WrongState,
    /// It was tried and failed.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// [`VERSION`] of the serving process.
    pub protocol: u32,
    /// Version of `longshore-vm`.
    pub vm: String,
    pub pid: u32,
}

/// Where the VM stands. The machine's drawing is in `machine.rs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum VmState {
    /// Powered off in order; `reason` says by whom.
    Stopped {
        reason: String,
    },
    Starting {
        stage: Stage,
    },
    Running(Running),
    Paused {
        reason: PauseReason,
        /// For people.
        message: String,
    },
    Stopping,
    Failed(Failure),
}

/// The stages of a start, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// QEMU, memory, disk space and the guest image's checksums are looked at.
    Check,
    /// An accelerator is chosen by booting a guest on it.
    Accelerator,
    /// QEMU's process is started and answers QMP.
    Qemu,
    /// The guest's kernel runs: first sign of life on the console.
    Kernel,
    /// The guest's agent answers on the channel.
    Channel,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Check => "check",
            Self::Accelerator => "accelerator",
            Self::Qemu => "qemu",
            Self::Kernel => "kernel",
            Self::Channel => "channel",
        })
    }
}

/// A VM whose agent answers on the channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// `kvm`, `hvf`, `whpx` or `tcg`.
    pub accelerator: String,
    /// Why this one, for people: `kvm: no guest booted within 2.5 s; tcg booted`.
    pub accelerator_reason: String,
    /// `vsock` or `serial`.
    pub channel: String,
    pub qemu_version: String,
    pub qemu_pid: u32,
    pub cpus: u32,
    pub memory_bytes: u64,
    /// Size of the data disk as the guest sees it.
    pub disk_bytes: u64,
    /// Milliseconds that each stage took.
    pub boot: Vec<StageTime>,
    /// What a user should know though the VM runs.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageTime {
    pub stage: Stage,
    pub ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseReason {
    /// [`Request::Pause`].
    Asked,
    /// The host's disk has no room for a write of the guest; goes on by itself when there is room again.
    DiskFull,
    /// The host could not read or write the disk image.
    DiskError,
}

/// Why there is no VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Empty when it had been running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// One sentence: what failed and why.
    pub reason: String,
    /// What the user can do, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// The last lines of QEMU's stderr and of the guest's console.
    pub log: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_as_documented() {
        let requests = [
            (Request::Watch, r#"{"id":1,"method":"watch"}"#),
            (
                Request::Stop {
                    deadline_ms: 10_000,
                    force: false,
                },
                r#"{"id":1,"method":"stop","params":{"deadline_ms":10000,"force":false}}"#,
            ),
        ];
        for (request, json) in requests {
            let line = RequestLine { id: 1, request };
            assert_eq!(serde_json::to_string(&line).unwrap(), json);
            assert_eq!(serde_json::from_str::<RequestLine>(json).unwrap(), line);
        }
        let short: RequestLine =
            serde_json::from_str(r#"{"id":2,"method":"stop","params":{}}"#).unwrap();
        assert_eq!(
            short.request,
            Request::Stop {
                deadline_ms: 10_000,
                force: false
            }
        );
        let state = VmState::Starting {
            stage: Stage::Kernel,
        };
        let line = ReplyLine {
            id: 1,
            outcome: Outcome::Ok(Reply::State(state)),
        };
        let json =
            r#"{"id":1,"ok":{"kind":"state","value":{"state":"starting","stage":"kernel"}}}"#;
        assert_eq!(serde_json::to_string(&line).unwrap(), json);
        assert_eq!(serde_json::from_str::<ReplyLine>(json).unwrap(), line);
    }
}
