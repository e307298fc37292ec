//! Checks of a create request that need nothing but the request and this machine, in Docker's words.

use super::config::{ContainerConfig, HealthConfig, HostConfig, Resources, RestartPolicy};
use super::spec::capabilities;
use crate::error::{ApiError, ApiResult};

/// Docker's least memory limit.
const LEAST_MEMORY: i64 = 6 << 20;

fn invalid<T>(message: impl Into<String>) -> ApiResult<T> {
    Err(ApiError::bad_request(message))
}

/// What the machine offers.
pub struct Machine {
    pub cpus: usize,
    pub swap_limit: bool,
}

impl Machine {
    pub fn detect() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let path = own
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .unwrap_or("/")
            .to_owned();
        let swap_limit = std::path::Path::new("/sys/fs/cgroup")
            .join(path.trim_start_matches('/'))
            .join("memory.swap.max")
            .exists();
        Machine { cpus, swap_limit }
    }
}

/// What a container cannot have of its own when it shares another's network.
pub fn shared_network(config: &ContainerConfig, host: &HostConfig) -> ApiResult<()> {
    let Some(peer) = host.network_mode.strip_prefix("container:") else {
        return Ok(());
    };
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let bindings = host.port_bindings.as_ref();
    let publishes = host.publish_all_ports || bindings.is_some_and(|ports| !ports.is_empty());
    let rules = [
        (
            peer.is_empty(),
            "invalid container format container:<name|id>",
        ),
        (
            !config.hostname.is_empty(),
            "conflicting options: hostname and the network mode",
        ),
        (
            some(&host.links),
            "conflicting options: container type network can't be used with links. This would result in undefined behavior",
        ),
        (
            some(&host.dns),
            "conflicting options: dns and the network mode",
        ),
        (
            some(&host.extra_hosts),
            "conflicting options: custom host-to-IP mapping and the network mode",
        ),
        (
            publishes,
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            !config.exposed_ports.is_empty(),
            "conflicting options: port exposing and the container type network mode",
        ),
    ];
    match rules.iter().find(|(broken, _)| *broken) {
        Some((_, words)) => invalid(*words),
        None => Ok(()),
    }
}

/// `--add-host`: `name:address`, where the address may be `host-gateway`.
fn extra_hosts(hosts: &[String]) -> ApiResult<()> {
    for host in hosts {
        let Some((_, address)) = host.split_once(':').filter(|(name, _)| !name.is_empty()) else {
            return invalid(format!("bad format for add-host: {host:?}"));
        };
        let plain = address.trim_matches(['[', ']']);
        if plain != "host-gateway" && plain.parse::<std::net::IpAddr>().is_err() {
            return invalid(format!("invalid IP address in add-host: {address:?}"));
        }
    }
    Ok(())
}

pub fn config(config: &ContainerConfig) -> ApiResult<()> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        ));
    }
    for variable in config.env.iter().flatten() {
        if variable.is_empty() || variable.starts_with('=') {
            return invalid(format!("invalid environment variable: {variable}"));
        }
    }
    if !config.stop_signal.is_empty() {
        super::signal::parse(&config.stop_signal)?;
    }
    if let Some(health) = &config.healthcheck {
        health_check(health)?;
    }
    if config.hostname.len() > 64 {
        return invalid(format!("invalid hostname: {}", config.hostname));
    }
    Ok(())
}

fn health_check(health: &HealthConfig) -> ApiResult<()> {
    const LEAST: i64 = 1_000_000;
    let durations = [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ];
    if let Some((name, _)) = durations
        .iter()
        .find(|(_, nanoseconds)| *nanoseconds != 0 && *nanoseconds < LEAST)
    {
        return invalid(format!("{name} in Healthcheck cannot be less than 1ms"));
    }
    match health.retries {
        ..0 => invalid("Retries in Healthcheck cannot be negative"),
        _ => Ok(()),
    }
}

