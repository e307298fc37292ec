//! A container's numbers as containerd's `io.containerd.cgroups.v2.Metrics`.

use containerd_shim_protos::cgroups_v2::metrics as messages;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};

use crate::cgroup::{Cgroup, value};

const TYPE: &str = "io.containerd.cgroups.v2.Metrics";

/// Reads everything that the cgroup tells.
pub fn read(cgroup: &Cgroup) -> Any {
    let mut metrics = messages::Metrics::new();
    metrics.pids = MessageField::some(pids(cgroup));
    metrics.cpu = MessageField::some(cpu(&cgroup.read("cpu.stat")));
    metrics.memory = MessageField::some(memory(cgroup));
    metrics.memory_events = MessageField::some(memory_events(&cgroup.read("memory.events")));
    metrics.io = MessageField::some(io(&cgroup.read("io.stat")));
    let mut any = Any::new();
    any.type_url = TYPE.to_owned();
    // Writing to memory fails only for messages over 2 GiB.
    any.value = metrics.write_to_bytes().unwrap_or_default();
    any
}

fn pids(cgroup: &Cgroup) -> messages::PidsStat {
    let mut pids = messages::PidsStat::new();
    pids.current = cgroup.number("pids.current");
    // containerd says 0 for "no limit".
    pids.limit = match cgroup.number("pids.max") {
        u64::MAX => 0,
        limit => limit,
    };
    pids
}

/// Copies the keys of a flat keyed file to the fields of the same names.
macro_rules! fields {
    ($text:expr, $message:ty, $($field:ident $(= $key:literal)?),* $(,)?) => {{
        let text = $text;
        let mut message = <$message>::new();
        $(message.$field = value(text, fields!(@key $field $($key)?));)*
        message
    }};
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
}

fn cpu(text: &str) -> messages::CPUStat {
    fields!(
        text,
        messages::CPUStat,
        usage_usec,
        user_usec,
        system_usec,
        nr_periods,
        nr_throttled,
        throttled_usec,
        nr_bursts,
        burst_usec,
    )
}

fn memory(cgroup: &Cgroup) -> messages::MemoryStat {
    let mut memory = fields!(
        &cgroup.read("memory.stat"),
        messages::MemoryStat,
        anon,
        file,
        kernel_stack,
        slab,
        sock,
        shmem,
        file_mapped,
        file_dirty,
        file_writeback,
        anon_thp,
        inactive_anon,
        active_anon,
        inactive_file,
        active_file,
        unevictable,
        slab_reclaimable,
        slab_unreclaimable,
        pgfault,
        pgmajfault,
        workingset_refault = "workingset_refault_file",
        workingset_activate = "workingset_activate_file",
        workingset_nodereclaim,
        pgrefill,
        pgscan,
        pgsteal,
        pgactivate,
        pgdeactivate,
        pglazyfree,
        pglazyfreed,
        thp_fault_alloc,
        thp_collapse_alloc,
    );
    memory.usage = cgroup.number("memory.current");
    memory.usage_limit = cgroup.number("memory.max");
    memory.max_usage = cgroup.number("memory.peak");
    memory.swap_usage = cgroup.number("memory.swap.current");
    memory.swap_limit = cgroup.number("memory.swap.max");
    memory.swap_max_usage = cgroup.number("memory.swap.peak");
    memory
}

fn memory_events(text: &str) -> messages::MemoryEvents {
    fields!(
        text,
        messages::MemoryEvents,
        low,
        high,
        max,
        oom,
        oom_kill,
        oom_group_kill
    )
}

/// Lines of `major:minor rbytes=… wbytes=…` (nested keyed, cgroup-v2.rst).
fn io(text: &str) -> messages::IOStat {
    let mut stat = messages::IOStat::new();
    stat.usage = text.lines().filter_map(io_entry).collect();
    stat
}

fn io_entry(line: &str) -> Option<messages::IOEntry> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let mut entry = messages::IOEntry::new();
    (entry.major, entry.minor) = (major.parse().ok()?, minor.parse().ok()?);
    for (key, number) in words.filter_map(|word| word.split_once('=')) {
        let number = number.parse().unwrap_or(0);
        match key {
            "rbytes" => entry.rbytes = number,
            "wbytes" => entry.wbytes = number,
            "rios" => entry.rios = number,
            "wios" => entry.wios = number,
            _ => {}
        }
    }
    Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        let stat = cpu("usage_usec 5\nuser_usec 3\nsystem_usec 2\n");
        assert_eq!(
            (stat.usage_usec, stat.user_usec, stat.system_usec),
            (5, 3, 2)
        );
        let stat = io("254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\nbroken\n");
        assert_eq!(stat.usage.len(), 1);
        assert_eq!((stat.usage[0].major, stat.usage[0].wios), (254, 4));
    }
}
