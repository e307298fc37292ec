//! After a restart of the daemon: the execs of an earlier one, found again at the supervisor.

use super::process;
use super::store::Exec;
use crate::container::Container;
use crate::container::exit::UNKNOWN_EXIT;
use crate::state::Daemon;
use crate::supervisor::api::{self, types::v1 as tasks};
use std::sync::Arc;

/// Called once it is known which containers run, before any request is answered.
pub async fn adopt(daemon: &Arc<Daemon>) {
    for container in daemon.containers.list() {
        for exec in daemon.execs.saved(&container.id) {
            adopt_one(daemon, &container, exec).await;
        }
    }
}

async fn adopt_one(daemon: &Arc<Daemon>, container: &Arc<Container>, mut exec: Exec) {
    let id = exec.id.clone();
    if !exec.started || exec.exit_code.is_some() {
        daemon.execs.insert(exec);
        return;
    }
    let get = daemon.supervisor.retry(|supervisor| {
        let request = api::GetRequest {
            container_id: exec.container_id.clone(),
            exec_id: exec.id.clone(),
        };
        async move { supervisor.tasks().get(request).await }
    });
    let process = get.await.ok().and_then(|found| found.process);
    match process.as_ref().map(tasks::Process::status) {
        Some(tasks::Status::Running | tasks::Status::Paused | tasks::Status::Stopped) => {
            exec.running = true;
            exec.pid = process.map_or(0, |process| process.pid);
            daemon.execs.insert(exec.clone());
            process::monitor(daemon, container, &exec);
        }
        // Never started, or gone with its container: nobody knows how it would have ended.
        _ => {
            daemon.execs.insert(exec.clone());
            daemon.execs.change(&id, |exec| {
                exec.running = false;
                exec.exit_code = Some(UNKNOWN_EXIT);
            });
            process::forget(daemon, &exec).await;
        }
    }
}
