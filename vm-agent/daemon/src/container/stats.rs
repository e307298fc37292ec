//! `GET /containers/{id}/stats`: what a container uses, once or every second.

use super::metrics::{self, Metrics};
use super::record::{Container, Status, timestamp};
use super::store::Entry;
use crate::error::{ApiError, ApiResult};
use crate::http_message::{self, ApiRequest, ApiResponse, ApiVersion, ok_json};
use crate::state::Daemon;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Docker's pace.
const PACE: Duration = Duration::from_secs(1);

pub async fn serve(daemon: Arc<Daemon>, request: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    let stream = request.query.flag_or("stream", true);
    let one_shot = request.version >= ApiVersion(1, 41) && request.query.flag("one-shot");
    if stream && one_shot {
        return Err(ApiError::bad_request(
            "cannot have stream=true and one-shot=true",
        ));
    }
    let entry = daemon.containers.entry(&id)?;
    let mut sampler = Sampler::new(daemon, entry.clone());
    if stream {
        return Ok(follow(sampler, entry));
    }
    if !is_measurable(&entry.now()) {
        return ok_json(&sampler.shape(Sample::default()));
    }
    if !one_shot {
        // The processor's share is a difference: the first look is only there to compare with.
        sampler.next().await?;
        tokio::time::sleep(PACE).await;
    }
    ok_json(&sampler.next().await?)
}

fn is_measurable(container: &Container) -> bool {
    matches!(container.state.status, Status::Running | Status::Paused)
}

/// A sample each second, until the container is removed or the client goes.
fn follow(mut sampler: Sampler, entry: Arc<Entry>) -> ApiResponse {
    let lines = async_stream::stream! {
        let mut removed = entry.removed.subscribe();
        let mut ticks = interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = removed.wait_for(|gone| *gone) => return,
            }
            match sampler.next().await {
                Ok(sample) => yield Ok(Bytes::from(sample.to_string() + "\n")),
                Err(error) => {
                    yield Err(std::io::Error::other(error.to_string()));
                    return;
                }
            }
        }
    };
    http_message::stream("application/json", lines)
}

/// One look at a container.
#[derive(Default)]
struct Sample {
    read: Option<DateTime<Utc>>,
    metrics: Metrics,
    machine: Machine,
    networks: Map<String, Value>,
}

/// Takes samples and remembers the one before.
struct Sampler {
    daemon: Arc<Daemon>,
    entry: Arc<Entry>,
    before: (Option<DateTime<Utc>>, Value),
}

impl Sampler {
    fn new(daemon: Arc<Daemon>, entry: Arc<Entry>) -> Self {
        let nothing = cpu(&Sample::default());
        Sampler {
            daemon,
            entry,
            before: (None, nothing),
        }
    }

