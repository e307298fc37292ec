//! What the supervisor tells of a task's cgroup: containerd's `io.containerd.cgroups.v2.Metrics`.

use crate::error::{ApiError, ApiResult};
use crate::supervisor::Supervisor;
use crate::supervisor::api;
use chrono::{DateTime, Utc};
use prost::Message;

const TYPE: &str = "io.containerd.cgroups.v2.Metrics";

/// The parts of the message that are read here, by their numbers in containerd's
/// `cgroup2/stats/metrics.proto`.
#[derive(Clone, PartialEq, Message)]
pub struct Metrics {
    #[prost(message, optional, tag = "1")]
    pub pids: Option<Pids>,
    #[prost(message, optional, tag = "2")]
    pub cpu: Option<Cpu>,
    #[prost(message, optional, tag = "4")]
    pub memory: Option<Memory>,
    #[prost(message, optional, tag = "6")]
    pub io: Option<Io>,
    #[prost(message, optional, tag = "8")]
    pub memory_events: Option<MemoryEvents>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Pids {
    #[prost(uint64, tag = "1")]
    pub current: u64,
    /// 0: none.
    #[prost(uint64, tag = "2")]
    pub limit: u64,
}

/// Times in microseconds.
#[derive(Clone, PartialEq, Message)]
pub struct Cpu {
    #[prost(uint64, tag = "1")]
    pub usage_usec: u64,
    #[prost(uint64, tag = "2")]
    pub user_usec: u64,
    #[prost(uint64, tag = "3")]
    pub system_usec: u64,
    #[prost(uint64, tag = "4")]
    pub nr_periods: u64,
    #[prost(uint64, tag = "5")]
    pub nr_throttled: u64,
    #[prost(uint64, tag = "6")]
    pub throttled_usec: u64,
}

/// Bytes and counts; declares the message and lists the numbers that Docker passes on under their own names.
macro_rules! memory {
    ($($field:ident = $tag:literal,)*) => {
        #[derive(Clone, PartialEq, Message)]
        pub struct Memory {
            $(#[prost(uint64, tag = $tag)] pub $field: u64,)*
            #[prost(uint64, tag = "32")]
            pub usage: u64,
            /// `u64::MAX`: none.
            #[prost(uint64, tag = "33")]
            pub usage_limit: u64,
        }

        impl Memory {
            /// `memory.stat` by the names of its keys.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field),)*].into_iter()
            }
        }
    };
}

memory! {
    anon = "1",
    file = "2",
    kernel_stack = "3",
    slab = "4",
    sock = "5",
    shmem = "6",
    file_mapped = "7",
    file_dirty = "8",
    file_writeback = "9",
    anon_thp = "10",
    inactive_anon = "11",
    active_anon = "12",
    inactive_file = "13",
    active_file = "14",
    unevictable = "15",
    slab_reclaimable = "16",
    slab_unreclaimable = "17",
    pgfault = "18",
    pgmajfault = "19",
    workingset_refault = "20",
    workingset_activate = "21",
    workingset_nodereclaim = "22",
    pgrefill = "23",
    pgscan = "24",
    pgsteal = "25",
    pgactivate = "26",
    pgdeactivate = "27",
    pglazyfree = "28",
    pglazyfreed = "29",
    thp_fault_alloc = "30",
    thp_collapse_alloc = "31",
}

#[derive(Clone, PartialEq, Message)]
pub struct MemoryEvents {
    #[prost(uint64, tag = "4")]
    pub oom: u64,
    #[prost(uint64, tag = "5")]
    pub oom_kill: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Io {
    #[prost(message, repeated, tag = "1")]
    pub usage: Vec<IoEntry>,
}

#[derive(Clone, PartialEq, Message)]
pub struct IoEntry {
    #[prost(uint64, tag = "1")]
    pub major: u64,
    #[prost(uint64, tag = "2")]
    pub minor: u64,
    #[prost(uint64, tag = "3")]
    pub rbytes: u64,
    #[prost(uint64, tag = "4")]
    pub wbytes: u64,
}

/// The numbers of container `id` and when they were taken; 404 when it has no task.
pub async fn of_task(supervisor: &Supervisor, id: &str) -> ApiResult<(DateTime<Utc>, Metrics)> {
    let found = supervisor.retry(|supervisor| {
        let request = api::MetricsRequest {
            filters: vec![format!("id=={id}")],
        };
        async move { supervisor.tasks().metrics(request).await }
    });
    let metric = found.await?.metrics.into_iter().next();
    let metric = metric.ok_or_else(|| ApiError::not_found(format!("no metrics of {id}")))?;
    let at = metric
        .timestamp
        .and_then(|at| DateTime::from_timestamp(at.seconds, u32::try_from(at.nanos).ok()?));
    let data = metric.data.filter(|data| data.type_url == TYPE);
    let data = data.ok_or_else(|| {
        ApiError::internal(format!("the metrics of {id} are not those of cgroup v2"))
    })?;
    let metrics = Metrics::decode(&data.value[..])
        .map_err(|error| ApiError::internal(format!("reading the metrics of {id}: {error}")))?;
    Ok((at.unwrap_or_else(Utc::now), metrics))
}
