//! Limits in the OCI's form.

use super::super::config::{HostConfig, Resources};
use serde_json::{Map, Value, json};

/// CPU period that `--cpus` is counted in, microseconds.
const PERIOD: i64 = 100_000;

/// `linux.resources` without its device rules; also what `update` sends to a running task.
pub fn limits(resources: &Resources, swap_limit: bool) -> Map<String, Value> {
    let mut out = Map::new();
    let mut put = |name: &str, part: Map<String, Value>| {
        if !part.is_empty() {
            out.insert(name.to_owned(), Value::Object(part));
        }
    };
    put("memory", memory(resources, swap_limit));
    put("cpu", cpu(resources));
    if let Some(limit) = resources.pids_limit.filter(|limit| *limit != 0) {
        put("pids", Map::from_iter([("limit".to_owned(), json!(limit))]));
    }
    if resources.blkio_weight > 0 {
        put(
            "blockIO",
            Map::from_iter([("weight".to_owned(), json!(resources.blkio_weight))]),
        );
    }
    out
}

fn memory(resources: &Resources, swap_limit: bool) -> Map<String, Value> {
    let mut part = Map::new();
    if resources.memory > 0 {
        part.insert("limit".to_owned(), json!(resources.memory));
    }
    if resources.memory_reservation > 0 {
        part.insert(
            "reservation".to_owned(),
            json!(resources.memory_reservation),
        );
    }
    if resources.memory_swap != 0 && swap_limit {
        part.insert("swap".to_owned(), json!(resources.memory_swap));
    }
    part
}

fn cpu(resources: &Resources) -> Map<String, Value> {
    let mut part = Map::new();
    let mut number = |name: &str, value: i64| {
        if value != 0 {
            part.insert(name.to_owned(), json!(value));
        }
    };
    number("shares", resources.cpu_shares);
    if resources.nano_cpus > 0 {
        number("period", PERIOD);
        number("quota", resources.nano_cpus / (1_000_000_000 / PERIOD));
    } else {
        number("period", resources.cpu_period);
        number("quota", resources.cpu_quota);
    }
    for (name, value) in [
        ("cpus", &resources.cpuset_cpus),
        ("mems", &resources.cpuset_mems),
    ] {
        if !value.is_empty() {
            part.insert(name.to_owned(), json!(value));
        }
    }
    part
}

/// Device rules: nothing but what every container has, what was asked for, or everything.
pub fn device_rules(host: &HostConfig, asked: &[Value]) -> Vec<Value> {
    if host.privileged {
        return vec![json!({ "allow": true, "access": "rwm" })];
    }
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    // null, zero, full, random, urandom, tty, console, ptmx and the pseudo-terminals (OCI runtime spec, default devices).
    for (major, minor) in [
        (1, 3),
        (1, 5),
        (1, 7),
        (1, 8),
        (1, 9),
        (5, 0),
        (5, 1),
        (5, 2),
    ] {
        rules.push(
            json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" }),
        );
    }
    rules.push(json!({ "allow": true, "type": "c", "major": 136, "access": "rwm" }));
    rules.extend(asked.iter().cloned());
    rules.extend(
        host.resources
            .device_cgroup_rules
            .iter()
            .flatten()
            .filter_map(|rule| parse_rule(rule)),
    );
    rules
}

/// `c 42:* rmw`
fn parse_rule(text: &str) -> Option<Value> {
    let mut parts = text.split_whitespace();
    let (kind, numbers, access) = (parts.next()?, parts.next()?, parts.next()?);
    let (major, minor) = numbers.split_once(':')?;
    let mut rule = json!({ "allow": true, "type": kind, "access": access });
    for (name, number) in [("major", major), ("minor", minor)] {
        if number != "*" {
            rule[name] = json!(number.parse::<i64>().ok()?);
        }
    }
    Some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_ocis() {
        let resources = Resources {
            nano_cpus: 1_500_000_000,
            memory: 64 << 20,
            memory_swap: 128 << 20,
            pids_limit: Some(10),
            cpuset_cpus: "0".into(),
            ..Resources::default()
        };
        let got = Value::Object(limits(&resources, true));
        assert_eq!(
            got["cpu"],
            json!({ "period": 100_000, "quota": 150_000, "cpus": "0" })
        );
        assert_eq!(
            got["memory"],
            json!({ "limit": 64 << 20, "swap": 128 << 20 })
        );
        assert_eq!(got["pids"], json!({ "limit": 10 }));
        assert!(limits(&resources, false)["memory"].get("swap").is_none());
        assert!(limits(&Resources::default(), true).is_empty());
    }

    #[test]
    fn rules_parse() {
        assert_eq!(
            parse_rule("c 42:* rmw"),
            Some(json!({ "allow": true, "type": "c", "major": 42, "access": "rmw" }))
        );
        assert_eq!(parse_rule("nonsense"), None);
    }
}