    /// The next sample in Docker's shape. A container that does not run has numbers without value, as Docker's.
    async fn next(&mut self) -> ApiResult<Value> {
        let container = self.entry.now();
        let mut sample = Sample::default();
        if is_measurable(&container) {
            match metrics::of_task(&self.daemon.supervisor, &container.id).await {
                Ok((read, metrics)) => {
                    sample = Sample {
                        read: Some(read),
                        metrics,
                        machine: Machine::read(),
                        networks: networks(&container),
                    };
                }
                // It has just ended.
                Err(error) if error.status == http::StatusCode::NOT_FOUND => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.shape(sample))
    }

    fn shape(&mut self, sample: Sample) -> Value {
        let container = self.entry.now();
        let cpu = cpu(&sample);
        let before = std::mem::replace(&mut self.before, (sample.read, cpu.clone()));
        let mut shown = json!({
            "id": container.id,
            "name": format!("/{}", container.name),
            "read": timestamp(sample.read),
            "preread": timestamp(before.0),
            "pids_stats": pids(&sample.metrics),
            "blkio_stats": block_io(&sample.metrics),
            "num_procs": 0,
            "storage_stats": {},
            "cpu_stats": cpu,
            "precpu_stats": before.1,
            "memory_stats": memory(&sample),
        });
        if !sample.networks.is_empty() {
            shown["networks"] = Value::Object(sample.networks);
        }
        shown
    }
}

/// Members that Go leaves out when they are 0.
fn numbers(pairs: &[(&str, u64)]) -> Map<String, Value> {
    let there = pairs.iter().filter(|(_, value)| *value != 0);
    there
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect()
}

fn pids(metrics: &Metrics) -> Value {
    let pids = metrics.pids.clone().unwrap_or_default();
    Value::Object(numbers(&[("current", pids.current), ("limit", pids.limit)]))
}

/// Processor times in nanoseconds. cgroup v2 has no times by processor.
fn cpu(sample: &Sample) -> Value {
    let cpu = sample.metrics.cpu.clone().unwrap_or_default();
    let mut shown = numbers(&[
        ("system_cpu_usage", sample.machine.cpu_time),
        ("online_cpus", sample.machine.cpus),
    ]);
    let usage = json!({
        "total_usage": cpu.usage_usec * 1000,
        "usage_in_kernelmode": cpu.system_usec * 1000,
        "usage_in_usermode": cpu.user_usec * 1000,
    });
    let throttling = json!({
        "periods": cpu.nr_periods,
        "throttled_periods": cpu.nr_throttled,
        "throttled_time": cpu.throttled_usec * 1000,
    });
    shown.insert("cpu_usage".to_owned(), usage);
    shown.insert("throttling_data".to_owned(), throttling);
    Value::Object(shown)
}

/// Without a limit of its own a container has the machine's.
fn memory(sample: &Sample) -> Value {
    let Some(memory) = &sample.metrics.memory else {
        return json!({});
    };
    let limit = memory.usage_limit.min(sample.machine.memory);
    let events = sample.metrics.memory_events.clone().unwrap_or_default();
    let mut shown = numbers(&[
        ("usage", memory.usage),
        ("limit", limit),
        ("failcnt", events.oom),
    ]);
    let stats: Map<String, Value> = memory
        .named()
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    shown.insert("stats".to_owned(), Value::Object(stats));
    Value::Object(shown)
}

fn block_io(metrics: &Metrics) -> Value {
    let devices = metrics.io.iter().flat_map(|io| &io.usage);
    let entries: Vec<Value> = devices
        .flat_map(|device| {
            [("read", device.rbytes), ("write", device.wbytes)].map(|(operation, value)| {
                json!({ "major": device.major, "minor": device.minor, "op": operation, "value": value })
            })
        })
        .collect();
    let bytes = match entries.is_empty() {
        true => Value::Null,
        false => json!(entries),
    };
    json!({
        "io_service_bytes_recursive": bytes,
        "io_serviced_recursive": null,
        "io_queue_recursive": null,
        "io_service_time_recursive": null,
        "io_wait_time_recursive": null,
        "io_merged_recursive": null,
        "io_time_recursive": null,
        "sectors_recursive": null,
    })
}

/// Counters of the container's interfaces: those of the namespace that its process 1 is in (which may be another
/// container's). The guest's own belong to nobody.
fn networks(container: &Container) -> Map<String, Value> {
    if container.host_config.network_mode == "host" {
        return Map::new();
    }
    let text = std::fs::read_to_string(format!("/proc/{}/net/dev", container.pid));
    interfaces(&text.unwrap_or_default())
}

/// `/proc/PID/net/dev` (proc_pid_net(5)): eight numbers received, then eight sent.
fn interfaces(text: &str) -> Map<String, Value> {
    let mut found = Map::new();
    for line in text.lines().skip(2) {
        let Some((name, numbers)) = line.split_once(':') else {
            continue;
        };
        let numbers: Vec<u64> = numbers
            .split_whitespace()
            .map_while(|number| number.parse().ok())
            .collect();
        if name.trim() == "lo" || numbers.len() < 12 {
            continue;
        }
        let counters = json!({
            "rx_bytes": numbers[0],
            "rx_packets": numbers[1],
            "rx_errors": numbers[2],
            "rx_dropped": numbers[3],
            "tx_bytes": numbers[8],
            "tx_packets": numbers[9],
            "tx_errors": numbers[10],
            "tx_dropped": numbers[11],
        });
        found.insert(name.trim().to_owned(), counters);
    }
    found
}

/// What the whole machine has and has used, to compare with.
#[derive(Default)]
struct Machine {
    /// Nanoseconds of all processors together, idle ones included.
    cpu_time: u64,
    cpus: u64,
    /// Bytes.
    memory: u64,
}

impl Machine {
    fn read() -> Self {
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        let (cpu_time, cpus) = processors(&text("/proc/stat"));
        let memory = text("/proc/meminfo");
        let memory = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        Machine {
            cpu_time,
            cpus,
            memory: memory.unwrap_or_default() * 1024,
        }
    }
}

/// `/proc/stat` (proc_stat(5)): the first seven numbers of `cpu`, in ticks of 10 ms, and how many `cpuN` there are.
fn processors(text: &str) -> (u64, u64) {
    const TICK: u64 = 10_000_000;
    let (mut time, mut count) = (0, 0);
    for line in text.lines().take_while(|line| line.starts_with("cpu")) {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("cpu") => {
                let ticks = words.take(7).filter_map(|word| word.parse::<u64>().ok());
                time = ticks.sum::<u64>() * TICK;
            }
            _ => count += 1,
        }
    }
    (time, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_and_their_time_summed() {
        let text = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1 1 1\ncpu1 0 1 2 3\nintr 5\ncpu9 1\n";
        assert_eq!(processors(text), (280_000_000, 2));
        assert_eq!(processors(""), (0, 0));
    }

    #[test]
    fn interfaces_are_read_without_loopback() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  \
                    eth0: 10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\n broken\n";
        let found = interfaces(text);
        assert_eq!(found.len(), 1);
        let eth0 = &found["eth0"];
        assert_eq!(
            (&eth0["rx_bytes"], &eth0["tx_bytes"]),
            (&json!(10), &json!(50))
        );
        assert_eq!(
            (&eth0["rx_dropped"], &eth0["tx_dropped"]),
            (&json!(4), &json!(8))
        );
    }

    #[test]
    fn numbers_are_in_dockers_places() {
        let sample = Sample {
            metrics: Metrics {
                cpu: Some(metrics::Cpu {
                    usage_usec: 5,
                    ..Default::default()
                }),
                memory: Some(metrics::Memory {
                    usage: 7,
                    usage_limit: u64::MAX,
                    anon: 3,
                    ..Default::default()
                }),
                ..Default::default()
            },
            machine: Machine {
                cpu_time: 100,
                cpus: 2,
                memory: 1000,
            },
            ..Default::default()
        };
        assert_eq!(cpu(&sample)["cpu_usage"]["total_usage"], 5000);
        assert_eq!(cpu(&sample)["online_cpus"], 2);
        assert!(cpu(&sample)["cpu_usage"].get("percpu_usage").is_none());
        let memory = memory(&sample);
        assert_eq!(
            (&memory["usage"], &memory["limit"]),
            (&json!(7), &json!(1000))
        );
        assert_eq!(memory["stats"]["anon"], 3);
        assert!(cpu(&Sample::default()).get("system_cpu_usage").is_none());
    }
}
