//! Capability names, Docker's default set, and `--cap-add`, `--cap-drop`, `--privileged`.

use super::super::config::HostConfig;

/// linux/capability.h, in its order.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// `net_raw`, `CAP_NET_RAW`, `all` → `NET_RAW`, `ALL`; `None` for what Linux does not have.
pub fn normalize(name: &str) -> Option<String> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    (short == "ALL" || ALL.contains(&short)).then(|| short.to_owned())
}

/// The capabilities of a container's processes, as `CAP_…`.
pub fn of(host: &HostConfig) -> Vec<String> {
    let list = |names: &Option<Vec<String>>| -> Vec<String> {
        names
            .iter()
            .flatten()
            .filter_map(|name| normalize(name))
            .collect()
    };
    let (add, drop) = (list(&host.cap_add), list(&host.cap_drop));
    let has = |list: &[String], name: &str| list.iter().any(|have| have == name);
    let base: Vec<&str> = match () {
        () if host.privileged => return ALL.iter().map(|name| format!("CAP_{name}")).collect(),
        () if has(&add, "ALL") => ALL.to_vec(),
        () if has(&drop, "ALL") => Vec::new(),
        () => DEFAULT.to_vec(),
    };
    let mut names: Vec<&str> = base.into_iter().filter(|name| !has(&drop, name)).collect();
    for name in ALL.iter().filter(|name| has(&add, name)) {
        if !names.contains(name) {
            names.push(name);
        }
    }
    names
        .into_iter()
        .map(|name| format!("CAP_{name}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_and_drops() {
        /// Added, dropped, privileged; how many result, one of them, whether it is among them.
        type Case<'a> = (&'a [&'a str], &'a [&'a str], bool, usize, &'a str, bool);
        let table: [Case<'_>; 7] = [
            (&[], &[], false, 14, "CAP_NET_RAW", true),
            (&[], &["net_raw"], false, 13, "CAP_NET_RAW", false),
            (&["SYS_ADMIN"], &[], false, 15, "CAP_SYS_ADMIN", true),
            (&["CAP_CHOWN"], &["ALL"], false, 1, "CAP_CHOWN", true),
            (&["all"], &["MKNOD"], false, 40, "CAP_MKNOD", false),
            (&[], &[], true, 41, "CAP_SYS_ADMIN", true),
            (&["KILL"], &[], false, 14, "CAP_KILL", true),
        ];
        for (add, drop, privileged, count, name, present) in table {
            let own = |list: &[&str]| Some(list.iter().map(|n| (*n).to_owned()).collect());
            let host = HostConfig {
                cap_add: own(add),
                cap_drop: own(drop),
                privileged,
                ..HostConfig::default()
            };
            let got = of(&host);
            assert_eq!(got.len(), count, "{add:?} {drop:?}");
            assert_eq!(got.iter().any(|n| n == name), present, "{add:?} {drop:?}");
        }
    }
}
