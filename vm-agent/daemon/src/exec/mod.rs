//! Further processes in running containers: `docker exec`.

mod adopt;
mod probe;
mod process;
mod store;

pub use adopt::adopt;
pub use probe::{Probe, probe};
pub use store::{Exec, Execs};

use crate::container::{
    Container, MULTIPLEXED, RAW, Status, close_stdin, copy_input, copy_output, frame,
    parse_detach_keys, window_size,
};
use crate::error::{ApiError, ApiResult};
use crate::http_message::{ApiRequest, ApiResponse, empty, json, ok_json};
use crate::router::{Routed, complete, handle};
use crate::server::hijack;
use crate::state::Daemon;
use crate::supervisor::api;
use http::StatusCode;
use longshore_container_log::StreamKind;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

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
    let container = running(&daemon, &id)?;
    let exec = Exec::new(&container, config);
    publish(&daemon, &container, &exec, "exec_create");
    let answer = json(StatusCode::CREATED, &json!({ "Id": exec.id }));
    daemon.execs.insert(exec);
    answer
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
        return Err(ApiError::conflict(format!(
            "Error: Exec command {id} {what}"
        )));
    }
    let container = running(&daemon, &exec.container_id)?;
    let detach_keys = match exec.config.detach_keys.as_str() {
        "" => vec![16, 17],
        keys => parse_detach_keys(keys)?,
    };
    exec.config.console_size = start.console_size.or(exec.config.console_size);
    daemon.execs.change(&id, |exec| {
        exec.started = true;
        exec.running = true;
    });
    let attached = !start.detach
        && (exec.config.attach_stdin || exec.config.attach_stdout || exec.config.attach_stderr);
    let process = process::launch(&daemon, &container, &exec, attached).await;
    let process = match process {
        Ok(process) => process,
        Err(error) => {
            let code = crate::container::exit_code_of(&error);
            daemon.execs.change(&id, |exec| {
                exec.running = false;
                exec.exit_code = Some(code);
            });
            let error = match code {
                126 | 127 => ApiError::bad_request(error.message),
                _ => error,
            };
            return match attached {
                true => told_on_stream(request, exec.config.tty, &error),
                false => Err(error),
            };
        }
    };
    publish(&daemon, &container, &exec, "exec_start");
    let mut ended = process::monitor(&daemon, &container, &exec);
    let Some(output) = process.output else {
        return Ok(empty(StatusCode::OK));
    };
    let tty = exec.config.tty;
    hijack(
        request,
        if tty { RAW } else { MULTIPLEXED },
        move |connection| async move {
            let (reader, mut writer) = tokio::io::split(connection);
            let keys = if tty { detach_keys.as_slice() } else { &[] };
            let copy = copy_output(output, &mut writer, tty);
            match process.input {
                None => {
                    copy.await;
                    process::known(&mut ended).await;
                }
                Some(input) => {
                    let feed = async {
                        if !copy_input(reader, input, keys).await {
                            close_stdin(&daemon, &exec.container_id, &exec.id).await;
                            std::future::pending::<()>().await;
                        }
                    };
                    tokio::select! {
                        () = copy => process::known(&mut ended).await,
                        () = feed => {}
                    }
                }
            }
            let _ = writer.shutdown().await;
        },
    )
}

/// Docker takes the connection over before it starts the command, so that what goes wrong comes as output. The exit code is
/// then in the exec's own description.
fn told_on_stream(request: ApiRequest, tty: bool, error: &ApiError) -> ApiResult<ApiResponse> {
    let words = format!("{}\r\n", error.message);
    let (kind, output) = match tty {
        true => (RAW, words.into()),
        false => (MULTIPLEXED, frame(StreamKind::Stdout, words.as_bytes())),
    };
    hijack(request, kind, move |mut connection| async move {
        let _ = connection.write_all(&output).await;
        let _ = connection.shutdown().await;
    })
}

async fn resize(daemon: Arc<Daemon>, request: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    daemon.containers.settled().await;
    let exec = daemon.execs.get(&id)?;
    let (height, width) = window_size(&request)?;
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
    ok_json(&json!({
        "ID": exec.id,
        "Running": exec.running,
        "ExitCode": exec.exit_code,
        "ProcessConfig": {
            "tty": config.tty,
            "entrypoint": config.cmd.first(),
            "arguments": config.cmd.get(1..).unwrap_or_default(),
            "privileged": config.privileged,
            "user": config.user,
        },
        "OpenStdin": config.attach_stdin,
        "OpenStderr": config.attach_stderr,
        "OpenStdout": config.attach_stdout,
        "CanRemove": exec.exit_code.is_some(),
        "ContainerID": exec.container_id,
        "DetachKeys": config.detach_keys,
        "Pid": exec.pid,
    }))
}
