//! The OCI runtime specification of a container, as Docker would write it.

pub mod capabilities;
mod mounts;
pub mod resources;
mod seccomp;
pub mod user;

pub use mounts::source as mount_source;

use super::config::HostConfig;
use super::record::Container;
use crate::error::{ApiError, ApiResult};
use serde_json::{Map, Value, json};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where every OCI runtime looks for its specification version.
const OCI_VERSION: &str = "1.2.0";

pub const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
pub const READONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What the specification needs beside the container itself.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// Where resolv.conf, hosts and hostname are.
    pub folder: PathBuf,
    /// `None`: the guest's own network.
    pub network_namespace: Option<PathBuf>,
    pub user: user::User,
    pub init: Option<PathBuf>,
    /// Process 1 of the containers whose namespaces are joined.
    pub pid_peer: Option<u32>,
    pub ipc_peer: Option<u32>,
    pub swap_limit: bool,
    pub default_ulimits: Vec<super::config::Ulimit>,
    /// The engine's `no-new-privileges`, for containers that say nothing of it.
    pub no_new_privileges: bool,
    /// Variables of what it links to.
    pub linked: Vec<String>,
}

pub fn generate(container: &Container, around: &Surroundings) -> ApiResult<Value> {
    let host = &container.host_config;
    let capabilities = capabilities::of(host);
    let (device_nodes, device_rules) = devices(host)?;
    let mut limits = resources::limits(&host.resources, around.swap_limit);
    limits.insert(
        "devices".to_owned(),
        json!(resources::device_rules(host, &device_rules)),
    );
    let mut linux = json!({
        "cgroupsPath": cgroup_path(container),
        "namespaces": namespaces(host, around),
        "resources": limits,
        "sysctl": sysctls(host, around),
        "devices": device_nodes,
    });
    if !host.privileged {
        linux["maskedPaths"] = json!(host.masked_paths.as_deref().unwrap_or_default());
        linux["readonlyPaths"] = json!(host.readonly_paths.as_deref().unwrap_or_default());
    }
    if let Some(profile) = seccomp_profile(host, &capabilities)? {
        linux["seccomp"] = profile;
    }
    if host.privileged
        || container
            .mounts
            .iter()
            .any(|point| point.propagation.contains("shared"))
    {
        linux["rootfsPropagation"] = json!(propagation(container));
    }
    let mut spec = json!({
        "ociVersion": OCI_VERSION,
        "process": process(container, around, &capabilities),
        "root": { "path": "rootfs", "readonly": host.readonly_rootfs },
        "mounts": mounts::all(container, &around.folder, around.init.as_deref(), around.ipc_peer)?,
        "linux": linux,
    });
    if host.uts_mode != "host" {
        spec["hostname"] = json!(container.config.hostname);
        if !container.config.domainname.is_empty() {
            spec["domainname"] = json!(container.config.domainname);
        }
    }
    if !host.annotations.is_empty() {
        spec["annotations"] = json!(host.annotations);
    }
    Ok(spec)
}

fn propagation(container: &Container) -> &'static str {
    let has = |word: &str| {
        container
            .mounts
            .iter()
            .any(|point| point.propagation.contains(word))
    };
    match () {
        () if has("shared") => "rshared",
        () if has("slave") => "rslave",
        () => "rprivate",
    }
}

fn process(container: &Container, around: &Surroundings, capabilities: &[String]) -> Value {
    let (config, host) = (&container.config, &container.host_config);
    let mut args = Vec::new();
    if around.init.is_some() {
        args.extend(["/sbin/docker-init".to_owned(), "--".to_owned()]);
    }
    args.push(container.path.clone());
    args.extend(container.args.iter().cloned());
    // Others than root get theirs from files only, as under Docker.
    let effective: &[String] = if around.user.uid == 0 {
        capabilities
    } else {
        &[]
    };
    let cwd = if config.working_dir.is_empty() {
        "/"
    } else {
        &config.working_dir
    };
    let mut process = json!({
        "user": around.user,
        "args": args,
        "env": environment(container, &around.user.home, config.tty, &around.linked, &[]),
        "cwd": cwd,
        "terminal": config.tty,
        "capabilities": {
            "bounding": capabilities,
            "effective": effective,
            "permitted": effective,
        },
        "oomScoreAdj": host.oom_score_adj,
    });
    if config.tty && host.console_size != [0, 0] {
        let [height, width] = host.console_size;
        process["consoleSize"] = json!({ "height": height, "width": width });
    }
    let told = security_option(host, "no-new-privileges").is_some();
    if no_new_privileges(host) || around.no_new_privileges && !told {
        process["noNewPrivileges"] = json!(true);
    }
    let limits = rlimits(host, &around.default_ulimits);
    if !limits.is_empty() {
        process["rlimits"] = json!(limits);
    }
    process
}