pub fn host(host: &HostConfig, machine: &Machine) -> ApiResult<()> {
    resources(&host.resources, machine)?;
    restart_policy(&host.restart_policy)?;
    if host.auto_remove && !matches!(host.restart_policy.name.as_str(), "" | "no") {
        return invalid("can't create 'AutoRemove' container with restart policy");
    }
    if host.shm_size < 0 {
        return invalid("SHM size can not be less than 0");
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        ));
    }
    for (field, list) in [("CapAdd", &host.cap_add), ("CapDrop", &host.cap_drop)] {
        for name in list.iter().flatten() {
            if capabilities::normalize(name).is_none() {
                let upper = name.to_ascii_uppercase();
                let full = if upper.starts_with("CAP_") {
                    upper
                } else {
                    format!("CAP_{upper}")
                };
                return invalid(format!("invalid {field}: unknown capability: \"{full}\""));
            }
        }
    }
    mode(
        "IPC",
        &host.ipc_mode,
        &["", "none", "private", "shareable", "host"],
    )?;
    mode("PID", &host.pid_mode, &["", "host"])?;
    mode("UTS", &host.uts_mode, &["", "host"])?;
    extra_hosts(host.extra_hosts.as_deref().unwrap_or_default())?;
    if !matches!(host.isolation.as_str(), "" | "default") {
        return invalid(format!(
            "invalid isolation ({}): linux only supports 'default'",
            host.isolation
        ));
    }
    if host.annotations.contains_key("") {
        return invalid(
            "invalid Annotations: the empty string is not permitted as an annotation key",
        );
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "private" | "host") {
        return invalid(format!(
            "invalid cgroup namespace mode: {}",
            host.cgroupns_mode
        ));
    }
    for ports in host.port_bindings.iter().flatten() {
        check_port_bindings(ports)?;
    }
    for (name, value) in &host.sysctls {
        if name.contains('/') && name.contains("..") {
            return invalid(format!("invalid sysctl '{name}={value}'"));
        }
    }
    Ok(())
}

fn mode(what: &str, value: &str, known: &[&str]) -> ApiResult<()> {
    let joins = value
        .strip_prefix("container:")
        .is_some_and(|name| !name.is_empty());
    match known.contains(&value) || (joins && what != "UTS") {
        true => Ok(()),
        false => invalid(format!("invalid {what} mode: {value}")),
    }
}

fn check_port_bindings(
    (port, bindings): (&String, &Option<Vec<super::config::PortBinding>>),
) -> ApiResult<()> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let good = number.parse::<u16>().is_ok_and(|number| number > 0);
    if !good || !matches!(protocol, "tcp" | "udp" | "sctp") {
        return invalid(format!("invalid port specification: \"{port}\""));
    }
    for binding in bindings.iter().flatten() {
        let first_last = binding
            .host_port
            .split_once('-')
            .unwrap_or((&binding.host_port, "0"));
        let number = |text: &str| text.is_empty() || text.parse::<u16>().is_ok();
        if !number(first_last.0) || !number(first_last.1) {
            return invalid(format!(
                "invalid port specification: \"{}\"",
                binding.host_port
            ));
        }
        if !binding.host_ip.is_empty() && binding.host_ip.parse::<std::net::IpAddr>().is_err() {
            return invalid(format!("invalid IP address: {}", binding.host_ip));
        }
    }
    Ok(())
}

pub fn restart_policy(policy: &RestartPolicy) -> ApiResult<()> {
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" if policy.maximum_retry_count != 0 => {
            invalid(format!(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'{}",
                if policy.maximum_retry_count < 0 {
                    " and cannot be negative"
                } else {
                    ""
                }
            ))
        }
        "on-failure" if policy.maximum_retry_count < 0 => {
            invalid("invalid restart policy: maximum retry count cannot be negative")
        }
        "" | "no" | "always" | "unless-stopped" | "on-failure" => Ok(()),
        other => invalid(format!(
            "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or \
             'unless-stopped'"
        )),
    }
}

