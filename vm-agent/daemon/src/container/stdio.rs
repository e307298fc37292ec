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

/// What the log writer of this container does, and where. Options that cannot be read are refused at the start, not here.
pub fn log_config(containers: &Containers, container: &Container) -> log::LogConfig {
    let wanted = &container.host_config.log_config;
    let mut config = log::LogConfig::new(&container.id, containers.folder(&container.id));
    config.driver = log::Driver::from_name(&wanted.driver).unwrap_or_default();
    if let Ok((size, files)) = log_limits(wanted) {
        // With a size alone Docker's json-file keeps one file.
        let alone = size.is_some() && config.driver == log::Driver::JsonFile;
        config.max_files = files.unwrap_or(if alone { 1 } else { config.max_files });
        config.max_size = size.unwrap_or(config.max_size);
    }
    config
}

/// Refuses options that the driver does not have, at creation; in Docker's words.
pub fn check_log_options(config: &LogConfig) -> ApiResult<()> {
    const ANY: [&str; 2] = ["mode", "max-buffer-size"];
    const JSON_FILE: [&str; 8] = [
        "max-file",
        "max-size",
        "compress",
        "labels",
        "labels-regex",
        "env",
        "env-regex",
        "tag",
    ];
    const LOCAL: [&str; 3] = ["max-file", "max-size", "compress"];
    let driver = config.driver.as_str();
    if driver == "none" {
        return Ok(());
    }
    let mode = config.config.get("mode").map_or("", String::as_str);
    if !matches!(mode, "" | "blocking" | "non-blocking") {
        return Err(ApiError::bad_request(format!(
            "logger: logging mode not supported: {mode}"
        )));
    }
    if mode != "non-blocking" && config.config.contains_key("max-buffer-size") {
        return Err(ApiError::bad_request(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ));
    }
    let known: &[&str] = match driver {
        "json-file" => &JSON_FILE,
        "local" => &LOCAL,
        _ => {
            return Err(ApiError::bad_request(format!(
                "error looking up logging plugin {driver}: plugin \"{driver}\" not found"
            )));
        }
    };
    let unknown = |key: &&String| !ANY.contains(&key.as_str()) && !known.contains(&key.as_str());
    match config.config.keys().find(unknown) {
        Some(key) if driver == "local" => Err(ApiError::bad_request(format!(
            "unknown log opt '{key}' for log driver local"
        ))),
        Some(key) => Err(ApiError::bad_request(format!(
            "unknown log opt '{key}' for {driver} log driver"
        ))),
        None => Ok(()),
    }
}

/// `max-size` in bytes and `max-file`, where they are given; else why the driver cannot start, in Docker's words.
fn log_limits(config: &LogConfig) -> Result<(Option<u64>, Option<u32>), String> {
    // go-units: json-file counts in thousands, local in 1024s.
    let base = if config.driver == "local" { 1024 } else { 1000 };
    let limit = match config.config.get("max-size").map(String::as_str) {
        None => None,
        Some("-1") => Some(0),
        Some(text) => match size(text, base) {
            None => return Err(format!("invalid size: '{text}'")),
            Some(0) => return Err("max-size must be a positive number".to_owned()),
            size => size,
        },
    };
    let files = match config.config.get("max-file") {
        None => None,
        Some(text) => match text.parse::<i64>() {
            Err(_) => return Err(format!("strconv.Atoi: parsing {text:?}: invalid syntax")),
            Ok(..1) => return Err("max-file cannot be less than 1".to_owned()),
            Ok(count) => Some(u32::try_from(count).unwrap_or(u32::MAX)),
        },
    };
    let compressed = config.config.get("compress").map(String::as_str);
    if config.driver == "json-file"
        && matches!(compressed, Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
        && (files.unwrap_or(1) < 2 || limit.is_none())
    {
        return Err(
            "compress cannot be true when max-file is less than 2 or max-size is not set"
                .to_owned(),
        );
    }
    Ok((limit, files))
}

/// `10m`, `1.5g`, `100kb`, `512`.
fn size(text: &str, base: u64) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower
        .trim_end_matches(|c: char| c.is_ascii_alphabetic())
        .trim_end();
    let power = match lower[digits.len()..].trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return None,
    };
    let number: f64 = digits
        .parse()
        .ok()
        .filter(|number: &f64| *number >= 0.0 && number.is_finite())?;
    Some((number * base.pow(power) as f64) as u64)
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
    log_limits(&container.host_config.log_config).map_err(|why| {
        ApiError::internal(format!(
            "failed to create task for container: failed to initialize logging driver: {why}"
        ))
    })?;
    let log = log_config(containers, container);
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

    fn config(driver: &str, options: &[(&str, &str)]) -> LogConfig {
        let options = options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        LogConfig {
            driver: driver.to_owned(),
            config: options.collect(),
        }
    }

    #[test]
    fn limits_are_read() {
        let table = [
            ("json-file", "10m", "3", Ok((10_000_000, 3))),
            ("local", "10m", "3", Ok((10 << 20, 3))),
            ("json-file", "1.5kb", "1", Ok((1500, 1))),
            ("json-file", "-1", "2", Ok((0, 2))),
            ("json-file", "x", "1", Err("invalid size: 'x'")),
            (
                "json-file",
                "0",
                "1",
                Err("max-size must be a positive number"),
            ),
            (
                "json-file",
                "1m",
                "0",
                Err("max-file cannot be less than 1"),
            ),
            (
                "json-file",
                "1m",
                "x",
                Err("strconv.Atoi: parsing \"x\": invalid syntax"),
            ),
        ];
        for (driver, size, files, expected) in table {
            let got = log_limits(&config(driver, &[("max-size", size), ("max-file", files)]));
            let expected = expected.map(|(size, files)| (Some(size), Some(files)));
            assert_eq!(got, expected.map_err(str::to_owned), "{size} {files}");
        }
    }

    #[test]
    fn options_are_the_drivers() {
        /// Driver, its options, and the refusal.
        type Case = (
            &'static str,
            &'static [(&'static str, &'static str)],
            Option<&'static str>,
        );
        let table: [Case; 6] = [
            (
                "json-file",
                &[("max-size", "1m"), ("mode", "blocking")],
                None,
            ),
            ("none", &[("anything", "1")], None),
            (
                "json-file",
                &[("foo", "1")],
                Some("unknown log opt 'foo' for json-file log driver"),
            ),
            (
                "local",
                &[("tag", "1")],
                Some("unknown log opt 'tag' for log driver local"),
            ),
            (
                "nonsense",
                &[],
                Some("error looking up logging plugin nonsense: plugin \"nonsense\" not found"),
            ),
            (
                "local",
                &[("mode", "x")],
                Some("logger: logging mode not supported: x"),
            ),
        ];
        for (driver, options, expected) in table {
            let got = check_log_options(&config(driver, options)).err();
            assert_eq!(got.map(|error| error.message).as_deref(), expected);
        }
    }
}
