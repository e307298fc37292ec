//! How a container's input and output are wired: the log writer's URI, and the FIFO for input.

use super::Containers;
use super::log_options;
use super::output::OUR_SHIM;
use super::record::Container;
use crate::error::{ApiError, ApiResult};
use longshore_container_log as log;
use std::path::{Path, PathBuf};
use tokio::net::unix::pipe;

/// stdin, stdout and stderr of a task or exec, as containerd takes them.
#[derive(Debug, Default, Clone)]
pub struct Stdio {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
}

/// A log writer's URI; the path of the program is the configured one.
pub fn uri(containers: &Containers, config: &log::LogConfig) -> String {
    let writer = containers.config.options.log_writer.to_string_lossy();
    config.to_uri().replacen(log::BINARY, &writer, 1)
}

/// Makes a FIFO under `folder` and returns its path.
pub fn make_fifo(folder: &Path, name: &str) -> ApiResult<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(name);
    match nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(path),
        Err(error) => Err(ApiError::internal(format!(
            "making the FIFO {}: {error}",
            path.display()
        ))),
    }
}

/// What a container's task gets: the log writer, and a FIFO when input is kept open.
pub async fn of_task(containers: &Containers, container: &Container) -> ApiResult<Stdio> {
    let config = &container.config;
    let log = log_options::for_writer(containers, container).map_err(|why| {
        ApiError::internal(format!(
            "failed to create task for container: failed to initialize logging driver: {why}"
        ))
    })?;
    let folder = containers.runtime_folder(&container.id);
    let mut stdio = Stdio::default();
    if config.open_stdin {
        stdio.stdin = make_fifo(&folder, "stdin")?.to_string_lossy().into_owned();
    }
    // Other shims give no input to a process whose output goes to a program (see container-log).
    if config.open_stdin && !config.tty && container.shim != OUR_SHIM {
        stdio.stdout = make_fifo(&folder, "stdout")?.to_string_lossy().into_owned();
        stdio.stderr = make_fifo(&folder, "stderr")?.to_string_lossy().into_owned();
        start_log_writer(containers, &log, &stdio).await?;
    } else {
        stdio.stdout = uri(containers, &log);
        if !config.tty {
            stdio.stderr.clone_from(&stdio.stdout);
        }
    }
    Ok(stdio)
}

/// A log writer of our own starting, for plain FIFOs; ready when it answers on its attach socket.
async fn start_log_writer(
    containers: &Containers,
    log: &log::LogConfig,
    stdio: &Stdio,
) -> ApiResult<()> {
    let mut settings = log.to_pairs();
    settings.push(("stdout", stdio.stdout.clone()));
    settings.push(("stderr", stdio.stderr.clone()));
    let _ = std::fs::remove_file(log.attach_path());
    let mut command = tokio::process::Command::new(&containers.config.options.log_writer);
    command
        .args(
            settings
                .into_iter()
                .flat_map(|(key, value)| [key.to_owned(), value]),
        )
        .process_group(0);
    let mut child = command
        .spawn()
        .map_err(|error| ApiError::from(error).context("starting the log writer"))?;
    tokio::spawn(async move { child.wait().await });
    for _ in 0..200 {
        if log.attach_path().exists() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Err(ApiError::internal("the log writer does not answer"))
}

/// The writing end; there is one once the shim has opened the other.
pub fn open_stdin(path: &Path) -> ApiResult<pipe::Sender> {
    pipe::OpenOptions::new().open_sender(path).map_err(|error| {
        ApiError::internal(format!("opening the input at {}: {error}", path.display()))
    })
}