pub fn resources(resources: &Resources, machine: &Machine) -> ApiResult<()> {
    let Resources {
        memory,
        memory_swap,
        memory_reservation,
        nano_cpus,
        ..
    } = *resources;
    if memory < 0 || (memory != 0 && memory < LEAST_MEMORY) {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if memory > 0 && memory_swap > 0 && memory_swap < memory {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if memory == 0 && memory_swap > 0 {
        return invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
    }
    if memory_reservation != 0 && memory_reservation < LEAST_MEMORY {
        return invalid("Minimum memory reservation allowed is 6MB");
    }
    if memory > 0 && memory_reservation > memory {
        return invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    if nano_cpus != 0 && (resources.cpu_period != 0 || resources.cpu_quota != 0) {
        let other = match resources.cpu_quota {
            0 => "CPU Period",
            _ => "CPU Quota",
        };
        return invalid(format!(
            "Conflicting options: Nano CPUs and {other} cannot both be set"
        ));
    }
    let all = machine.cpus as i64 * 1_000_000_000;
    if nano_cpus < 0 || nano_cpus > all {
        return invalid(format!(
            "range of CPUs is from 0.01 to {0}.00, as there are only {0} CPUs available",
            machine.cpus
        ));
    }
    if resources.cpu_shares < 0 {
        return invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            resources.cpu_shares
        ));
    }
    if resources.cpu_period != 0 && !(1000..=1_000_000).contains(&resources.cpu_period) {
        return invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if resources.cpu_quota > 0 && resources.cpu_quota < 1000 {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if !resources.cpuset_cpus.is_empty() {
        let last = machine.cpus - 1;
        let Some(wanted) = parse_cpu_list(&resources.cpuset_cpus) else {
            return invalid(format!(
                "Invalid value {0} for cpuset cpus: invalid format: {0}",
                resources.cpuset_cpus
            ));
        };
        if wanted.iter().any(|cpu| *cpu > last) {
            let available = if last == 0 {
                "0".to_owned()
            } else {
                format!("0-{last}")
            };
            return invalid(format!(
                "Requested CPUs are not available - requested {}, available: {available}",
                resources.cpuset_cpus
            ));
        }
    }
    if resources.blkio_weight != 0 && !(10..=1000).contains(&resources.blkio_weight) {
        return invalid("Range of blkio weight is from 10 to 1000");
    }
    for limit in resources.ulimits.iter().flatten() {
        if super::spec::rlimit_name(&limit.name).is_none() {
            return invalid(format!("invalid ulimit type: {}", limit.name));
        }
    }
    Ok(())
}

/// `0-2,4` → 0, 1, 2, 4. At most what a kernel can have.
fn parse_cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > 8192 {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl Fn(&mut HostConfig)) -> Result<(), String> {
        let mut config = HostConfig::default();
        change(&mut config);
        host(
            &config,
            &Machine {
                cpus: 2,
                swap_limit: true,
            },
        )
        .map_err(|error| error.message)
    }

    #[test]
    fn bad_values_are_told_in_dockers_words() {
        type Change = fn(&mut HostConfig);
        let table: [(Change, &str); 10] = [
            (
                |h| h.resources.memory = 1000,
                "Minimum memory limit allowed is 6MB",
            ),
            (
                |h| h.resources.nano_cpus = 64_000_000_000,
                "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
            ),
            (
                |h| h.restart_policy.name = "zzz".into(),
                "invalid restart policy: unknown policy 'zzz'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
            ),
            (
                |h| {
                    h.auto_remove = true;
                    h.restart_policy.name = "always".into();
                },
                "can't create 'AutoRemove' container with restart policy",
            ),
            (
                |h| h.cap_add = Some(vec!["ZZZ".into()]),
                "invalid CapAdd: unknown capability: \"CAP_ZZZ\"",
            ),
            (
                |h| h.resources.memory_swap = 100_000_000,
                "You should always set the Memory limit when using Memoryswap limit, see usage",
            ),
            (|h| h.shm_size = -1, "SHM size can not be less than 0"),
            (
                |h| h.resources.cpuset_cpus = "99".into(),
                "Requested CPUs are not available - requested 99, available: 0-1",
            ),
            (|h| h.ipc_mode = "zz".into(), "invalid IPC mode: zz"),
            (
                |h| h.port_bindings = Some([("0/tcp".to_owned(), None)].into()),
                "invalid port specification: \"0/tcp\"",
            ),
        ];
        for (change, message) in table {
            assert_eq!(check(change), Err(message.to_owned()));
        }
    }

    #[test]
    fn good_values_pass() {
        type Change = fn(&mut HostConfig);
        let table: [Change; 6] = [
            |_| {},
            |h| h.resources.memory = 64 << 20,
            |h| h.resources.cpuset_cpus = "0-1".into(),
            |h| h.cap_drop = Some(vec!["all".into(), "net_raw".into()]),
            |h| h.ipc_mode = "container:web".into(),
            |h| h.port_bindings = Some([("80/tcp".to_owned(), None)].into()),
        ];
        for change in table {
            assert_eq!(check(change), Ok(()));
        }
    }
}
