//! What init knows, as files that the agent reads: `/run/longshore/stages` and `/run/longshore/services/NAME`.

use nix::time::{ClockId, clock_gettime};
use std::fs::OpenOptions;
use std::io::Write;

pub const FOLDER: &str = "/run/longshore/services";
const STAGES: &str = "/run/longshore/stages";

/// Milliseconds since the kernel started.
pub fn uptime_ms() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |now| {
        now.tv_sec() as u64 * 1000 + now.tv_nsec() as u64 / 1_000_000
    })
}

/// Notes that a point of the boot is reached: a line `NAME MILLISECONDS`.
pub fn stage(name: &str) {
    let at = uptime_ms();
    if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(STAGES) {
        let _ = file.write_all(format!("{name} {at}\n").as_bytes());
    }
}

/// A service's state for the agent: lines `key=value`, the file replaced whole.
pub struct ServiceStatus<'a> {
    pub name: &'a str,
    /// `waiting`, `running`, `done`, `back_off` or `failed`.
    pub state: &'a str,
    pub pid: Option<i32>,
    pub starts: u32,
    pub last_exit: Option<&'a str>,
}

impl ServiceStatus<'_> {
    pub fn write(&self) {
        let mut text = format!("state={}\nstarts={}\n", self.state, self.starts);
        if let Some(pid) = self.pid {
            text.push_str(&format!("pid={pid}\n"));
        }
        if let Some(exit) = self.last_exit {
            text.push_str(&format!("last_exit={exit}\n"));
        }
        let path = format!("{FOLDER}/{}", self.name);
        // Dotted while it is being written: readers skip it.
        let new = format!("{FOLDER}/.{}", self.name);
        if std::fs::write(&new, text).is_ok() {
            let _ = std::fs::rename(new, path);
        }
    }
}
