//! The guest's clock, set from the host's.

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};
use std::time::Duration;

/// What the kernel slews in less than two minutes (500 millionths).
const SLEWED: Duration = Duration::from_millis(50);

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

/// At the host's word. A small difference is slewed away (`adjtime(3)`), so that no program sees the time go backwards.
pub fn follow(host_unix_ns: u64) -> Result<(), ClockError> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_REALTIME)?);
    let host = Duration::from_nanos(host_unix_ns);
    if now.abs_diff(host) > SLEWED {
        return set(host_unix_ns);
    }
    let behind = host.as_micros() as i64 - now.as_micros() as i64;
    // SAFETY: all of `timex` may be zero.
    let mut change: libc::timex = unsafe { std::mem::zeroed() };
    change.modes = libc::ADJ_OFFSET_SINGLESHOT;
    change.offset = behind;
    // SAFETY: the kernel reads and fills the one structure.
    let result = unsafe { libc::clock_adjtime(libc::CLOCK_REALTIME, &mut change) };
    nix::errno::Errno::result(result).map(drop)?;
    Ok(())
}

fn set(unix_ns: u64) -> Result<(), ClockError> {
    let time = TimeSpec::from_duration(Duration::from_nanos(unix_ns));
    Ok(clock_settime(ClockId::CLOCK_REALTIME, time)?)
}
