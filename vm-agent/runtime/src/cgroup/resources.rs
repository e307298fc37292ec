//! `linux.resources` as writes to cgroup v2 files.
//!
//! The OCI fields speak cgroup v1; the conversions are those of runc, so that a limit shows the
//! same value in the container under either runtime.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::spec::{BlockIo, Cpu, Memory, Resources, ThrottleDevice};

/// One value for one file. `optional` writes are skipped when the kernel lacks the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Write {
    pub file: String,
    pub value: String,
    pub optional: bool,
}

fn must(file: &str, value: impl ToString) -> Write {
    Write {
        file: file.to_owned(),
        value: value.to_string(),
        optional: false,
    }
}

fn may(file: &str, value: impl ToString) -> Write {
    Write {
        optional: true,
        ..must(file, value)
    }
}

/// The list of writes for a set of resources, in order.
pub fn writes(resources: &Resources) -> Result<Vec<Write>> {
    let mut list = Vec::new();
    if let Some(pids) = &resources.pids {
        match pids.limit {
            Some(limit) if limit > 0 => list.push(must("pids.max", limit)),
            Some(-1) => list.push(must("pids.max", "max")),
            _ => {}
        }
    }
    if let Some(memory) = &resources.memory {
        memory_writes(memory, &mut list)?;
    }
    if let Some(cpu) = &resources.cpu {
        cpu_writes(cpu, &mut list);
    }
    if let Some(block_io) = &resources.block_io {
        block_io_writes(block_io, &mut list);
    }
    for limit in &resources.hugepage_limits {
        list.push(must(
            &format!("hugetlb.{}.max", limit.page_size),
            limit.limit,
        ));
        list.push(may(
            &format!("hugetlb.{}.rsvd.max", limit.page_size),
            limit.limit,
        ));
    }
    for (device, limit) in &resources.rdma {
        let part = |name, value: Option<u32>| {
            format!(
                " {name}={}",
                value.map_or("max".to_owned(), |value| value.to_string())
            )
        };
        let handles = part("hca_handle", limit.hca_handles);
        let objects = part("hca_object", limit.hca_objects);
        list.push(must("rdma.max", format!("{device}{handles}{objects}")));
    }
    for (file, value) in &resources.unified {
        if file.contains('/') || file.is_empty() {
            return Err(Error::Config(format!(
                "unified resource {file:?} must be a file name"
            )));
        }
        list.extend(value.lines().map(|line| must(file, line)));
    }
    Ok(list)
}

/// -1 is "no limit", 0 is "not given".
fn bytes(value: i64) -> Option<String> {
    match value {
        0 => None,
        value if value < 0 => Some("max".to_owned()),
        value => Some(value.to_string()),
    }
}

fn memory_writes(memory: &Memory, list: &mut Vec<Write>) -> Result<()> {
    let limit = memory.limit.unwrap_or(0);
    if let Some(swap) = bytes(swap_only(limit, memory.swap.unwrap_or(0))?) {
        // A kernel without swap accounting has no file; a limit of "none" then changes nothing.
        let is_plain = swap == "max" || swap == "0";
        list.push(Write {
            optional: is_plain,
            ..must("memory.swap.max", swap)
        });
    } else if memory.swap.is_some_and(|swap| swap > 0) {
        list.push(may("memory.swap.max", 0));
    }
    list.extend(bytes(limit).map(|limit| must("memory.max", limit)));
    list.extend(bytes(memory.reservation.unwrap_or(0)).map(|low| must("memory.low", low)));
    Ok(())
}

/// Version 1 limits memory and swap together, version 2 swap alone.
fn swap_only(limit: i64, swap: i64) -> Result<i64> {
    match (limit, swap) {
        (-1, 0) => Ok(-1),
        (_, -1 | 0) => Ok(swap),
        (-1 | 0, _) => Err(Error::Config(
            "unable to set swap limit without memory limit".to_owned(),
        )),
        (limit, swap) if swap < 0 || limit < 0 => Err(Error::Config(format!(
            "invalid memory values: limit {limit}, swap {swap}"
        ))),
        (limit, swap) if swap < limit => Err(Error::Config(
            "memory+swap limit should be >= memory limit".to_owned(),
        )),
        (limit, swap) => Ok(swap - limit),
    }
}

fn cpu_writes(cpu: &Cpu, list: &mut Vec<Write>) {
    list.extend(cpu.idle.map(|idle| must("cpu.idle", idle)));
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0)
        && cpu.idle != Some(1)
    {
        list.push(must("cpu.weight", cpu_weight(shares)));
    }
    let quota = cpu.quota.unwrap_or(0);
    let period = cpu.period.unwrap_or(0);
    if quota != 0 || period != 0 {
        let quota = if quota > 0 {
            quota.to_string()
        } else {
            "max".to_owned()
        };
        let period = if period == 0 { 100_000 } else { period };
        list.push(must("cpu.max", format!("{quota} {period}")));
    }
    list.extend(cpu.burst.map(|burst| must("cpu.max.burst", burst)));
    if !cpu.cpus.is_empty() {
        list.push(must("cpuset.cpus", &cpu.cpus));
    }
    if !cpu.mems.is_empty() {
        list.push(must("cpuset.mems", &cpu.mems));
    }
}

