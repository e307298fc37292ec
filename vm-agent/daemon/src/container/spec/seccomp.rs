//! The seccomp profile of a container: a table of system calls, those that its capabilities add, and conditions.

use crate::error::{ApiError, ApiResult};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const TABLE: &str = include_str!("seccomp_default.txt");
const AF_VSOCK: u64 = 40;
/// The CLONE_NEW* flags but CLONE_NEWTIME, which shares its bit with the exit signal's mask.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];
#[cfg(not(target_arch = "aarch64"))]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];

/// The default profile for a container with these capabilities (`CAP_…`).
pub fn default_profile(capabilities: &[String]) -> Value {
    let has = |name: &str| {
        capabilities
            .iter()
            .any(|have| have.strip_prefix("CAP_") == Some(name))
    };
    let mut names = BTreeSet::new();
    let mut wanted = false;
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix(' ') {
            Some(calls) if wanted => names.extend(calls.split_whitespace()),
            Some(_) => {}
            None => {
                wanted = match line.split_once(' ') {
                    Some(("cap", capability)) => has(capability),
                    Some(("arch", arch)) => arch == std::env::consts::ARCH,
                    _ => line == "allow",
                }
            }
        }
    }
    let mut rules = vec![
        json!({ "names": names, "action": "SCMP_ACT_ALLOW" }),
        compare("socket", "SCMP_CMP_NE", AF_VSOCK),
        json!({ "names": ["socketcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }),
    ];
    // Linux, and Linux with READ_IMPLIES_EXEC off, UNAME26, both; and asking.
    for persona in [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        rules.push(compare("personality", "SCMP_CMP_EQ", persona));
    }
    if !has("SYS_ADMIN") {
        rules.push(json!({
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 0, "value": CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }],
        }));
        // Its flags lie in memory; ENOSYS makes every libc fall back to clone.
        rules.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": ARCHITECTURES,
        "syscalls": rules,
    })
}

fn compare(name: &str, operator: &str, value: u64) -> Value {
    json!({
        "names": [name],
        "action": "SCMP_ACT_ALLOW",
        "args": [{ "index": 0, "value": value, "op": operator }],
    })
}

/// A profile that the client sent (`--security-opt seccomp=FILE` sends the file's text).
pub fn custom_profile(text: &str) -> ApiResult<Value> {
    let mut profile: Value = serde_json::from_str(text).map_err(|error| {
        ApiError::bad_request(format!("opening seccomp profile failed: {error}"))
    })?;
    // Docker's form groups architectures; the OCI's form lists them.
    if let Some(map) = profile.as_object_mut() {
        if map.remove("archMap").is_some() {
            map.insert("architectures".to_owned(), json!(ARCHITECTURES));
        }
        for rule in map
            .get_mut("syscalls")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(rule) = rule.as_object_mut() {
                if let Some(name) = rule.remove("name").filter(|name| !name.is_null()) {
                    rule.insert("names".to_owned(), json!([name]));
                }
                rule.retain(|key, value| {
                    !value.is_null()
                        && matches!(key.as_str(), "names" | "action" | "errnoRet" | "args")
                });
            }
        }
    }
    Ok(profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(capabilities: &[&str]) -> Vec<String> {
        let capabilities: Vec<String> = capabilities
            .iter()
            .map(|name| format!("CAP_{name}"))
            .collect();
        let profile = default_profile(&capabilities);
        serde_json::from_value(profile["syscalls"][0]["names"].clone()).unwrap()
    }

    #[test]
    fn capabilities_add_calls() {
        let none = allowed(&[]);
        for name in ["read", "openat2", "futex", "execve", "rseq"] {
            assert!(none.iter().any(|n| n == name), "{name}");
        }
        for (capability, name) in [
            ("SYS_ADMIN", "mount"),
            ("SYS_CHROOT", "chroot"),
            ("SYS_TIME", "clock_settime"),
            ("SYS_BOOT", "reboot"),
        ] {
            assert!(!none.iter().any(|n| n == name), "{name}");
            assert!(allowed(&[capability]).iter().any(|n| n == name), "{name}");
        }
        for never in [
            "socketcall",
            "kexec_load",
            "keyctl",
            "userfaultfd",
            "io_uring_setup",
        ] {
            assert!(
                !allowed(&["SYS_ADMIN"]).iter().any(|n| n == never),
                "{never}"
            );
        }
    }

    #[test]
    fn vsock_and_new_namespaces_are_closed() {
        let profile = default_profile(&[]);
        let rules = profile["syscalls"].as_array().unwrap();
        let rule = |name: &str| rules.iter().find(|rule| rule["names"][0] == name).unwrap();
        assert_eq!(rule("socket")["args"][0]["value"], 40);
        assert_eq!(rule("clone")["args"][0]["value"], 2_114_060_288u64);
        assert_eq!(rule("clone3")["errnoRet"], 38);
    }
}
