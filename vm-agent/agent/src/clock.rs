//! The guest's clock, set from the host's.

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
#[error("set the clock: {0}")]
pub struct ClockError(#[from] nix::errno::Errno);

/// At boot: the machine's own clock is good to a second; it is only wrong when it is behind the moment at which the host
/// started the VM.
pub fn at_boot(host_time_unix_ns: u64) -> Result<(), ClockError> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_REALTIME)?);
    let host = Duration::from_nanos(host_time_unix_ns);
    if now + Duration::from_secs(2) < host {
        set(host_time_unix_ns)
    } else {
        Ok(())
    }
}

pub fn set(unix_ns: u64) -> Result<(), ClockError> {
    let time = TimeSpec::from_duration(Duration::from_nanos(unix_ns));
    Ok(clock_settime(ClockId::CLOCK_REALTIME, time)?)
}
