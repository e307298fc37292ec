//! Commands that tell: ps, list, events, features, spec; and update, which takes what events shows.

use std::io::{Read, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::capabilities;
use crate::cgroup;
use crate::cli::Invocation;
use crate::error::{Context, Error, Result};
use crate::rootfs::options;
use crate::spec::{Cpu, Memory, Pids, Resources};
use crate::state::{Directory, Status};

/// The specification version that this runtime implements.
pub const SPEC_VERSION: &str = "1.2.1";

fn print(text: &str) -> Result<i32> {
    writeln!(std::io::stdout(), "{text}").step(|| "write to stdout".to_owned())?;
    Ok(0)
}

fn print_json(value: &Value) -> Result<i32> {
    print(&serde_json::to_string_pretty(value).unwrap_or_default())
}

pub fn version() -> Result<i32> {
    print(&format!(
        "longshore-runtime version {}\nspec: {SPEC_VERSION}",
        env!("CARGO_PKG_VERSION")
    ))
}

pub fn ps(call: &Invocation) -> Result<i32> {
    let state = Directory::of(&call.global.root, call.id()?).load()?;
    let pids = cgroup::processes(&state.cgroup);
    if call.value("format") == Some("json") {
        return print(&serde_json::to_string(&pids).unwrap_or_default());
    }
    let mut table = format!("{:>8} CMD", "PID");
    for pid in pids {
        let raw = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&raw).replace('\0', " ");
        table.push_str(&format!("\n{pid:>8} {}", line.trim_end()));
    }
    print(&table)
}

pub fn list(call: &Invocation) -> Result<i32> {
    let root = &call.global.root;
    let mut names: Vec<String> = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    let containers = names.iter().filter_map(|name| {
        let directory = Directory::of(root, name);
        let state = directory.load().ok()?;
        let status = directory.status(&state);
        Some((state, status))
    });
    if call.is_set("quiet") {
        let ids: Vec<String> = containers.map(|(state, _)| state.id).collect();
        return if ids.is_empty() {
            Ok(0)
        } else {
            print(&ids.join("\n"))
        };
    }
    if call.value("format") == Some("json") {
        let list: Vec<Value> = containers
            .map(|(state, status)| json!(state.report(status)))
            .collect();
        return print(&Value::from(list).to_string());
    }
    let mut table = format!(
        "{:<32} {:>8} {:<10} {:<32} CREATED",
        "ID", "PID", "STATUS", "BUNDLE"
    );
    for (state, status) in containers {
        let pid = if status == Status::Stopped {
            0
        } else {
            state.pid
        };
        let bundle = state.bundle.display().to_string();
        table.push_str(&format!(
            "\n{:<32} {pid:>8} {:<10} {bundle:<32} {}",
            state.id,
            status.name(),
            state.created
        ));
    }
    print(&table)
}

pub fn events(call: &Invocation) -> Result<i32> {
    let directory = Directory::of(&call.global.root, call.id()?);
    let state = directory.load()?;
    if directory.status(&state) == Status::Stopped {
        return Err(Error::Config(format!(
            "container with id {} is not running",
            state.id
        )));
    }
    if !call.is_set("stats") {
        return Err(Error::Usage("events: only --stats is supported".to_owned()));
    }
    print(&cgroup::stats::event(&state.id, &state.cgroup).to_string())
}

/// The largest resources file that is read.
const RESOURCES_LIMIT: u64 = 1 << 20;

pub fn update(call: &Invocation) -> Result<i32> {
    let directory = Directory::of(&call.global.root, call.id()?);
    let _lock = directory.lock()?;
    let state = directory.load()?;
    if directory.status(&state) == Status::Stopped {
        return Err(Error::NotRunning);
    }
    let resources = match call.value("resources") {
        Some(source) => read_resources(source)?,
        None => resources_from_flags(call)?,
    };
    cgroup::resources::apply(&cgroup::directory(&state.cgroup), &resources)?;
    Ok(0)
}

