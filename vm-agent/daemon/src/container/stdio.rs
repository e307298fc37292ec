//! How a container's input and output are wired: the log writer's URI, the FIFO for input, and their limits.

use super::Containers;
use super::config::LogConfig;
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

/// What the log writer of this container does, and where.
pub fn log_config(containers: &Containers, container: &Container) -> ApiResult<log::LogConfig> {
    let wanted = &container.host_config.log_config;
    let mut config = log::LogConfig::new(&container.id, containers.folder(&container.id));
    config.driver = log::Driver::from_name(&wanted.driver).unwrap_or_default();
    let (size, files) = log_limits(wanted)?;
    config.max_size = size.unwrap_or(config.max_size);
    config.max_files = files.unwrap_or(config.max_files);
    Ok(config)
}

/// `max-size` in bytes and `max-file`.
pub fn log_limits(config: &LogConfig) -> ApiResult<(Option<u64>, Option<u32>)> {
    let invalid = |key: &str, value: &str| {
        ApiError::bad_request(format!("invalid value for {key}: \"{value}\""))
    };
    let size = config
        .config
        .get("max-size")
        .map(|text| match text.as_str() {
            "-1" => Ok(0),
            text => size(text).ok_or_else(|| invalid("max-size", text)),
        });
    let files = config.config.get("max-file").map(|text| {
        text.parse()
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(|| invalid("max-file", text))
    });
    Ok((size.transpose()?, files.transpose()?))
}

/// `10m`, `1g`, `100kb`, `512`.
fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, shift) = match lower.chars().last()? {
        'k' => (&lower[..lower.len() - 1], 10),
        'm' => (&lower[..lower.len() - 1], 20),
        'g' => (&lower[..lower.len() - 1], 30),
        _ => (lower, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
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
    let log = log_config(containers, container)?;
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
    let (size, files) = (log.max_size.to_string(), log.max_files.to_string());
    let dir = log.dir.to_string_lossy();
    let settings = [
        ("id", log.id.as_str()),
        ("dir", &dir),
        ("driver", log.driver.name()),
        ("max-size", &size),
        ("max-file", &files),
        ("stdout", &stdio.stdout),
        ("stderr", &stdio.stderr),
    ];
    let _ = std::fs::remove_file(log.attach_path());
    let mut command = tokio::process::Command::new(&containers.config.options.log_writer);
    command
        .args(settings.into_iter().flat_map(|(key, value)| [key, value]))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        let table = [
            ("10m", "3", Some((10 << 20, 3))),
            ("100kb", "1", Some((100 << 10, 1))),
            ("-1", "2", Some((0, 2))),
            ("x", "1", None),
            ("1m", "0", None),
        ];
        for (size, files, expected) in table {
            let config = [("max-size", size), ("max-file", files)]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into();
            let got = log_limits(&LogConfig {
                driver: String::new(),
                config,
            });
            assert_eq!(
                got.ok(),
                expected.map(|(s, f)| (Some(s), Some(f))),
                "{size} {files}"
            );
        }
    }
}
