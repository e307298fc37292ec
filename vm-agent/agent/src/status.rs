//! What the host is told of the guest: init's files, put together.

use crate::setup::Agent;
use crate::shares;
use crate::watched::watch;
use longshore_protocol::control::{BootStage, ServiceState, ServiceStatus, Status};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::time::{ClockId, clock_gettime};
use std::fs::OpenOptions;
use std::io::{self, Write};
use tokio::io::Interest;

const STAGES: &str = "/run/longshore/stages";
const SERVICES: &str = "/run/longshore/services";
/// In the order in which init starts them.
const ORDER: [&str; 4] = ["prepare-disk", "agent", "supervisor", "daemon"];

/// Notes that a point of the boot is reached, once: the agent may have been restarted.
pub fn stage(name: &str) {
    let known = stages().iter().any(|stage| stage.name == name);
    if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(STAGES)
        && !known
    {
        let _ = file.write_all(format!("{name} {}\n", uptime_ms()).as_bytes());
    }
}

pub fn gather(agent: &Agent) -> Status {
    let services = services();
    let mut problems = agent.problems();
    problems.extend(services.iter().filter_map(problem_of));
    let shares = shares::list();
    problems.extend(
        shares
            .iter()
            .filter_map(|status| status.error.clone().filter(|_| !status.mounted)),
    );
    let hostname = nix::unistd::gethostname().map_or_else(
        |_| String::new(),
        |name| name.to_string_lossy().into_owned(),
    );
    let ready = agent.is_set_up() && !services.is_empty() && services.iter().all(is_well);
    Status {
        hostname,
        uptime_ms: uptime_ms(),
        services,
        stages: stages(),
        shares,
        problems,
        ready,
    }
}

fn is_well(service: &ServiceStatus) -> bool {
    matches!(service.state, ServiceState::Running | ServiceState::Done)
}

/// A failed one-shot says why in the last line of its log.
fn problem_of(service: &ServiceStatus) -> Option<String> {
    match service.state {
        ServiceState::Failed => {
            let log = std::fs::read_to_string(format!("/run/longshore/log/{}.log", service.name))
                .unwrap_or_default();
            let why = log.lines().next_back().unwrap_or("it left no word");
            Some(format!("{} failed: {why}", service.name))
        }
        ServiceState::BackOff => {
            let exit = service
                .last_exit
                .as_deref()
                .unwrap_or("could not be started");
            Some(format!(
                "{} keeps ending ({exit}); it is started again with growing pauses",
                service.name
            ))
        }
        _ => None,
    }
}

/// Waits until no service is about to start: each runs, is done, or has failed, or waits for one that has.
pub async fn services_settled() -> io::Result<()> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    inotify.add_watch(SERVICES, AddWatchFlags::IN_MOVED_TO)?;
    let inotify = watch(inotify, Interest::READABLE)?;
    while !settled(&services()) {
        let mut ready = inotify.readable().await?;
        // What changed does not matter: everything is looked at again.
        let _ = ready.try_io(|inotify| inotify.get_ref().read_events().map_err(io::Error::from));
    }
    Ok(())
}

fn settled(services: &[ServiceStatus]) -> bool {
    let failed = services
        .iter()
        .any(|service| service.state == ServiceState::Failed);
    let still = |service: &ServiceStatus| match service.state {
        ServiceState::Waiting => failed,
        ServiceState::BackOff => service.starts > 2,
        _ => true,
    };
    // The one-shot "runs" until the disk is mounted; that is not the end.
    let disk_busy = services
        .iter()
        .any(|service| service.name == ORDER[0] && service.state == ServiceState::Running);
    !services.is_empty() && !disk_busy && services.iter().all(still)
}

pub fn services() -> Vec<ServiceStatus> {
    let mut services: Vec<ServiceStatus> = std::fs::read_dir(SERVICES)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry
                .file_name()
                .into_string()
                .ok()
                .filter(|name| !name.starts_with('.'))?;
            Some(parse_service(
                &name,
                &std::fs::read_to_string(entry.path()).ok()?,
            ))
        })
        .collect();
    services.sort_by_key(|service| ORDER.iter().position(|name| *name == service.name));
    services
}

fn parse_service(name: &str, text: &str) -> ServiceStatus {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    ServiceStatus {
        name: name.into(),
        state: match value("state") {
            Some("running") => ServiceState::Running,
            Some("done") => ServiceState::Done,
            Some("back_off") => ServiceState::BackOff,
            Some("failed") => ServiceState::Failed,
            _ => ServiceState::Waiting,
        },
        pid: value("pid").and_then(|pid| pid.parse().ok()),
        starts: value("starts")
            .and_then(|starts| starts.parse().ok())
            .unwrap_or(0),
        last_exit: value("last_exit").map(String::from),
    }
}

fn stages() -> Vec<BootStage> {
    let text = std::fs::read_to_string(STAGES).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (name, at) = line.rsplit_once(' ')?;
            Some(BootStage {
                name: name.into(),
                uptime_ms: at.parse().ok()?,
            })
        })
        .collect()
}

fn uptime_ms() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |now| std::time::Duration::from(now).as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_settled_when_nothing_is_about_to_start() {
        let all = |states: [&str; 4]| -> Vec<ServiceStatus> {
            let text = |state: &str| format!("state={state}\nstarts=1\npid=7\nlast_exit=exit 1\n");
            ORDER
                .iter()
                .zip(states)
                .map(|(name, state)| parse_service(name, &text(state)))
                .collect()
        };
        let cases = [
            (["done", "running", "running", "running"], true),
            (["running", "running", "waiting", "waiting"], false),
            (["done", "running", "running", "waiting"], false),
            (["done", "running", "running", "back_off"], false),
            (["failed", "running", "waiting", "waiting"], true),
        ];
        for (states, expected) in cases {
            assert_eq!(settled(&all(states)), expected, "{states:?}");
        }
        let service = &all(cases[0].0)[0];
        assert_eq!(
            (service.pid, service.starts, service.last_exit.as_deref()),
            (Some(7), 1, Some("exit 1"))
        );
    }
}
