//! Where and how one container's output is logged, and its form as a containerd stdio URI.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Where the log binary is installed; containerd's shims start it from the URI's path.
pub const BINARY: &str = "/usr/bin/longshore-log";

const DEFAULT_MAX_SIZE: u64 = 20 << 20;
const DEFAULT_MAX_FILES: u32 = 5;

/// Docker's log drivers that are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Driver {
    /// Docker's json-file format.
    #[default]
    JsonFile,
    /// The same file format: `local` promises only that its files are nobody else's business.
    Local,
    /// Nothing on disk, only live attach.
    None,
}

impl Driver {
    /// Docker's name of the driver.
    pub fn name(self) -> &'static str {
        match self {
            Driver::JsonFile => "json-file",
            Driver::Local => "local",
            Driver::None => "none",
        }
    }

    /// The driver of that name.
    pub fn from_name(name: &str) -> Option<Driver> {
        [Driver::JsonFile, Driver::Local, Driver::None]
            .into_iter()
            .find(|d| d.name() == name)
    }
}

/// Where and how one task's or exec's output is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Container id (or exec id); names the log file.
    pub id: String,
    /// Folder of the log file and the attach socket; must exist.
    pub dir: PathBuf,
    /// Log driver.
    pub driver: Driver,
    /// Bytes after which the file is rotated; 0 means never.
    pub max_size: u64,
    /// Files kept, the current one included; at least 1.
    pub max_files: u32,
    /// Whether rotated files are packed with gzip.
    pub compress: bool,
    /// What every record carries beside its line, for `docker logs --details`.
    pub attributes: BTreeMap<String, String>,
    /// Bytes of records that may wait for the disk before new ones are dropped; 0: the container waits instead.
    pub buffer: u64,
}

impl LogConfig {
    /// The defaults: json-file, 5 files of 20 MiB.
    pub fn new(id: impl Into<String>, dir: impl Into<PathBuf>) -> LogConfig {
        LogConfig {
            id: id.into(),
            dir: dir.into(),
            driver: Driver::default(),
            max_size: DEFAULT_MAX_SIZE,
            max_files: DEFAULT_MAX_FILES,
            compress: false,
            attributes: BTreeMap::new(),
            buffer: 0,
        }
    }

    /// `<dir>/<id>-json.log`, Docker's `LogPath`.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join(format!("{}-json.log", self.id))
    }

    /// `<dir>/attach.sock`.
    pub fn attach_path(&self) -> PathBuf {
        attach_path(&self.dir)
    }

    /// The task's `stdout` and `stderr` for containerd.
    pub fn to_uri(&self) -> String {
        let pairs = self.to_pairs();
        let query: Vec<String> = pairs
            .iter()
            .map(|(key, value)| format!("{key}={}", escape(value)))
            .collect();
        format!("binary://{BINARY}?{}", query.join("&"))
    }

    /// What [`from_pairs`](Self::from_pairs) reads.
    pub fn to_pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = vec![
            ("id", self.id.clone()),
            ("dir", self.dir.to_string_lossy().into_owned()),
            ("driver", self.driver.name().to_owned()),
            ("max-size", self.max_size.to_string()),
            ("max-file", self.max_files.to_string()),
        ];
        if self.compress {
            pairs.push(("compress", "true".to_owned()));
        }
        if self.buffer > 0 {
            pairs.push(("buffer", self.buffer.to_string()));
        }
        let attributes = self.attributes.iter();
        // One pair each: a setting has no characters of its own that a name or value could not hold.
        pairs.extend(
            attributes.map(|(key, value)| ("attribute", format!("{}={}", escape(key), value))),
        );
        pairs
    }

    /// True if the URI asks for `longshore-log`, wherever it is installed.
    pub fn is_ours(uri: &str) -> bool {
        split_uri(uri).is_some_and(|(path, _)| path.rsplit('/').next() == Some("longshore-log"))
    }

    /// Reads what [`to_uri`](Self::to_uri) wrote.
    pub fn from_uri(uri: &str) -> Result<LogConfig> {
        if !Self::is_ours(uri) {
            return Err(Error::NotOurUri {
                uri: uri.to_owned(),
            });
        }
        let query = split_uri(uri).map(|(_, query)| query).unwrap_or_default();
        let pairs = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (unescape(key), unescape(value))
            });
        Self::from_pairs(pairs)
    }

    /// Reads the settings from key, value pairs. containerd turns `?a=b&c=d` into the arguments
    /// `a b c d`, in any order. Unknown keys are ignored, so that older binaries serve newer
    /// daemons.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Result<LogConfig> {
        let mut config = LogConfig::new("", "");
        for (key, value) in pairs {
            let bad = || Error::BadSetting {
                key: key.clone(),
                value: value.clone(),
            };
            match key.as_str() {
                "id" if value.is_empty() || value.contains('/') => return Err(bad()),
                "id" => config.id = value,
                "dir" if !value.starts_with('/') => return Err(bad()),
                "dir" => config.dir = value.into(),
                "driver" => config.driver = Driver::from_name(&value).ok_or_else(bad)?,
                "max-size" => config.max_size = parse_size(&value).ok_or_else(bad)?,
                "max-file" => {
                    config.max_files = value.parse().ok().filter(|n| *n > 0).ok_or_else(bad)?;
                }
                "compress" => config.compress = value == "true",
                "buffer" => config.buffer = value.parse().map_err(|_| bad())?,
                "attribute" => {
                    let (name, value) = value.split_once('=').ok_or_else(bad)?;
                    config.attributes.insert(unescape(name), value.to_owned());
                }
                _ => {}
            }
        }
        match (config.id.is_empty(), config.dir.as_os_str().is_empty()) {
            (true, _) => Err(Error::MissingSetting { key: "id" }),
            (_, true) => Err(Error::MissingSetting { key: "dir" }),
            _ => Ok(config),
        }
    }
}

