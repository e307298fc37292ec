//! Where the daemon keeps and finds things, and the settings that `SIGHUP` reads again.

use crate::error::{ApiError, ApiResult};
use clap::Parser;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

/// The command line.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "longshore-daemon",
    version,
    about = "The Docker Engine API on a containerd API"
)]
pub struct Options {
    /// Socket to serve when init gave none.
    #[arg(long, default_value = "unix:///run/docker.sock")]
    pub address: String,
    /// containerd's gRPC socket.
    #[arg(long, default_value = "/run/containerd/containerd.sock")]
    pub containerd: PathBuf,
    /// State that lasts.
    #[arg(long, default_value = "/var/lib/docker")]
    pub data_root: PathBuf,
    /// State that ends with the boot.
    #[arg(long, default_value = "/run/docker")]
    pub exec_root: PathBuf,
    /// Docker's daemon.json; wins over the host's configuration.
    #[arg(long)]
    pub config_file: Option<PathBuf>,
    /// The configuration from the host.
    #[arg(long, default_value = "/run/longshore/config.json")]
    pub guest_config: PathBuf,
    /// Shim of containers that ask for no runtime, e.g. io.containerd.runc.v2 on a foreign containerd.
    #[arg(long)]
    pub default_shim: Option<String>,
    /// The log writer, as shims find it.
    #[arg(long, default_value = "/usr/bin/longshore-log")]
    pub log_writer: PathBuf,
    /// Static init for `--init`; this program itself when not given.
    #[arg(long)]
    pub init_binary: Option<PathBuf>,
}

pub const NAMESPACE: &str = "moby";
pub const SNAPSHOTTER: &str = "overlayfs";

/// What may change while the daemon runs.
#[derive(Debug, Default, Clone)]
pub struct Settings {
    /// Docker's daemon.json, the host's part and the file's merged.
    pub daemon_json: Map<String, Value>,
    /// Folders of the host that are mounted here at the same path; `None`: not in a Longshore guest, so
    /// any path may be bound.
    pub shares: Option<Vec<PathBuf>>,
}

impl Settings {
    pub fn string(&self, key: &str) -> Option<&str> {
        self.daemon_json
            .get(key)
            .and_then(Value::as_str)
            .filter(|value| !value.is_empty())
    }

    pub fn flag(&self, key: &str, default: bool) -> bool {
        self.daemon_json
            .get(key)
            .and_then(Value::as_bool)
            .unwrap_or(default)
    }

    pub fn strings(&self, key: &str) -> Vec<String> {
        let list = self.daemon_json.get(key).and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    }

    /// Any part of daemon.json, typed; the default when absent.
    pub fn typed<T: Default + serde::de::DeserializeOwned>(&self, key: &str) -> ApiResult<T> {
        match self.daemon_json.get(key) {
            None => Ok(T::default()),
            Some(value) => serde_json::from_value(value.clone())
                .map_err(|error| ApiError::internal(format!("configuration {key:?}: {error}"))),
        }
    }

    /// `longshore.KEY`: our own settings in daemon.json.
    pub fn own(&self, key: &str) -> Option<&Value> {
        self.daemon_json
            .get("longshore")
            .and_then(|own| own.get(key))
    }

    /// What shares one more folder of the host, with `PATH` in it: the host's program says it.
    pub fn share_command(&self) -> &str {
        let told = self.own("share-command").and_then(Value::as_str);
        told.unwrap_or("longshore settings set shares+=PATH")
    }

    /// Folders of the host that no share shows, as the user keeps keys there.
    pub fn masked(&self) -> Vec<PathBuf> {
        let list = self.own("masked").and_then(Value::as_array);
        let paths = list.into_iter().flatten().filter_map(Value::as_str);
        paths.map(PathBuf::from).collect()
    }

    /// Where the host has the socket that it forwards to ours.
    pub fn host_socket(&self) -> Option<&str> {
        self.own("docker-socket").and_then(Value::as_str)
    }

    /// daemon.json's `labels`.
    pub fn labels(&self) -> Vec<String> {
        self.strings("labels")
    }

    /// daemon.json's `log-opts`.
    pub fn log_options(&self) -> BTreeMap<String, String> {
        self.typed("log-opts").unwrap_or_default()
    }
}

/// The part of the host's configuration that concerns this process.
#[derive(Debug, Default, Deserialize)]
struct GuestPart {
    #[serde(default)]
    daemon_json: Value,
    #[serde(default)]
    shares: Vec<Value>,
}

/// Options and current settings.
pub struct Config {
    pub options: Options,
    settings: RwLock<Arc<Settings>>,
}

impl Config {
    pub fn load(options: Options) -> ApiResult<Self> {
        let settings = RwLock::new(Arc::new(read_settings(&options)?));
        Ok(Config { options, settings })
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.settings
            .read()
            .unwrap_or_else(|poison| poison.into_inner())
            .clone()
    }

    /// Reads the files again; on an error the old settings stay.
    pub fn reload(&self) -> ApiResult<()> {
        let fresh = Arc::new(read_settings(&self.options)?);
        *self
            .settings
            .write()
            .unwrap_or_else(|poison| poison.into_inner()) = fresh;
        Ok(())
    }

    /// A folder of this daemon's under the data root.
    pub fn data(&self, name: &str) -> PathBuf {
        self.options.data_root.join(name)
    }

    /// What is bound into a container as `/sbin/docker-init`.
    pub fn init_binary(&self) -> PathBuf {
        let own = || std::env::current_exe().unwrap_or_else(|_| "/usr/bin/longshore-daemon".into());
        self.options.init_binary.clone().unwrap_or_else(own)
    }

    /// The shim of containers that ask for no runtime.
    pub fn default_shim(&self) -> String {
        let settings = self.settings();
        let configured = settings.own("runtime").and_then(Value::as_str);
        self.options
            .default_shim
            .clone()
            .or_else(|| configured.map(str::to_owned))
            .unwrap_or_else(|| "io.containerd.longshore.v2".to_owned())
    }
}

fn read_settings(options: &Options) -> ApiResult<Settings> {
    let mut settings = Settings::default();
    if let Some(text) = read_optional(&options.guest_config)? {
        let part: GuestPart = parse(&options.guest_config, &text)?;
        // The host may send daemon.json as an object or as the text that the user wrote.
        settings.daemon_json = match part.daemon_json {
            Value::Object(object) => object,
            Value::String(text) if !text.trim().is_empty() => parse(&options.guest_config, &text)?,
            _ => Map::new(),
        };
        settings.shares = Some(part.shares.iter().filter_map(share_path).collect());
    }
    if let Some(file) = &options.config_file
        && let Some(text) = read_optional(file)?
    {
        let own: Map<String, Value> = parse(file, &text)?;
        settings.daemon_json.extend(own);
    }
    Ok(settings)
}

/// A share is told as a path, or as an object that has one.
fn share_path(share: &Value) -> Option<PathBuf> {
    let path = |key| share.get(key).and_then(Value::as_str);
    share
        .as_str()
        .or_else(|| path("guest_path"))
        .or_else(|| path("mount_point"))
        .or_else(|| path("target"))
        .or_else(|| path("path"))
        .map(PathBuf::from)
}

fn read_optional(path: &Path) -> ApiResult<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ApiError::internal(format!(
            "reading {}: {error}",
            path.display()
        ))),
    }
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> ApiResult<T> {
    serde_json::from_str(text)
        .map_err(|error| ApiError::internal(format!("{}: {error}", path.display())))
}