/// Shares (2…262144, default 1024) to weight (1…10000, default 100): a quadratic in log2 through
/// the three fixed points, so that the defaults meet.
pub fn cpu_weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    10f64.powf(exponent).ceil() as u64
}

fn block_io_writes(block_io: &BlockIo, list: &mut Vec<Write>) {
    // io.bfq.weight takes v1's range as it is; io.weight has another.
    if let Some(weight) = block_io.weight.filter(|weight| *weight != 0) {
        list.push(may("io.bfq.weight", weight));
        list.push(may("io.weight", io_weight(weight)));
    }
    for device in &block_io.weight_device {
        if let Some(weight) = device.weight.filter(|weight| *weight != 0) {
            let (major, minor) = (device.major, device.minor);
            list.push(may("io.bfq.weight", format!("{major}:{minor} {weight}")));
        }
    }
    let mut throttle = |devices: &[ThrottleDevice], key: &str| {
        for device in devices {
            let ThrottleDevice { major, minor, rate } = device;
            let rate = if *rate == 0 {
                "max".to_owned()
            } else {
                rate.to_string()
            };
            list.push(must("io.max", format!("{major}:{minor} {key}={rate}")));
        }
    };
    throttle(&block_io.throttle_read_bps_device, "rbps");
    throttle(&block_io.throttle_write_bps_device, "wbps");
    throttle(&block_io.throttle_read_iops_device, "riops");
    throttle(&block_io.throttle_write_iops_device, "wiops");
}

/// blkio's 10…1000 to io.weight's 1…10000.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).max(10) - 10) * 9_999 / 990
}

/// Applies the writes to a cgroup directory.
pub fn apply(dir: &Path, resources: &Resources) -> Result<()> {
    for write in writes(resources)? {
        let path = dir.join(&write.file);
        match fs::write(&path, &write.value) {
            Err(error) if write.optional && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Error::CgroupSet {
                    step: format!("failed to write {:?} to {}", write.value, path.display()),
                    errno: error.into(),
                });
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(json: &str) -> Vec<String> {
        let resources: Resources = serde_json::from_str(json).unwrap();
        let list = writes(&resources).unwrap();
        list.into_iter()
            .map(|write| format!("{}={}", write.file, write.value))
            .collect()
    }

    #[test]
    fn oci_fields_become_v2_files() {
        for (json, expected) in [
            (r#"{"pids":{"limit":100}}"#, vec!["pids.max=100"]),
            (r#"{"pids":{"limit":-1}}"#, vec!["pids.max=max"]),
            (r#"{"pids":{"limit":0}}"#, vec![]),
            (
                r#"{"memory":{"limit":1048576,"swap":3145728,"reservation":4096}}"#,
                vec![
                    "memory.swap.max=2097152",
                    "memory.max=1048576",
                    "memory.low=4096",
                ],
            ),
            (
                r#"{"memory":{"limit":1048576,"swap":1048576}}"#,
                vec!["memory.swap.max=0", "memory.max=1048576"],
            ),
            (
                r#"{"memory":{"limit":-1}}"#,
                vec!["memory.swap.max=max", "memory.max=max"],
            ),
            (
                r#"{"cpu":{"quota":50000,"period":100000}}"#,
                vec!["cpu.max=50000 100000"],
            ),
            (r#"{"cpu":{"quota":50000}}"#, vec!["cpu.max=50000 100000"]),
            (
                r#"{"cpu":{"quota":-1,"period":20000}}"#,
                vec!["cpu.max=max 20000"],
            ),
            (
                r#"{"cpu":{"cpus":"0-1","mems":"0"}}"#,
                vec!["cpuset.cpus=0-1", "cpuset.mems=0"],
            ),
            (
                r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1024}],
                    "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":9}]}}"#,
                vec!["io.max=8:0 rbps=1024", "io.max=8:0 wiops=9"],
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#,
                vec!["hugetlb.2MB.max=4194304", "hugetlb.2MB.rsvd.max=4194304"],
            ),
            (
                r#"{"unified":{"memory.high":"max"}}"#,
                vec!["memory.high=max"],
            ),
            (r#"{"devices":null,"cpu":{"cpus":null}}"#, vec![]),
        ] {
            assert_eq!(lines(json), expected, "{json}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for json in [
            r#"{"memory":{"limit":2097152,"swap":1048576}}"#,
            r#"{"memory":{"swap":1048576}}"#,
            r#"{"unified":{"../x":"1"}}"#,
        ] {
            let resources: Resources = serde_json::from_str(json).unwrap();
            assert!(writes(&resources).is_err(), "{json}");
        }
    }

    #[test]
    fn shares_meet_weights_at_the_fixed_points() {
        for (shares, weight) in [
            (2, 1),
            (1024, 100),
            (262_144, 10_000),
            (1, 1),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
        assert!(cpu_weight(512) < 100 && cpu_weight(2048) > 100);
        assert_eq!((io_weight(10), io_weight(1000)), (1, 10_000));
    }
}