fn read_resources(source: &str) -> Result<Resources> {
    let mut text = String::new();
    let read = if source == "-" {
        std::io::stdin()
            .take(RESOURCES_LIMIT)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(source)
            .and_then(|file| file.take(RESOURCES_LIMIT).read_to_string(&mut text))
    };
    read.step(|| format!("read {source}"))?;
    serde_json::from_str(&text).map_err(|error| Error::Parse {
        path: source.to_owned(),
        reason: error.to_string(),
    })
}

fn resources_from_flags(call: &Invocation) -> Result<Resources> {
    let positive = |name: &str| -> Result<Option<u64>> {
        call.number(name)?
            .map(|value| {
                u64::try_from(value)
                    .map_err(|_| Error::Usage(format!("invalid value {value} for flag -{name}")))
            })
            .transpose()
    };
    let text = |name: &str| call.value(name).unwrap_or_default().to_owned();
    Ok(Resources {
        memory: Some(Memory {
            limit: call.number("memory")?,
            reservation: call.number("memory-reservation")?,
            swap: call.number("memory-swap")?,
        }),
        cpu: Some(Cpu {
            shares: positive("cpu-share")?,
            quota: call.number("cpu-quota")?,
            burst: positive("cpu-burst")?,
            period: positive("cpu-period")?,
            cpus: text("cpuset-cpus"),
            mems: text("cpuset-mems"),
            idle: call.number("cpu-idle")?,
        }),
        pids: Some(Pids {
            limit: call.number("pids-limit")?,
        }),
        ..Resources::default()
    })
}

pub fn features() -> Result<i32> {
    let namespaces = [
        "cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts",
    ];
    let actions = [
        "ALLOW",
        "ERRNO",
        "KILL",
        "KILL_PROCESS",
        "KILL_THREAD",
        "LOG",
        "TRACE",
        "TRAP",
    ];
    let operators = ["EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE"];
    let architectures = ["AARCH64", "X32", "X86", "X86_64"];
    let prefixed = |prefix: &str, names: &[&str]| -> Vec<String> {
        names.iter().map(|name| format!("{prefix}{name}")).collect()
    };
    let flags = ["TSYNC", "SPEC_ALLOW", "LOG"];
    let hooks = [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    ];
    print_json(&json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": hooks,
        "mountOptions": options::known_words(),
        "linux": {
            "namespaces": namespaces,
            "capabilities": capabilities::NAMES.as_slice(),
            "cgroup": {
                "v1": false, "v2": true, "systemd": false, "systemdUser": false, "rdma": true,
            },
            "seccomp": {
                "enabled": true,
                "actions": prefixed("SCMP_ACT_", &actions),
                "operators": prefixed("SCMP_CMP_", &operators),
                "archs": prefixed("SCMP_ARCH_", &architectures),
                "knownFlags": prefixed("SECCOMP_FILTER_FLAG_", &flags),
                "supportedFlags": prefixed("SECCOMP_FILTER_FLAG_", &flags),
            },
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": true}},
        },
        "annotations": {
            "org.longshore.runtime.version": env!("CARGO_PKG_VERSION"),
        },
    }))
}

pub fn spec(call: &Invocation) -> Result<i32> {
    let path = Path::new(call.value("bundle").unwrap_or(".")).join("config.json");
    if path.exists() {
        return Err(Error::Config(format!(
            "File {} exists. Remove it first",
            path.display()
        )));
    }
    let text = serde_json::to_string_pretty(&default_spec()).unwrap_or_default();
    std::fs::write(&path, text + "\n").step(|| format!("write {}", path.display()))?;
    Ok(0)
}

fn default_spec() -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    let kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let namespaces: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
    json!({
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "longshore",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm",
                &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup",
                &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
                "/proc/scsi",
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_spec_is_one_that_we_read() {
        let spec: crate::spec::Spec = serde_json::from_value(default_spec()).unwrap();
        assert_eq!(spec.mounts.len(), 7);
        assert_eq!(spec.linux.namespaces.len(), 6);
    }
}
