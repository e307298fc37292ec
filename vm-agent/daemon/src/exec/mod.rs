//! Further processes in running containers: `docker exec`.

mod adopt;
mod probe;
mod process;
mod store;

pub use adopt::adopt;
pub use probe::{Probe, probe};
pub use store::{Exec, Execs};

use process::Process;

use crate::container::{
    Container, MULTIPLEXED, RAW, Status, close_stdin, copy_input, copy_output, frame,
    parse_detach_keys, window_size,
};
use crate::error::{ApiError, ApiResult};
use crate::http_message::{ApiRequest, ApiResponse, empty, json, ok_json};
use crate::router::{Routed, complete, handle};
use crate::server::{Connection, hijack};
use crate::state::Daemon;
use crate::supervisor::api;
use bytes::Bytes;
use http::StatusCode;
use longshore_container_log::StreamKind;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

/// The body of `POST /containers/{id}/exec`.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExecConfig {
    pub user: String,
    pub privileged: bool,
    pub tty: bool,
    pub console_size: Option<[u32; 2]>,
    pub attach_stdin: bool,
    pub attach_stderr: bool,
    pub attach_stdout: bool,
    pub detach_keys: String,
    pub env: Vec<String>,
    pub working_dir: String,
    pub cmd: Vec<String>,
}

/// The body of `POST /exec/{id}/start`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct StartConfig {
    detach: bool,
    console_size: Option<[u32; 2]>,
}

pub fn route(daemon: Arc<Daemon>, request: ApiRequest) -> Routed {
    let path = request.path.clone();
    match (request.method.as_str(), path.segments().as_slice()) {
        ("POST", ["containers", id, "exec"]) => {
            let id = (*id).to_owned();
            complete(create(daemon, request, id))
        }
        ("POST", ["exec", id, "start"]) => {
            let id = (*id).to_owned();
            complete(start(daemon, request, id))
        }
        ("POST", ["exec", id, "resize"]) => {
            let id = (*id).to_owned();
            handle(resize(daemon, request, id))
        }
        ("GET", ["exec", id, "json"]) => {
            let id = (*id).to_owned();
            handle(inspect(daemon, id))
        }
        _ => Routed::NotMine(request),
    }
}

/// The running container that an exec is for, or why there is none.
fn running(daemon: &Daemon, id: &str) -> ApiResult<Arc<Container>> {
    let container = daemon.containers.get(id)?;
    match container.state.status {
        Status::Running => Ok(container),
        Status::Paused => Err(ApiError::conflict(format!(
            "Container {id} is paused, unpause the container before exec"
        ))),
        Status::Restarting => Err(ApiError::conflict(format!(
            "container {} is restarting, wait until the container is running",
            container.id
        ))),
        _ => Err(ApiError::conflict(format!(
            "container {} is not running",
            container.id
        ))),
    }
}

async fn create(
    daemon: Arc<Daemon>,
    mut request: ApiRequest,
    id: String,
) -> ApiResult<ApiResponse> {
    daemon.containers.settled().await;
    let mut body: Value = request.json_or_default().await?;
    crate::container::config::without_nulls(&mut body);
    if body.is_null() {
        body = json!({});
    }
    let config: ExecConfig = serde_json::from_value(body)
        .map_err(|error| ApiError::bad_request(format!("invalid JSON: {error}")))?;
    if config.cmd.is_empty() || config.cmd[0].is_empty() {
        return Err(ApiError::bad_request("No exec command specified"));
    }
    if !config.detach_keys.is_empty() && parse_detach_keys(&config.detach_keys).is_err() {
        return Err(ApiError::internal(format!(
            "Invalid escape keys ({}) provided",
            config.detach_keys
        )));
    }
    let container = running(&daemon, &id)?;
    let exec = Exec::new(&container, config);
    publish(&daemon, &container, &exec, "exec_create");
    let exec_id = exec.id.clone();
    daemon.execs.insert(exec);
    // One that was removed meanwhile took only the execs that it had.
    if let Err(error) = daemon.containers.get(&container.id) {
        daemon.execs.forget(&exec_id);
        return Err(error);
    }
    json(StatusCode::CREATED, &json!({ "Id": exec_id }))
}

fn publish(daemon: &Daemon, container: &Container, exec: &Exec, what: &str) {
    let action = format!("{what}: {}", exec.config.cmd.join(" "));
    daemon
        .containers
        .publish(container, &action, &[("execID", exec.id.clone())]);
}

