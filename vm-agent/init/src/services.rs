//! Which services there are.

use crate::service::Kind::{Daemon, OneShot};
use crate::service::Plan;

/// Prepares the data disk; what needs the disk waits for it.
pub const PREPARE_DISK: &str = "prepare-disk";
/// Told of a shutdown first, so that no restart policy brings containers back.
pub const DAEMON: &str = "daemon";

/// In the order in which they are started.
pub const SERVICES: &[Plan] = &[
    Plan {
        name: PREPARE_DISK,
        kind: OneShot,
        program: c"/usr/bin/longshore-agent",
        arguments: &[c"prepare-disk"],
        cgroup: "agent",
        sockets: &[],
        after: None,
    },
    Plan {
        name: "agent",
        kind: Daemon,
        program: c"/usr/bin/longshore-agent",
        arguments: &[],
        cgroup: "agent",
        sockets: &[("/run/longshore/agent.sock", "local")],
        after: None,
    },
    Plan {
        name: "supervisor",
        kind: Daemon,
        program: c"/usr/bin/longshore-supervisor",
        arguments: &[],
        cgroup: "supervisor",
        sockets: &[
            ("/run/containerd/containerd.sock", "grpc"),
            ("/run/containerd/containerd.sock.ttrpc", "ttrpc"),
        ],
        after: Some(PREPARE_DISK),
    },
    Plan {
        name: DAEMON,
        kind: Daemon,
        program: c"/usr/bin/longshore-daemon",
        arguments: &[],
        cgroup: "daemon",
        sockets: &[("/run/docker.sock", "docker")],
        after: Some(PREPARE_DISK),
    },
];
