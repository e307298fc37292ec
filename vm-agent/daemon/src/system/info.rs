//! `docker info`: the engine's settings and the machine it runs on.

use std::fs;

use longshore_protocol::engine_options;
use serde_json::{Map, Value, json};

use super::version::{VERSION, kernel_version};
use crate::config::{SNAPSHOTTER, Settings};
use crate::container::Status;
use crate::error::ApiResult;
use crate::state::{Daemon, hostname};

pub async fn describe(daemon: &Daemon) -> ApiResult<Value> {
    let containers = daemon.containers.list();
    let count = |wanted: fn(&Status) -> bool| {
        containers
            .iter()
            .filter(|container| wanted(&container.state.status))
            .count()
    };
    let images = daemon.images.all().await.unwrap_or_default();
    let ids: std::collections::BTreeSet<&str> = images
        .iter()
        .map(|image| image.target.digest.as_str())
        .collect();
    let settings = daemon.config.settings();
    let mut info = json!({
        "ID": daemon.engine_id,
        "Containers": containers.len(),
        "ContainersRunning": count(|status| matches!(status, Status::Running | Status::Restarting)),
        "ContainersPaused": count(|status| matches!(status, Status::Paused)),
        "ContainersStopped": count(|status| matches!(status, Status::Created | Status::Exited | Status::Dead)),
        "Images": ids.len(),
        "Driver": SNAPSHOTTER,
        "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
            "Authorization": null,
            "Log": ["json-file", "local", "none"],
        },
        "LoggingDriver": settings.string("log-driver").unwrap_or("json-file"),
        "RegistryConfig": registry_config(&settings),
        "Debug": settings.flag("debug", false),
        "DockerRootDir": daemon.config.options.data_root,
        "Labels": settings.labels(),
        "Runtimes": runtimes(settings.daemon_json.get("runtimes")),
        "DefaultRuntime": settings.string("default-runtime").unwrap_or("longshore"),
        "LiveRestoreEnabled": true,
        "Containerd": {
            "Address": daemon.config.options.containerd,
            "Namespaces": { "Containers": crate::config::NAMESPACE, "Plugins": "plugins.moby" },
        },
    });
    merge(&mut info, proxies(settings.daemon_json.get("proxies")));
    if let Some(pools) = address_pools(settings.daemon_json.get("default-address-pools")) {
        info["DefaultAddressPools"] = pools;
    }
    merge(&mut info, machine());
    merge(&mut info, fixed());
    Ok(info)
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// What the kernel says of the machine.
fn machine() -> Value {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let architecture = nix::sys::utsname::uname().map_or_else(
        |_| String::new(),
        |name| name.machine().to_string_lossy().into_owned(),
    );
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let descriptors = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    json!({
        "NFd": descriptors,
        "NGoroutines": fs::read_dir("/proc/self/task").map_or(0, Iterator::count),
        "SystemTime": chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true),
        "KernelVersion": kernel_version(),
        "OperatingSystem": os_release(&read("/etc/os-release"), "PRETTY_NAME"),
        "OSVersion": os_release(&read("/etc/os-release"), "VERSION_ID"),
        "OSType": "linux",
        "Architecture": architecture,
        "NCPU": cpus,
        "MemTotal": memory_total(&read("/proc/meminfo")),
        "Name": hostname(),
        "IPv4Forwarding": read("/proc/sys/net/ipv4/ip_forward").trim() == "1",
        "MemoryLimit": has_controller("memory"),
        "SwapLimit": fs::exists("/sys/fs/cgroup/docker/memory.swap.max").unwrap_or(false)
            || has_controller("memory") && read("/proc/swaps").lines().count() > 0,
        "CpuCfsPeriod": has_controller("cpu"),
        "CpuCfsQuota": has_controller("cpu"),
        "CPUShares": has_controller("cpu"),
        "CPUSet": has_controller("cpuset"),
        "PidsLimit": has_controller("pids"),
    })
}

fn has_controller(name: &str) -> bool {
    fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
        .is_ok_and(|list| list.split_whitespace().any(|controller| controller == name))
}