async fn start(daemon: Arc<Daemon>, mut request: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    daemon.containers.settled().await;
    let start: StartConfig = request.json_or_default().await?;
    let mut exec = daemon.execs.get(&id)?;
    if exec.started {
        let what = if exec.running {
            "is already running"
        } else {
            "has already run"
        };
        return Err(ApiError::conflict(format!("exec command {id} {what}")));
    }
    let container = running(&daemon, &exec.container_id).map_err(|error| {
        // An exec ends with its container's run, and is then known no more.
        match daemon.containers.get(&exec.container_id) {
            Ok(container) if container.running => error,
            _ => ApiError::not_found(format!("No such exec instance: {id}")),
        }
    })?;
    let detach_keys = match exec.config.detach_keys.as_str() {
        "" => vec![16, 17],
        keys => parse_detach_keys(keys)?,
    };
    exec.config.console_size = start.console_size.or(exec.config.console_size);
    daemon.execs.change(&id, |exec| exec.started = true);
    let config = &exec.config;
    let attached =
        !start.detach && (config.attach_stdin || config.attach_stdout || config.attach_stderr);
    if !attached {
        launch(&daemon, &container, &exec, false).await?;
        return Ok(empty(StatusCode::OK));
    }
    // Docker has the connection before it starts the command: clients may read the answer's head greedily and lose output that
    // comes with it.
    let kind = if config.tty { RAW } else { MULTIPLEXED };
    hijack(request, kind, move |connection| async move {
        converse(&daemon, &container, &exec, &detach_keys, connection).await;
    })
}

/// Starts the process and watches it; what kept it from starting is its exit code.
async fn launch(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    exec: &Exec,
    attached: bool,
) -> ApiResult<(Process, watch::Receiver<bool>)> {
    daemon.execs.change(&exec.id, |exec| exec.running = true);
    match process::launch(daemon, container, exec, attached).await {
        Ok(process) => {
            publish(daemon, container, exec, "exec_start");
            let ended = process::monitor(daemon, container, exec);
            Ok((process, ended))
        }
        Err(error) => {
            let code = crate::container::exit_code_of(&error);
            daemon.execs.change(&exec.id, |exec| {
                exec.running = false;
                exec.exit_code = Some(code);
            });
            Err(match code {
                126 | 127 => ApiError::bad_request(error.message),
                _ => error,
            })
        }
    }
}

/// Copies both ways until the process has ended or the client detaches.
async fn converse(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    exec: &Exec,
    detach_keys: &[u8],
    connection: Box<dyn Connection>,
) {
    let tty = exec.config.tty;
    let (reader, mut writer) = tokio::io::split(connection);
    match launch(daemon, container, exec, true).await {
        Err(error) => {
            let _ = writer.write_all(&told(tty, &error)).await;
        }
        Ok((process, mut ended)) => {
            let copy = async {
                if let Some(output) = process.output {
                    copy_output(output, &mut writer, tty).await;
                }
                process::known(&mut ended).await;
            };
            let feed = async {
                let keys = if tty { detach_keys } else { &[] };
                let Some(input) = process.input else {
                    return std::future::pending().await;
                };
                if !copy_input(reader, input, keys).await {
                    close_stdin(daemon, &exec.container_id, &exec.id).await;
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = copy => {}
                () = feed => {}
            }
        }
    }
    let _ = writer.shutdown().await;
}

/// What went wrong comes as output. The exit code is then in the exec's own description.
fn told(tty: bool, error: &ApiError) -> Bytes {
    let words = format!("{}\r\n", error.message);
    match tty {
        true => words.into(),
        false => frame(StreamKind::Stdout, words.as_bytes()),
    }
}

async fn resize(daemon: Arc<Daemon>, request: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    daemon.containers.settled().await;
    let exec = daemon.execs.get(&id)?;
    let (height, width) = window_size(&request)?;
    if !exec.started {
        return Err(ApiError::internal("timeout waiting for exec session ready"));
    }
    let resize = api::ResizePtyRequest {
        container_id: exec.container_id.clone(),
        exec_id: exec.id.clone(),
        width,
        height,
    };
    daemon.supervisor.tasks().resize_pty(resize).await?;
    Ok(empty(StatusCode::OK))
}

async fn inspect(daemon: Arc<Daemon>, id: String) -> ApiResult<ApiResponse> {
    daemon.containers.settled().await;
    let exec = daemon.execs.get(&id)?;
    let config = &exec.config;
    let mut shown = json!({
        "ID": exec.id,
        "Running": exec.running,
        "ExitCode": exec.exit_code,
        "ProcessConfig": {
            "tty": config.tty,
            "entrypoint": config.cmd.first(),
            "arguments": config.cmd.get(1..).unwrap_or_default(),
            "privileged": config.privileged,
        },
        "OpenStdin": config.attach_stdin,
        "OpenStderr": config.attach_stderr,
        "OpenStdout": config.attach_stdout,
        "CanRemove": false,
        "ContainerID": exec.container_id,
        "DetachKeys": config.detach_keys,
        "Pid": exec.pid,
    });
    if !config.user.is_empty() {
        shown["ProcessConfig"]["user"] = json!(config.user);
    }
    ok_json(&shown)
}
