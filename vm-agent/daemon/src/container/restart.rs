//! Restart policies: whether a container starts again after it has ended, and when.

use super::config::RestartPolicy;
use super::record::{State, Status};
use super::store::Entry;
use super::task;
use crate::state::Daemon;
use std::sync::Arc;
use std::time::Duration;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A run of this length counts as a success: the delay starts over.
const LONG_RUN: Duration = Duration::from_secs(10);

/// The delay before each restart; doubles while runs are short, as Docker's.
#[derive(Debug, Default, Clone)]
pub struct Backoff {
    next: Option<Duration>,
}

impl Backoff {
    /// The delay after a run of length `ran`.
    pub fn next(&mut self, ran: Duration) -> Duration {
        if ran >= LONG_RUN {
            self.next = None;
        }
        let delay = self.next.unwrap_or(FIRST_DELAY);
        self.next = Some((delay * 2).min(LONGEST_DELAY));
        delay
    }
}

/// Whether the policy starts the container again after this exit.
pub fn wanted(policy: &RestartPolicy, state: &State, stopped_by_hand: bool) -> bool {
    if stopped_by_hand {
        return false;
    }
    match policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => {
            let left = policy.maximum_retry_count == 0
                || i64::from(state.restart_count) < policy.maximum_retry_count;
            state.exit_code != 0 && left
        }
        _ => false,
    }
}

/// Whether a container that is not running starts when the daemon comes up in a new boot.
pub fn wanted_at_boot(policy: &RestartPolicy, state: &State) -> bool {
    match (policy.name.as_str(), state.status) {
        (_, Status::Created | Status::Removing | Status::Dead) => false,
        ("always", _) => true,
        _ => wanted(policy, state, state.stopped_by_hand),
    }
}

/// Starts the container after `delay`, unless it is stopped, started or removed before.
pub fn after(daemon: &Arc<Daemon>, entry: &Arc<Entry>, delay: Duration) {
    let (daemon, entry) = (daemon.clone(), entry.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = entry.cancel_restart.notified() => return,
            // It is started when the engine is.
            () = daemon.closing.cancelled() => return,
        }
        let Ok(_operation) = entry.operate().await else {
            return;
        };
        if entry.now().state.status != Status::Restarting {
            return;
        }
        if let Err(error) = task::start(&daemon, &entry).await {
            tracing::warn!(%error, id = %entry.now().id, "restarting a container");
            retry(&daemon, &entry);
        }
    });
}

/// A start that fails counts as a run of no length.
fn retry(daemon: &Arc<Daemon>, entry: &Arc<Entry>) {
    let container = entry.now();
    let mut state = container.state.clone();
    state.restart_count += 1;
    if !wanted(&container.host_config.restart_policy, &state, false) {
        return;
    }
    let delay = entry.live().backoff.next(Duration::ZERO);
    daemon.containers.change_state(entry, false, |current| {
        *current = State {
            status: Status::Restarting,
            ..state
        };
    });
    after(daemon, entry, delay);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_minute_and_start_over_after_a_long_run() {
        let mut backoff = Backoff::default();
        let millis: Vec<u128> = (0..12)
            .map(|_| backoff.next(Duration::ZERO).as_millis())
            .collect();
        assert_eq!(millis[..5], [100, 200, 400, 800, 1600]);
        assert_eq!(millis[10..], [60_000, 60_000]);
        assert_eq!(backoff.next(LONG_RUN), FIRST_DELAY);
        assert_eq!(backoff.next(Duration::ZERO), FIRST_DELAY * 2);
    }

    #[test]
    fn policies() {
        // name, retries, exit code, restarts so far, stopped by hand, after exit, at boot
        let table = [
            ("no", 0, 1, 0, false, false, false),
            ("", 0, 1, 0, false, false, false),
            ("always", 0, 0, 9, false, true, true),
            ("always", 0, 0, 0, true, false, true),
            ("unless-stopped", 0, 0, 0, false, true, true),
            ("unless-stopped", 0, 0, 0, true, false, false),
            ("on-failure", 0, 0, 0, false, false, false),
            ("on-failure", 0, 1, 99, false, true, true),
            ("on-failure", 3, 1, 2, false, true, true),
            ("on-failure", 3, 1, 3, false, false, false),
        ];
        for (name, retries, exit_code, restart_count, by_hand, after, boot) in table {
            let policy = RestartPolicy {
                name: name.into(),
                maximum_retry_count: retries,
            };
            let state = State {
                status: Status::Exited,
                exit_code,
                restart_count,
                stopped_by_hand: by_hand,
                ..State::default()
            };
            assert_eq!(wanted(&policy, &state, by_hand), after, "{name}");
            assert_eq!(wanted_at_boot(&policy, &state), boot, "{name} at boot");
        }
    }
}