/// Bytes of memory, from `MemTotal` in kB.
fn memory_total(meminfo: &str) -> u64 {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

fn os_release(text: &str, key: &str) -> String {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_default().trim_matches('"').to_owned()
}

/// Without the names and passwords in them.
fn proxies(configured: Option<&Value>) -> Value {
    let told = |key: &str| {
        let url = configured.and_then(|proxies| proxies.get(key)?.as_str());
        engine_options::without_secrets(url.unwrap_or_default())
    };
    json!({
        "HttpProxy": told("http-proxy"),
        "HttpsProxy": told("https-proxy"),
        "NoProxy": told("no-proxy"),
    })
}

fn address_pools(configured: Option<&Value>) -> Option<Value> {
    let pools = configured?.as_array()?.iter();
    Some(
        pools
            .map(|pool| json!({ "Base": pool["base"], "Size": pool["size"] }))
            .collect(),
    )
}

/// Ours, and those that are configured.
fn runtimes(configured: Option<&Value>) -> Value {
    let mut found = Map::new();
    for (name, path) in [
        ("longshore", "/usr/bin/longshore-runtime"),
        ("runc", "/usr/bin/runc"),
        ("crun", "/usr/bin/crun"),
    ] {
        if name == "longshore" || fs::exists(path).unwrap_or(false) {
            found.insert(name.to_owned(), json!({ "path": path }));
        }
    }
    found.insert(
        "io.containerd.longshore.v2".to_owned(),
        json!({ "path": "/usr/bin/longshore-runtime" }),
    );
    for (name, told) in configured.and_then(Value::as_object).into_iter().flatten() {
        found.insert(name.clone(), told.clone());
    }
    Value::Object(found)
}

fn registry_config(settings: &Settings) -> Value {
    let insecure = settings.strings("insecure-registries");
    let mirrors = settings.strings("registry-mirrors");
    let mirrors = mirrors
        .iter()
        .map(|url| format!("{}/", url.trim_end_matches('/')));
    let mirrors: Vec<String> = mirrors.collect();
    let mut indexes = Map::new();
    let entry = |name: &str, official: bool| json!({ "Mirrors": [], "Name": name, "Official": official, "Secure": official });
    let mut official = entry("docker.io", true);
    official["Mirrors"] = json!(mirrors);
    indexes.insert("docker.io".to_owned(), official);
    let mut networks = vec!["::1/128".to_owned(), "127.0.0.0/8".to_owned()];
    for registry in &insecure {
        match registry.contains('/') && !registry.contains("://") {
            true => networks.push(registry.clone()),
            false => drop(indexes.insert(registry.clone(), entry(registry, false))),
        }
    }
    json!({ "IndexConfigs": indexes, "InsecureRegistryCIDRs": networks, "Mirrors": (!mirrors.is_empty()).then_some(mirrors) })
}

/// What is the same on every machine.
fn fixed() -> Value {
    json!({
        "OomKillDisable": false,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2",
        "NEventsListener": 0,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "GenericResources": null,
        "ExperimentalBuild": false,
        "ServerVersion": VERSION,
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": false,
            "Error": "",
            "RemoteManagers": null,
        },
        "Isolation": "",
        "InitBinary": "longshore-runtime",
        "ContainerdCommit": { "ID": VERSION },
        "RuncCommit": { "ID": VERSION },
        "InitCommit": { "ID": VERSION },
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
        "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"],
        "Warnings": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_files_are_read() {
        assert_eq!(
            memory_total("MemFree: 1 kB\nMemTotal:  2048 kB\n"),
            2048 * 1024
        );
        assert_eq!(
            os_release("ID=debian\nPRETTY_NAME=\"Debian 13\"\n", "PRETTY_NAME"),
            "Debian 13"
        );
    }

    #[test]
    fn insecure_registries_are_listed_by_kind() {
        let daemon_json = json!({
            "insecure-registries": ["10.0.2.2:5000", "192.168.0.0/16"],
            "registry-mirrors": ["https://mirror.example.org"],
        });
        let config = registry_config(&Settings {
            daemon_json: daemon_json.as_object().cloned().unwrap_or_default(),
            ..Settings::default()
        });
        assert_eq!(config["IndexConfigs"]["10.0.2.2:5000"]["Secure"], false);
        assert_eq!(config["InsecureRegistryCIDRs"][2], "192.168.0.0/16");
        assert_eq!(config["IndexConfigs"]["docker.io"]["Official"], true);
        let mirrors = json!(["https://mirror.example.org/"]);
        assert_eq!(config["Mirrors"], mirrors);
        assert_eq!(config["IndexConfigs"]["docker.io"]["Mirrors"], mirrors);
    }
}