/// The user's variables over the defaults and those of links; one without `=` removes.
pub fn environment(
    container: &Container,
    home: &str,
    tty: bool,
    linked: &[String],
    more: &[String],
) -> Vec<String> {
    let mut base = vec![
        PATH.to_owned(),
        format!("HOSTNAME={}", container.config.hostname),
    ];
    if tty {
        base.push("TERM=xterm".to_owned());
    }
    base.extend_from_slice(linked);
    let mut variables =
        overlay_environment(base, container.config.env.iter().flatten().chain(more));
    if !home.is_empty()
        && !variables
            .iter()
            .any(|variable| variable.starts_with("HOME="))
    {
        variables.push(format!("HOME={home}"));
    }
    variables
}

/// `base` with `changes` over it: same name replaced in place, others behind, names alone removed.
pub fn overlay_environment<'a>(
    mut base: Vec<String>,
    changes: impl Iterator<Item = &'a String>,
) -> Vec<String> {
    let name_of = |variable: &str| variable.split_once('=').map(|(name, _)| name.to_owned());
    for change in changes {
        match name_of(change) {
            None => base.retain(|have| name_of(have).as_deref() != Some(change)),
            Some(name) => match base
                .iter_mut()
                .find(|have| name_of(have).as_deref() == Some(&name))
            {
                Some(have) => have.clone_from(change),
                None => base.push(change.clone()),
            },
        }
    }
    base
}

fn namespaces(host: &HostConfig, around: &Surroundings) -> Vec<Value> {
    let mut list = vec![json!({ "type": "mount" })];
    if let Some(path) = &around.network_namespace {
        list.push(match path.as_os_str().is_empty() {
            true => json!({ "type": "network" }),
            false => json!({ "type": "network", "path": path }),
        });
    }
    if host.uts_mode != "host" {
        list.push(json!({ "type": "uts" }));
    }
    let mut joinable = |kind: &str, file: &str, mode: &str, peer: Option<u32>| {
        if let Some(pid) = peer {
            list.push(json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") }));
        } else if mode != "host" {
            list.push(json!({ "type": kind }));
        }
    };
    joinable("pid", "pid", &host.pid_mode, around.pid_peer);
    joinable("ipc", "ipc", &host.ipc_mode, around.ipc_peer);
    if host.cgroupns_mode != "host" {
        list.push(json!({ "type": "cgroup" }));
    }
    list
}

fn sysctls(host: &HostConfig, around: &Surroundings) -> Map<String, Value> {
    let mut map = Map::new();
    let own_network =
        around.network_namespace.is_some() && !host.network_mode.starts_with("container:");
    if own_network {
        map.insert("net.ipv4.ip_unprivileged_port_start".into(), json!("0"));
        map.insert("net.ipv4.ping_group_range".into(), json!("0 2147483647"));
    }
    map.extend(
        host.sysctls
            .iter()
            .map(|(name, value)| (name.clone(), json!(value))),
    );
    map
}

/// `/docker/<id>`, or under the parent that was asked for.
pub fn cgroup_path(container: &Container) -> String {
    let parent = container
        .host_config
        .resources
        .cgroup_parent
        .trim_matches('/');
    let parent = if parent.is_empty() { "docker" } else { parent };
    format!("/{parent}/{}", container.id)
}

/// The value of a `--security-opt` (`name=value` or `name:value`); empty for the name alone.
fn security_option<'a>(host: &'a HostConfig, name: &str) -> Option<&'a str> {
    host.security_opt.iter().flatten().find_map(|option| {
        let rest = option.strip_prefix(name)?;
        match rest.chars().next() {
            None => Some(""),
            Some('=' | ':') => Some(&rest[1..]),
            Some(_) => None,
        }
    })
}

pub fn no_new_privileges(host: &HostConfig) -> bool {
    security_option(host, "no-new-privileges").is_some_and(|value| matches!(value, "" | "true"))
}

