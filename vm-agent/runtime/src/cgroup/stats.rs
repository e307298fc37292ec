//! `events --stats`: the numbers of a cgroup in the shape that runc prints.

use serde_json::{Value, json};

use super::read;

fn number(cgroup: &str, file: &str) -> u64 {
    read(cgroup, file)
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// "max" reads as the largest number, as runc reports it.
fn limit(cgroup: &str, file: &str) -> u64 {
    match read(cgroup, file) {
        Some(text) => text.trim().parse().unwrap_or(u64::MAX),
        None => 0,
    }
}

fn keyed(text: &str) -> serde_json::Map<String, Value> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), json!(value.trim().parse::<u64>().ok()?)))
        })
        .collect()
}

/// `io.stat`: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 …", one device a line.
fn block_io(text: &str, keys: [(&str, &str); 2]) -> Vec<Value> {
    let mut list = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else {
            continue;
        };
        for word in words {
            let Some((key, value)) = word.split_once('=') else {
                continue;
            };
            if let Some((_, op)) = keys.iter().find(|(name, _)| *name == key) {
                list.push(json!({
                    "major": major.parse::<u64>().unwrap_or(0),
                    "minor": minor.parse::<u64>().unwrap_or(0),
                    "op": op,
                    "value": value.parse::<u64>().unwrap_or(0),
                }));
            }
        }
    }
    list
}

pub fn event(id: &str, cgroup: &str) -> Value {
    let cpu = keyed(&read(cgroup, "cpu.stat").unwrap_or_default());
    let nanos = |key: &str| cpu.get(key).and_then(Value::as_u64).unwrap_or(0) * 1_000;
    let count = |key: &str| cpu.get(key).and_then(Value::as_u64).unwrap_or(0);
    let io = read(cgroup, "io.stat").unwrap_or_default();
    let memory = number(cgroup, "memory.current");
    let swap = number(cgroup, "memory.swap.current");
    json!({
        "type": "stats",
        "id": id,
        "data": {
            "cpu": {
                "usage": {
                    "total": nanos("usage_usec"),
                    "kernel": nanos("system_usec"),
                    "user": nanos("user_usec"),
                },
                "throttling": {
                    "periods": count("nr_periods"),
                    "throttledPeriods": count("nr_throttled"),
                    "throttledTime": nanos("throttled_usec"),
                },
            },
            "memory": {
                "usage": {
                    "limit": limit(cgroup, "memory.max"),
                    "usage": memory,
                    "max": number(cgroup, "memory.peak"),
                    "failcnt": 0,
                },
                "swap": {
                    "limit": limit(cgroup, "memory.swap.max"),
                    "usage": swap,
                    "max": 0,
                    "failcnt": 0,
                },
                "raw": keyed(&read(cgroup, "memory.stat").unwrap_or_default()),
            },
            "pids": {
                "current": number(cgroup, "pids.current"),
                "limit": match limit(cgroup, "pids.max") { u64::MAX => 0, limit => limit },
            },
            "blkio": {
                "ioServiceBytesRecursive": block_io(&io, [("rbytes", "Read"), ("wbytes", "Write")]),
                "ioServicedRecursive": block_io(&io, [("rios", "Read"), ("wios", "Write")]),
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_stat_lines() {
        let list = block_io(
            "8:0 rbytes=10 wbytes=20 rios=1\nbad\n",
            [("rbytes", "Read"), ("wbytes", "Write")],
        );
        assert_eq!(list.len(), 2);
        assert_eq!(
            list[1],
            json!({"major": 8, "minor": 0, "op": "Write", "value": 20})
        );
    }
}