/// The attach socket in a log folder.
pub(crate) fn attach_path(dir: &Path) -> PathBuf {
    dir.join("attach.sock")
}

/// Docker's sizes: a number with an optional `b`, `k`, `m`, `g` (binary, any case); -1 is no limit.
fn parse_size(text: &str) -> Option<u64> {
    if text == "-1" {
        return Some(0);
    }
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches("ib").trim_end_matches('b');
    let (digits, shift) = match digits.as_bytes().last()? {
        b'k' => (&digits[..digits.len() - 1], 10),
        b'm' => (&digits[..digits.len() - 1], 20),
        b'g' => (&digits[..digits.len() - 1], 30),
        _ => (digits, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn split_uri(uri: &str) -> Option<(&str, &str)> {
    let rest = uri.strip_prefix("binary://")?;
    Some(rest.split_once('?').unwrap_or((rest, "")))
}

/// Percent-encoding of a query value (RFC 3986, section 2).
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(byte as char);
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text
            .get(at + 1..at + 3)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uri_round_trip() {
        let mut config = LogConfig::new("abc", "/var/lib/a b&c%/x");
        config.driver = Driver::None;
        config.max_size = 7;
        config.max_files = 1;
        config.compress = true;
        config.buffer = 9;
        config.attributes = [("a=b&".to_owned(), "c d=%".to_owned())].into();
        assert_eq!(LogConfig::from_uri(&config.to_uri()).unwrap(), config);
    }

    #[test]
    fn refused_uris() {
        for uri in [
            "file:///x",
            "binary:///usr/bin/other?id=a&dir=/x",
            "binary:///usr/bin/longshore-log?dir=/x",
            "binary:///usr/bin/longshore-log?id=a",
            "binary:///usr/bin/longshore-log?id=../a&dir=/x",
            "binary:///usr/bin/longshore-log?id=a&dir=x",
            "binary:///usr/bin/longshore-log?id=a&dir=/x&max-file=0",
            "binary:///usr/bin/longshore-log?id=a&dir=/x&driver=syslog",
        ] {
            assert!(LogConfig::from_uri(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn sizes() {
        for (text, size) in [
            ("10m", Some(10 << 20)),
            ("1K", Some(1024)),
            ("-1", Some(0)),
            ("5", Some(5)),
            ("m", None),
            ("", None),
            ("2gb", Some(2 << 30)),
        ] {
            assert_eq!(parse_size(text), size, "{text}");
        }
    }
}