fn seccomp_profile(host: &HostConfig, capabilities: &[String]) -> ApiResult<Option<Value>> {
    match security_option(host, "seccomp") {
        Some("unconfined") => Ok(None),
        Some("builtin" | "") => Ok(Some(seccomp::default_profile(capabilities))),
        Some(text) => seccomp::custom_profile(text).map(Some),
        None if host.privileged => Ok(None),
        None => Ok(Some(seccomp::default_profile(capabilities))),
    }
}

/// Refuses a `--security-opt` that would be ignored.
pub fn check_security_options(host: &HostConfig) -> ApiResult<()> {
    for option in host.security_opt.iter().flatten() {
        let name = option.split(['=', ':']).next().unwrap_or_default();
        let known = [
            "seccomp",
            "no-new-privileges",
            "apparmor",
            "label",
            "systempaths",
            "writable-cgroups",
        ];
        if !known.contains(&name) {
            // Docker numbers the checks: the first is for a value, the second for the name.
            let check = if option.contains(['=', ':']) { 2 } else { 1 };
            return Err(ApiError::internal(format!(
                "invalid --security-opt {check}: {option:?}"
            )));
        }
    }
    Ok(())
}

fn rlimits(host: &HostConfig, defaults: &[super::config::Ulimit]) -> Vec<Value> {
    let mut limits: Vec<&super::config::Ulimit> = host.resources.ulimits.iter().flatten().collect();
    for default in defaults {
        if !limits.iter().any(|limit| limit.name == default.name) {
            limits.push(default);
        }
    }
    // -1 is "unlimited", which the kernel knows as the largest number.
    let number = |value: i64| value as u64;
    limits
        .into_iter()
        .filter_map(|limit| Some((rlimit_name(&limit.name)?, limit)))
        .map(|(name, limit)| json!({ "type": name, "soft": number(limit.soft), "hard": number(limit.hard) }))
        .collect()
}

/// `nofile` → `RLIMIT_NOFILE`.
pub fn rlimit_name(name: &str) -> Option<String> {
    const KNOWN: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    KNOWN
        .contains(&name)
        .then(|| format!("RLIMIT_{}", name.to_ascii_uppercase()))
}

/// Nodes and cgroup rules of `--device`, or of every device of the guest for `--privileged`.
fn devices(host: &HostConfig) -> ApiResult<(Vec<Value>, Vec<Value>)> {
    let (mut nodes, mut rules) = (Vec::new(), Vec::new());
    if host.privileged {
        guest_devices(Path::new("/dev"), &mut nodes);
        return Ok((nodes, rules));
    }
    for device in host.resources.devices.iter().flatten() {
        let source = &device.path_on_host;
        let gone = |why: String| {
            ApiError::bad_request(format!(
                "error gathering device information while adding custom device \"{source}\": {why}"
            ))
        };
        let target = if device.path_in_container.is_empty() {
            source
        } else {
            &device.path_in_container
        };
        let real = std::fs::canonicalize(source)
            .map_err(|_| gone("no such file or directory".to_owned()))?;
        let node =
            device_node(&real, target).ok_or_else(|| gone("not a device node".to_owned()))?;
        let access = match device.cgroup_permissions.as_str() {
            "" => "rwm",
            other => other,
        };
        rules.push(json!({
            "allow": true, "type": node["type"], "major": node["major"], "minor": node["minor"], "access": access,
        }));
        nodes.push(node);
    }
    Ok((nodes, rules))
}

fn device_node(path: &Path, target: &str) -> Option<Value> {
    let metadata = std::fs::metadata(path).ok()?;
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        _ => return None,
    };
    Some(json!({
        "path": target,
        "type": kind,
        "major": nix::sys::stat::major(metadata.rdev()),
        "minor": nix::sys::stat::minor(metadata.rdev()),
        "fileMode": metadata.mode() & 0o777,
        "uid": metadata.uid(),
        "gid": metadata.gid(),
    }))
}

