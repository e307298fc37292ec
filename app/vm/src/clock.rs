//! Keeps the guest's clock at the host's: told when the guest begins to run (at boot, after a pause), when the host has slept or
//! was set, and now and then, as two clocks never run alike.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use longshore_channel::Channel;
use tokio::{sync::watch, time::sleep};

use crate::{control::VmState, guest};

/// How often this machine's two clocks are compared; nothing portable tells that a machine has slept.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The guest's counter was measured to some millionths (`tsc`): in this time it goes wrong by milliseconds.
const TELL_INTERVAL: Duration = Duration::from_secs(600);
/// A step of the wall clock that is more than the kernel's slewing.
const STEP: Duration = Duration::from_millis(500);

/// Both clocks of this machine at one moment. A machine that sleeps stops the monotonic one alone.
#[derive(Clone, Copy)]
struct Moment {
    wall: Duration,
    monotonic: Instant,
}

impl Moment {
    fn now() -> Self {
        Self {
            wall: since_1970(),
            monotonic: Instant::now(),
        }
    }

    /// Whether the guest, told at this moment, must be told again.
    fn is_past(&self, now: &Self) -> bool {
        let run = now.monotonic.duration_since(self.monotonic);
        let step = (self.wall + run).abs_diff(now.wall);
        run >= TELL_INTERVAL || step >= STEP
    }
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Ends with the VM.
pub async fn keep(channel: Arc<dyn Channel>, mut states: watch::Receiver<VmState>) {
    let running = |state: &VmState| matches!(state, VmState::Running(_));
    while states.wait_for(running).await.is_ok() {
        let mut told = None;
        while running(&states.borrow_and_update()) {
            let now = Moment::now();
            if told.is_none_or(|told: Moment| told.is_past(&now)) {
                let unix_ns = now.wall.as_nanos() as u64;
                // An agent that is starting again is told next time.
                match guest::set_time(&*channel, unix_ns).await {
                    Ok(()) => told = Some(now),
                    Err(error) => tracing::debug!(%error, "the guest's clock is not set"),
                }
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = sleep(LOOK_INTERVAL) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_slept_or_was_set_is_noticed() {
        let told = Moment::now();
        let after = |run: Duration, wall: Duration| Moment {
            wall: told.wall + wall,
            monotonic: told.monotonic + run,
        };
        let (five, hour) = (Duration::from_secs(5), Duration::from_secs(3600));
        assert!(!told.is_past(&after(five, five)));
        assert!(!told.is_past(&after(five, five + Duration::from_millis(20))));
        assert!(told.is_past(&after(five, hour)), "slept");
        assert!(told.is_past(&after(five, Duration::ZERO)), "set back");
        assert!(told.is_past(&after(hour, hour)), "long ago");
    }
}
