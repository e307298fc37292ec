//! An exec's process at the supervisor: its specification, its input and output, its end.

use super::Exec;
use crate::container::{
    Container, OUR_SHIM, Output, ProcessRequest, any, log_uri, make_fifo, open_stdin, process_spec,
    wait_for_exit,
};
use crate::error::{ApiError, ApiResult};
use crate::state::Daemon;
use crate::supervisor::api;
use longshore_container_log::{AttachClient, AttachOptions, Driver, LogConfig, Streams};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::sync::watch;

const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// How long a stream that has ended stays open for the exit code.
const EXIT_PATIENCE: Duration = Duration::from_secs(2);

/// A process that has been started.
pub struct Process {
    pub output: Option<Output>,
    pub input: Option<pipe::Sender>,
}

/// Its pipes and its log writer's socket.
fn folder(daemon: &Daemon, exec: &Exec) -> PathBuf {
    daemon
        .containers
        .runtime_folder(&exec.container_id)
        .join(&exec.id[..16])
}

/// Creates the process, attaches to it, then starts it, so that no output is missed.
pub async fn launch(
    daemon: &Daemon,
    container: &Container,
    exec: &Exec,
    attached: bool,
) -> ApiResult<Process> {
    let config = &exec.config;
    let folder = folder(daemon, exec);
    std::fs::create_dir_all(&folder)?;
    let wanted = ProcessRequest {
        args: &config.cmd,
        env: &config.env,
        user: &config.user,
        working_dir: &config.working_dir,
        tty: config.tty,
        privileged: config.privileged,
        console_size: config.console_size,
    };
    let spec = process_spec(daemon, container, &wanted).await?;
    let mut request = api::ExecProcessRequest {
        container_id: container.id.clone(),
        exec_id: exec.id.clone(),
        terminal: config.tty,
        spec: Some(any(PROCESS_TYPE, serde_json::to_vec(&spec)?)),
        ..Default::default()
    };
    let pipes = attached && container.shim != OUR_SHIM;
    if pipes {
        request.stdout = make_fifo(&folder, "stdout")?.to_string_lossy().into_owned();
        if !config.tty {
            request.stderr = make_fifo(&folder, "stderr")?.to_string_lossy().into_owned();
        }
    } else if attached {
        let mut log = LogConfig::new(&exec.id, &folder);
        log.driver = Driver::None;
        request.stdout = log_uri(&daemon.containers, &log);
        if !config.tty {
            request.stderr = request.stdout.clone();
        }
    }
    let with_input = attached && config.attach_stdin;
    if with_input {
        request.stdin = make_fifo(&folder, "stdin")?.to_string_lossy().into_owned();
    }
    let [stdin, stdout] = [&request.stdin, &request.stdout].map(PathBuf::from);
    let stderr = (!config.tty).then(|| PathBuf::from(&request.stderr));
    let mut tasks = daemon.supervisor.tasks();
    tasks.exec(request).await.map_err(failed)?;
    let started = async {
        let output = match (attached, pipes) {
            (false, _) => None,
            (true, true) => Some(Output::open_pipes(&stdout, stderr.as_deref())?),
            (true, false) => {
                let stdout = config.attach_stdout || config.tty;
                Some(Output::Log(
                    connect(&folder, stdout, config.attach_stderr).await?,
                ))
            }
        };
        let start = api::StartRequest {
            container_id: container.id.clone(),
            exec_id: exec.id.clone(),
        };
        let pid = tasks
            .clone()
            .start(start)
            .await
            .map_err(failed)?
            .into_inner()
            .pid;
        daemon.execs.change(&exec.id, |exec| exec.pid = pid);
        let input = if with_input {
            Some(open_stdin(&stdin)?)
        } else {
            None
        };
        Ok(Process { output, input })
    };
    let started = started.await;
    if started.is_err() {
        forget(daemon, exec).await;
    }
    started
}

fn failed(status: tonic::Status) -> ApiError {
    ApiError::from(status)
}

async fn connect(folder: &std::path::Path, stdout: bool, stderr: bool) -> ApiResult<AttachClient> {
    let streams = Streams {
        stdout,
        stderr,
        wake: false,
    };
    AttachClient::connect(
        folder,
        AttachOptions {
            streams,
            ..AttachOptions::default()
        },
    )
    .await
    .map_err(|error| ApiError::internal(format!("connecting to the command's output: {error}")))
}

/// Waits for the process's end in the background and takes note of it.
pub fn monitor(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    exec: &Exec,
) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    let (daemon, container, exec) = (daemon.clone(), container.clone(), exec.clone());
    tokio::spawn(async move {
        let exit = wait_for_exit(&daemon, &exec.container_id, &exec.id).await;
        ended(&daemon, &container, &exec, exit.code);
        sender.send_replace(true);
        forget(&daemon, &exec).await;
    });
    receiver
}

/// Told before it is written down: a daemon killed in between tells it twice rather than never.
fn ended(daemon: &Daemon, container: &Container, exec: &Exec, code: i32) {
    let more = [("execID", exec.id.clone()), ("exitCode", code.to_string())];
    daemon.containers.publish(container, "exec_die", &more);
    daemon.execs.change(&exec.id, |exec| {
        exec.running = false;
        exec.exit_code = Some(code);
    });
}

/// Lets the shim forget a process whose exit is known. Only then its output ends for who reads it, so that a supervisor
/// that restarts just now is waited for.
pub async fn forget(daemon: &Daemon, exec: &Exec) {
    let deleted = daemon.supervisor.retry(|supervisor| {
        let request = api::DeleteProcessRequest {
            container_id: exec.container_id.clone(),
            exec_id: exec.id.clone(),
        };
        async move { supervisor.tasks().delete_process(request).await }
    });
    let _ = deleted.await;
    let _ = std::fs::remove_dir_all(folder(daemon, exec));
}

/// `SIGKILL`, for a process that nobody waits for any more.
pub async fn kill(daemon: &Daemon, exec: &Exec) {
    let request = api::KillRequest {
        container_id: exec.container_id.clone(),
        exec_id: exec.id.clone(),
        signal: 9,
        all: false,
    };
    if let Err(status) = daemon.supervisor.tasks().kill(request).await {
        tracing::debug!(%status, exec = exec.id, "killing a command");
    }
}

/// Returns when the exit code is known: clients ask for it as soon as their stream ends. A process may close its
/// output and run on; its client is not held for it.
pub async fn known(ended: &mut watch::Receiver<bool>) {
    let _ = tokio::time::timeout(EXIT_PATIENCE, ended.wait_for(|ended| *ended)).await;
}