/// Every device node under /dev but those that a container has of its own.
fn guest_devices(folder: &Path, nodes: &mut Vec<Value>) {
    const OWN: [&str; 6] = ["pts", "shm", "fd", "mqueue", "console", ".lxc"];
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if OWN.iter().any(|own| name == *own) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => guest_devices(&path, nodes),
            Ok(kind) if !kind.is_symlink() => {
                nodes.extend(device_node(&path, &path.to_string_lossy()))
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Fixed;
    use super::*;

    fn container(change: impl FnOnce(&mut Fixed)) -> Container {
        let mut fixed = Fixed {
            id: "abc".into(),
            path: "sleep".into(),
            args: vec!["1".into()],
            ..Fixed::default()
        };
        fixed.config.hostname = "host1".into();
        fixed.host_config.shm_size = 64 << 20;
        change(&mut fixed);
        Container::new(fixed, Default::default())
    }

    fn around() -> Surroundings {
        Surroundings {
            network_namespace: Some("/run/docker/netns/abc".into()),
            user: user::User {
                home: "/root".into(),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    #[test]
    fn a_plain_container_is_confined() {
        let spec = generate(&container(|_| {}), &around()).unwrap();
        assert_eq!(spec["process"]["args"], json!(["sleep", "1"]));
        assert_eq!(spec["process"]["cwd"], "/");
        assert_eq!(
            spec["process"]["env"],
            json!([PATH, "HOSTNAME=host1", "HOME=/root"])
        );
        assert_eq!(spec["linux"]["cgroupsPath"], "/docker/abc");
        assert_eq!(
            spec["linux"]["namespaces"][1],
            json!({ "type": "network", "path": "/run/docker/netns/abc" })
        );
        assert_eq!(spec["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
        assert_eq!(spec["process"]["oomScoreAdj"], 0);
        assert_eq!(spec["hostname"], "host1");
    }

    #[test]
    fn privileged_opens_and_others_lose_capabilities() {
        let spec = generate(&container(|c| c.host_config.privileged = true), &around()).unwrap();
        assert!(spec["linux"].get("seccomp").is_none());
        assert_eq!(
            spec["process"]["capabilities"]["effective"]
                .as_array()
                .unwrap()
                .len(),
            41
        );
        let mut web = around();
        web.user.uid = 1000;
        let spec = generate(&container(|_| {}), &web).unwrap();
        assert_eq!(spec["process"]["capabilities"]["effective"], json!([]));
        assert_eq!(
            spec["process"]["capabilities"]["bounding"]
                .as_array()
                .unwrap()
                .len(),
            14
        );
    }

    #[test]
    fn init_goes_before_the_program() {
        let surroundings = Surroundings {
            init: Some("/usr/bin/init".into()),
            ..around()
        };
        let spec = generate(&container(|_| {}), &surroundings).unwrap();
        assert_eq!(
            spec["process"]["args"],
            json!(["/sbin/docker-init", "--", "sleep", "1"])
        );
        let mounts = spec["mounts"].as_array().unwrap();
        assert!(
            mounts
                .iter()
                .any(|mount| mount["destination"] == "/sbin/docker-init")
        );
    }

    #[test]
    fn namespaces_follow_the_modes() {
        let host = container(|c| {
            c.host_config.pid_mode = "host".into();
            c.host_config.uts_mode = "host".into();
            c.host_config.ipc_mode = "container:x".into();
        });
        let surroundings = Surroundings {
            ipc_peer: Some(7),
            ..Surroundings::default()
        };
        let spec = generate(&host, &surroundings).unwrap();
        let kinds: Vec<&str> = spec["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|ns| ns["type"].as_str())
            .collect();
        assert_eq!(kinds, ["mount", "ipc", "cgroup"]);
        assert_eq!(spec["linux"]["namespaces"][1]["path"], "/proc/7/ns/ipc");
        assert!(spec.get("hostname").is_none());
    }

    #[test]
    fn variables_replace_add_and_remove() {
        let own = |list: &[&str]| list.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
        let changes = own(&["A=2", "C=3", "B"]);
        assert_eq!(
            overlay_environment(own(&["A=1", "B=1"]), changes.iter()),
            own(&["A=2", "C=3"])
        );
    }

    #[test]
    fn security_options_are_found_in_both_forms() {
        let mut host = HostConfig {
            security_opt: Some(vec!["seccomp=unconfined".into()]),
            ..Default::default()
        };
        assert!(seccomp_profile(&host, &[]).unwrap().is_none());
        host.security_opt = Some(vec!["no-new-privileges:true".into()]);
        assert_eq!(security_option(&host, "no-new-privileges"), Some("true"));
        host.security_opt = Some(vec!["frobnicate=1".into()]);
        assert!(check_security_options(&host).is_err());
    }
}
