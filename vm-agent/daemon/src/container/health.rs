//! Health checks: a command in the container at intervals, what came of it, and the container's health by that.
//!
//! ```text
//!                 success                    `retries` failures in a row
//! starting ───────────────────▶ healthy ◀─────────────────────▶ unhealthy
//!     └────── `retries` failures after the start period ────────────▲
//! ```
//!
//! The container's end and a pause end the checks and leave it unhealthy, as under Docker.

use super::config::{ContainerConfig, HealthConfig};
use super::record::{State, timestamp};
use super::store::Entry;
use crate::exec;
use crate::state::Daemon;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Probes that `inspect` shows.
const KEPT: usize = 5;
/// Bytes of a probe's output that are kept.
const OUTPUT_LIMIT: usize = 4096;
/// A probe without an exit code: it took too long, or could not be run.
const NO_CODE: i32 = -1;

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: i64 = 3;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    #[default]
    Starting,
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        }
    }
}

/// A container's health, kept over restarts of the daemon.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Health {
    pub status: HealthStatus,
    pub failing_streak: i64,
    pub log: VecDeque<Probe>,
}

/// One run of the check.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probe {
    pub start: DateTime<Utc>,
    pub end: DateTime<Utc>,
    /// 0: healthy.
    pub exit_code: i32,
    pub output: String,
}

impl Health {
    /// `.State.Health` of `inspect`.
    pub fn shown(&self) -> Value {
        let log = self.log.iter().map(|probe| {
            json!({
                "Start": timestamp(Some(probe.start)),
                "End": timestamp(Some(probe.end)),
                "ExitCode": probe.exit_code,
                "Output": probe.output,
            })
        });
        json!({
            "Status": self.status.as_str(),
            "FailingStreak": self.failing_streak,
            "Log": log.collect::<Vec<_>>(),
        })
    }

    /// Takes a probe's result in. `counts`: false for a failure within the start period.
    fn take(&mut self, probe: Probe, counts: bool, retries: i64) {
        match (probe.exit_code, counts) {
            (0, _) => {
                self.failing_streak = 0;
                self.status = HealthStatus::Healthy;
            }
            (_, false) => {}
            (_, true) => {
                self.failing_streak += 1;
                if self.failing_streak >= retries {
                    self.status = HealthStatus::Unhealthy;
                }
            }
        }
        if self.log.len() >= KEPT {
            self.log.pop_front();
        }
        self.log.push_back(probe);
    }
}

/// What is run, and when.
struct Check {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: i64,
}

impl Check {
    /// `None`: the container has no check, or `NONE`.
    fn of(config: &ContainerConfig) -> Option<Self> {
        let health = config.healthcheck.as_ref()?;
        let (kind, words) = health.test.split_first()?;
        let command = match kind.as_str() {
            "CMD" => words.to_vec(),
            "CMD-SHELL" => {
                let default = || ["/bin/sh", "-c"].map(str::to_owned).to_vec();
                let shell = config.shell.clone().filter(|shell| !shell.is_empty());
                let shell = shell.unwrap_or_else(default);
                shell.into_iter().chain(words.iter().cloned()).collect()
            }
            _ => return None,
        };
        let HealthConfig { retries, .. } = *health;
        Some(Check {
            command,
            interval: duration(health.interval, INTERVAL),
            timeout: duration(health.timeout, TIMEOUT),
            start_period: duration(health.start_period, Duration::ZERO),
            start_interval: duration(health.start_interval, START_INTERVAL),
            retries: if retries > 0 { retries } else { RETRIES },
        })
    }

    fn in_start_period(&self, state: &State, at: DateTime<Utc>) -> bool {
        let status = state.health.as_ref().map(|health| health.status);
        let age = state
            .started_at
            .map(|started| (at - started).to_std().unwrap_or_default());
        status == Some(HealthStatus::Starting) && age.is_some_and(|age| age < self.start_period)
    }

    /// From the end of one probe (or the start) to the next.
    fn pause(&self, state: &State) -> Duration {
        match self.in_start_period(state, Utc::now()) {
            true => self.start_interval,
            false => self.interval,
        }
    }

    async fn probe(
        &self,
        daemon: &Arc<Daemon>,
        entry: &Entry,
        stop: &CancellationToken,
    ) -> Option<Probe> {
        let start = Utc::now();
        let wanted = exec::Probe {
            command: self.command.clone(),
            timeout: self.timeout,
            output_limit: OUTPUT_LIMIT,
        };
        let result = exec::probe(daemon, &entry.now(), wanted, stop).await;
        let (exit_code, output) = match result {
            Ok(None) => return None,
            Ok(Some(ran)) => match ran.exit_code {
                Some(code) => (code, ran.output),
                None => (NO_CODE, too_long(self.timeout, &ran.output)),
            },
            Err(error) => (NO_CODE, error.message),
        };
        Some(Probe {
            start,
            end: Utc::now(),
            exit_code,
            output,
        })
    }
}

/// Nanoseconds; 0 means the default.
fn duration(nanoseconds: i64, default: Duration) -> Duration {
    match u64::try_from(nanoseconds) {
        Ok(0) | Err(_) => default,
        Ok(nanoseconds) => Duration::from_nanos(nanoseconds),
    }
}

fn too_long(timeout: Duration, output: &str) -> String {
    let said = match output {
        "" => String::new(),
        output => format!(": {output}"),
    };
    format!("Health check exceeded timeout ({}){said}", go(timeout))
}

