//! What the host machine has: the base of the defaults, and of refusals before QEMU would fail.

use longshore_host_api::Size;
use longshore_host_api::settings::Machine;

pub fn detect() -> Machine {
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    Machine {
        cpus,
        memory: total_memory().unwrap_or(Size::gib(4)),
    }
}

/// Memory of the whole machine, where the system tells.
#[cfg(target_os = "linux")]
pub fn total_memory() -> Option<Size> {
    meminfo("MemTotal:")
}

/// Memory that a new process could get without swapping, where the system tells.
#[cfg(target_os = "linux")]
pub fn available_memory() -> Option<Size> {
    meminfo("MemAvailable:")
}

#[cfg(target_os = "linux")]
fn meminfo(field: &str) -> Option<Size> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(Size(kib << 10))
}

#[cfg(not(target_os = "linux"))]
pub fn total_memory() -> Option<Size> {
    Some(Size(system_memory()?.total_memory())).filter(|size| size.bytes() > 0)
}

#[cfg(not(target_os = "linux"))]
pub fn available_memory() -> Option<Size> {
    Some(Size(system_memory()?.available_memory())).filter(|size| size.bytes() > 0)
}

#[cfg(not(target_os = "linux"))]
fn system_memory() -> Option<sysinfo::System> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    Some(system)
}

/// Free bytes on the file system of `path`.
#[cfg(unix)]
pub fn free_disk(path: &std::path::Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    // The field's width differs between systems.
    #[allow(clippy::unnecessary_cast)]
    Some(stat.blocks_available() as u64 * stat.fragment_size() as u64)
}

#[cfg(not(unix))]
pub fn free_disk(path: &std::path::Path) -> Option<u64> {
    // As Windows' volumes are named, which what it mounts below others is compared with.
    let path = path.canonicalize().ok()?;
    let path = path.to_str()?.trim_start_matches(r"\\?\").to_owned();
    let disks = sysinfo::Disks::new_with_refreshed_list_specifics(
        sysinfo::DiskRefreshKind::nothing().with_storage(),
    )
    .ok()?;
    disks
        .iter()
        .filter(|disk| std::path::Path::new(&path).starts_with(disk.mount_point()))
        .max_by_key(|disk| disk.mount_point().as_os_str().len())
        .map(|disk| disk.available_space())
}

/// Bytes that a sparse file takes.
#[cfg(unix)]
pub fn allocated(path: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    // st_blocks counts 512 bytes whatever the file system (POSIX).
    std::fs::metadata(path).map_or(0, |m| m.blocks() * 512)
}

#[cfg(not(unix))]
pub fn allocated(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}
