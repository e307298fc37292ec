//! Log options: what they may be, and what they make of the log writer's settings.

use super::Containers;
use super::config::LogConfig;
use super::log_attributes;
use super::record::Container;
use crate::error::{ApiError, ApiResult};
use crate::filter::go_boolean;
use longshore_container_log as log;
use longshore_protocol::engine_options;

/// Records that may wait for the disk in the mode `non-blocking`, in bytes.
const DEFAULT_BUFFER: u64 = 1 << 20;

/// Where this container's log is, as readers need it.
pub fn log_config(containers: &Containers, container: &Container) -> log::LogConfig {
    let wanted = &container.host_config.log_config;
    let mut config = log::LogConfig::new(&container.id, containers.folder(&container.id));
    config.driver = log::Driver::from_name(&wanted.driver).unwrap_or_default();
    config
}

/// What the log writer does, too; or why the driver cannot start, in Docker's words.
pub fn for_writer(
    containers: &Containers,
    container: &Container,
) -> Result<log::LogConfig, String> {
    let mut config = log_config(containers, container);
    let wanted = &container.host_config.log_config;
    let (size, files) = log_limits(wanted)?;
    // With a size alone Docker's json-file keeps one file.
    let alone = size.is_some() && config.driver == log::Driver::JsonFile;
    config.compress = compresses(wanted, size.is_some(), files)?;
    config.max_files = files.unwrap_or(if alone { 1 } else { config.max_files });
    config.max_size = size.unwrap_or(config.max_size);
    if wanted
        .config
        .get("mode")
        .is_some_and(|mode| mode == "non-blocking")
    {
        let asked = wanted.config.get("max-buffer-size");
        let asked = asked
            .and_then(|text| size_in(text, 1024))
            .filter(|most| *most > 0);
        config.buffer = asked.unwrap_or(DEFAULT_BUFFER);
    }
    if config.driver == log::Driver::JsonFile {
        config.attributes = log_attributes::of(container)?;
    }
    Ok(config)
}

/// Refuses options that the driver does not have, at creation; in Docker's words.
pub fn check_log_options(config: &LogConfig) -> ApiResult<()> {
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
    if let Some(text) = config.config.get("max-buffer-size")
        && size_in(text, 1024).is_none()
    {
        return Err(ApiError::bad_request(format!(
            "error parsing option max-buffer-size: invalid size: '{text}'"
        )));
    }
    if !engine_options::LOG_DRIVERS
        .iter()
        .any(|(name, _)| *name == driver)
    {
        return Err(ApiError::bad_request(format!(
            "error looking up logging plugin {driver}: plugin \"{driver}\" not found"
        )));
    }
    let unknown = |key: &&String| !engine_options::has_log_option(driver, key);
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
        Some(text) => match size_in(text, base) {
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
    Ok((limit, files))
}

/// Whether rotated files are packed; `local` does so unless told otherwise.
fn compresses(config: &LogConfig, has_size: bool, files: Option<u32>) -> Result<bool, String> {
    let is_local = config.driver == "local";
    let compress = match config.config.get("compress") {
        None => return Ok(is_local),
        Some(text) => go_boolean(text)
            .ok_or_else(|| format!("strconv.ParseBool: parsing {text:?}: invalid syntax"))?,
    };
    if compress && !is_local && (files.unwrap_or(1) < 2 || !has_size) {
        return Err(
            "compress cannot be true when max-file is less than 2 or max-size is not set"
                .to_owned(),
        );
    }
    Ok(compress)
}

/// `10m`, `1.5g`, `100kb`, `512`.
fn size_in(text: &str, base: u64) -> Option<u64> {
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