/// A duration as Go prints it: `1m30s`, `1.5s`, `20ms`.
fn go(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let decimal = |unit: u128, name: &str| {
        let fraction = format!(
            "{:0width$}",
            nanoseconds % unit,
            width = unit.ilog10() as usize
        );
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        (nanoseconds / unit, format!("{point}{fraction}{name}"))
    };
    let (unit, name) = match nanoseconds {
        ..1000 => return format!("{nanoseconds}ns"),
        1000..1_000_000 => (1000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let (whole, rest) = decimal(unit, name);
    match whole {
        60.. if name == "s" => {
            let (minutes, seconds) = (whole / 60, whole % 60);
            match minutes {
                60.. => format!("{}h{}m{seconds}{rest}", minutes / 60, minutes % 60),
                _ => format!("{minutes}m{seconds}{rest}"),
            }
        }
        _ => format!("{whole}{rest}"),
    }
}

/// At a start: nothing is known yet; earlier probes stay to be read.
pub fn reset(config: &ContainerConfig, state: &mut State) {
    if Check::of(config).is_none() {
        state.health = None;
        return;
    }
    let health = state.health.get_or_insert_default();
    health.status = HealthStatus::Starting;
    health.failing_streak = 0;
}

/// When the checks end: nobody vouches for the container any more.
pub fn ended(state: &mut State) {
    if let Some(health) = &mut state.health {
        health.status = HealthStatus::Unhealthy;
    }
}

/// Ends the checks. No result is taken note of after this returns.
pub fn stop(entry: &Entry) {
    if let Some(checks) = entry.live().health.take() {
        checks.cancel();
    }
}

/// Begins the checks, if the container has any; they go on where they were after a restart of the daemon.
pub fn watch(daemon: &Arc<Daemon>, entry: &Arc<Entry>) {
    let Some(check) = Check::of(&entry.now().config) else {
        return;
    };
    let token = CancellationToken::new();
    let former = entry.live().health.replace(token.clone());
    if let Some(former) = former {
        former.cancel();
    }
    tokio::spawn(run(daemon.clone(), entry.clone(), check, token));
}

async fn run(daemon: Arc<Daemon>, entry: Arc<Entry>, check: Check, stop: CancellationToken) {
    loop {
        let pause = check.pause(&entry.now().state);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        let Some(probe) = check.probe(&daemon, &entry, &stop).await else {
            return;
        };
        note(&daemon, &entry, &check, probe, &stop);
    }
}

fn note(daemon: &Daemon, entry: &Entry, check: &Check, probe: Probe, stop: &CancellationToken) {
    let mut news = None;
    daemon.containers.change_state_if(entry, false, |state| {
        // The end of the checks came first.
        if stop.is_cancelled() {
            return false;
        }
        let counts = !check.in_start_period(state, probe.start);
        let health = state.health.get_or_insert_default();
        let before = health.status;
        health.take(probe, counts, check.retries);
        news = (health.status != before).then_some(health.status);
        true
    });
    if let Some(status) = news {
        let action = format!("health_status: {}", status.as_str());
        daemon.containers.publish(&entry.now(), &action, &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(exit_code: i32) -> Probe {
        Probe {
            start: Utc::now(),
            end: Utc::now(),
            exit_code,
            output: String::new(),
        }
    }

    #[test]
    fn health_follows_the_probes() {
        use HealthStatus::{Healthy, Starting, Unhealthy};
        // exit code, counts, status and streak after it
        let table = [
            (1, false, Starting, 0),
            (1, true, Starting, 1),
            (0, true, Healthy, 0),
            (1, true, Healthy, 1),
            (1, false, Healthy, 1),
            (-1, true, Unhealthy, 2),
            (0, true, Healthy, 0),
        ];
        let mut health = Health::default();
        for (code, counts, status, streak) in table {
            health.take(probe(code), counts, 2);
            assert_eq!((health.status, health.failing_streak), (status, streak));
        }
        assert_eq!(health.log.len(), KEPT);
    }

    #[test]
    fn checks_are_read() {
        let config = |test: &[&str]| ContainerConfig {
            healthcheck: Some(HealthConfig {
                test: test.iter().map(|word| (*word).to_owned()).collect(),
                interval: 2_000_000_000,
                ..Default::default()
            }),
            ..Default::default()
        };
        let table: [(&[&str], Option<&[&str]>); 4] = [
            (&["CMD", "a", "b"], Some(&["a", "b"])),
            (&["CMD-SHELL", "a b"], Some(&["/bin/sh", "-c", "a b"])),
            (&["NONE"], None),
            (&[], None),
        ];
        for (test, expected) in table {
            let check = Check::of(&config(test));
            let command = check.as_ref().map(|check| check.command.clone());
            let expected =
                expected.map(|words| words.iter().map(|word| (*word).to_owned()).collect());
            assert_eq!(command, expected, "{test:?}");
            if let Some(check) = check {
                assert_eq!(check.interval, Duration::from_secs(2));
                assert_eq!((check.timeout, check.retries), (TIMEOUT, RETRIES));
            }
        }
    }

    #[test]
    fn durations_are_gos() {
        let table = [
            (Duration::from_millis(20), "20ms"),
            (Duration::from_millis(1500), "1.5s"),
            (Duration::from_secs(1), "1s"),
            (Duration::from_secs(90), "1m30s"),
            (Duration::from_secs(3600), "1h0m0s"),
        ];
        for (duration, expected) in table {
            assert_eq!(go(duration), expected);
        }
    }
}
