//! The settings file: keys, defaults, checks.
//!
//! The file holds only what the user has set, so that a default may follow the machine.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::size::Size;

mod nearest;

use nearest::nearest;

/// The settings in force: what the user has set, over the defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Settings {
    pub cpus: u32,
    #[cfg_attr(test, ts(type = "string"))]
    pub memory: Size,
    #[cfg_attr(test, ts(type = "string"))]
    pub swap: Size,
    #[cfg_attr(test, ts(type = "string"))]
    pub disk: Size,
    pub accelerator: String,
    pub channel: String,
    pub share_home: bool,
    pub shares: Vec<String>,
    pub publish_address: IpAddr,
    pub insecure_registries: Vec<String>,
    /// The engine's options, as dockerd's `daemon.json` would hold them (`longshore_protocol::engine_options`).
    #[cfg_attr(test, ts(type = "Record<string, unknown>"))]
    pub engine: Map<String, Value>,
    pub docker_context: bool,
    pub start_at_login: bool,
}

/// One key of the settings file.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub help: &'static str,
    kind: Kind,
    /// It takes effect with the next start of the VM.
    pub needs_restart: bool,
}

#[derive(Debug)]
enum Kind {
    Count { min: u64, max: u64 },
    Size { min: Size, max: Size },
    Word(&'static [&'static str]),
    Flag,
    Shares,
    Address,
    Registries,
    Engine,
}

impl Key {
    /// Whether the VM is started with it, so that it may be why a start fails. Shares are given to one that runs, too.
    fn is_of_start(&self) -> bool {
        self.needs_restart || matches!(self.kind, Kind::Shares)
    }
}

const SHARE_HOME: &str = "share_home";

pub const KEYS: &[Key] = &[
    Key {
        name: "cpus",
        help: "virtual CPUs of the VM",
        kind: Kind::Count { min: 1, max: 255 },
        needs_restart: true,
    },
    Key {
        name: "memory",
        help: "memory of the VM, such as 2g",
        kind: Kind::Size {
            min: Size::mib(256),
            max: Size::gib(1024),
        },
        needs_restart: true,
    },
    Key {
        name: "swap",
        help: "swap of the VM on its data disk, such as 1g; 0 for none",
        kind: Kind::Size {
            min: Size(0),
            max: Size::gib(64),
        },
        needs_restart: true,
    },
    Key {
        name: "disk",
        help: "largest size of the data disk, such as 64g; it can grow, never shrink",
        kind: Kind::Size {
            min: Size::gib(1),
            max: Size::gib(16 * 1024),
        },
        needs_restart: true,
    },
    Key {
        name: "accelerator",
        help: "auto, kvm, hvf, whpx or tcg",
        kind: Kind::Word(&["auto", "kvm", "hvf", "whpx", "tcg"]),
        needs_restart: true,
    },
    Key {
        name: "channel",
        help: "auto, vsock or serial",
        kind: Kind::Word(&["auto", "vsock", "serial"]),
        needs_restart: true,
    },
    Key {
        name: SHARE_HOME,
        help: "share your home folder with containers (true or false)",
        kind: Kind::Flag,
        needs_restart: true,
    },
    Key {
        name: "shares",
        help: "more folders to share, PATH or PATH:ro; use += and -=",
        kind: Kind::Shares,
        needs_restart: false,
    },
    Key {
        name: "publish_address",
        help: "address for published ports that name none",
        kind: Kind::Address,
        needs_restart: false,
    },
    Key {
        name: "insecure_registries",
        help: "registries reached over plain HTTP, HOST:PORT; use += and -=",
        kind: Kind::Registries,
        needs_restart: true,
    },
    Key {
        name: "engine",
        help: "options of the engine, JSON as in Docker's daemon.json; += takes an object, -= a name",
        kind: Kind::Engine,
        needs_restart: true,
    },
    Key {
        name: "docker_context",
        help: "create a docker context named longshore (true or false)",
        kind: Kind::Flag,
        needs_restart: false,
    },
    Key {
        name: "start_at_login",
        help: "start the engine, with the window in the tray, when you log in (true or false)",
        kind: Kind::Flag,
        needs_restart: false,
    },
];

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    #[error("unknown setting {key:?}{}", suggestion(.near))]
    UnknownKey {
        key: String,
        near: Option<&'static str>,
    },
    #[error("setting {key}: {reason}")]
    BadValue { key: &'static str, reason: String },
    #[error("{0:?} is not KEY=VALUE, KEY+=VALUE or KEY-=VALUE")]
    NotAnAssignment(String),
    #[error("the settings file is not a JSON object: {0}")]
    NotJson(String),
}

fn suggestion(near: &Option<&'static str>) -> String {
    match near {
        Some(key) => format!("; did you mean {key:?}?"),
        None => format!(
            "; known are {}",
            KEYS.iter().map(|k| k.name).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// What the defaults depend on.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    pub cpus: u32,
    pub memory: Size,
}

impl Settings {
    pub fn defaults(machine: Machine) -> Self {
        let half = Size::mib((machine.memory.as_mib() / 2).max(512));
        Self {
            cpus: machine.cpus.max(1),
            memory: half.min(Size::gib(4)),
            swap: Size(0),
            disk: Size::gib(64),
            accelerator: "auto".into(),
            channel: "auto".into(),
            share_home: true,
            shares: Vec::new(),
            publish_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            insecure_registries: Vec::new(),
            engine: Map::new(),
            docker_context: true,
            start_at_login: false,
        }
    }

    /// The shared folders beside the home, in the order given.
    pub fn share_list(&self) -> Vec<(PathBuf, bool)> {
        self.shares.iter().map(|s| split_share(s)).collect()
    }
}

/// The settings as the file holds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored(Map<String, Value>);

impl Stored {
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let map: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| SettingsError::NotJson(e.to_string()))?;
        let mut stored = Self::default();
        for (name, value) in map {
            let key = find(&name)?;
            stored.0.insert(name, check(key, &value)?);
        }
        Ok(stored)
    }

    pub fn to_json(&self) -> String {
        format!("{:#}\n", Value::Object(self.0.clone()))
    }

    /// Applies `key=value`, `key+=value` or `key-=value`; says which key it changed.
    pub fn assign(&mut self, text: &str) -> Result<&'static Key, SettingsError> {
        let (left, value) = text
            .split_once('=')
            .ok_or_else(|| SettingsError::NotAnAssignment(text.to_owned()))?;
        let (name, add) = match left.as_bytes().last() {
            Some(b'+') => (&left[..left.len() - 1], Some(true)),
            Some(b'-') => (&left[..left.len() - 1], Some(false)),
            _ => (left, None),
        };
        let key = find(name.trim())?;
        let value = value.trim();
        match add {
            None if value.is_empty() => {
                self.0.remove(key.name);
            }
            None => {
                let value = check(key, &from_text(key, value))?;
                self.0.insert(key.name.into(), value);
            }
            Some(add) if matches!(key.kind, Kind::Engine) => {
                self.change_engine(key, value, add)?;
            }
            Some(add) => self.change_list(key, value, add)?,
        }
        Ok(key)
    }

    fn change_list(
        &mut self,
        key: &'static Key,
        item: &str,
        add: bool,
    ) -> Result<(), SettingsError> {
        if !matches!(key.kind, Kind::Shares | Kind::Registries) {
            return Err(bad(key, "is not a list: use ="));
        }
        let mut list: Vec<Value> = match self.0.get(key.name) {
            Some(Value::Array(list)) => list.clone(),
            _ => Vec::new(),
        };
        if add {
            let checked = check(key, &json!([item]))?;
            for item in checked.as_array().into_iter().flatten() {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        } else {
            let before = list.len();
            list.retain(|v| {
                v.as_str()
                    .is_none_or(|s| s != item && split_share(s).0 != Path::new(item))
            });
            if list.len() == before {
                return Err(bad(key, format!("does not contain {item:?}")));
            }
        }
        self.0.insert(key.name.into(), Value::Array(list));
        Ok(())
    }

    /// What to start with where these do not work: all that the VM is started with as `good` has it, the rest as it is here. What the
    /// user has closed since stays closed: that is no reason why a start fails, and nobody's files are opened again unasked.
    pub fn back_to(&self, good: &Self) -> Self {
        let mut back = self.clone();
        for key in KEYS.iter().filter(|key| key.is_of_start()) {
            let (tried, before) = (self.0.get(key.name), good.0.get(key.name));
            let value = match (&key.kind, key.name) {
                (Kind::Shares, _) => shares_back_to(tried, before),
                (_, SHARE_HOME) if tried == Some(&json!(false)) => continue,
                _ => before.cloned(),
            };
            match value {
                Some(value) => back.0.insert(key.name.into(), value),
                None => back.0.remove(key.name),
            };
        }
        back
    }

    /// These settings, with the value of `to` wherever they still have that of `from`; and the keys that get another one. `None`:
    /// there are none.
    pub fn exchange(&self, from: &Self, to: &Self) -> Option<(Self, Vec<&'static str>)> {
        let value = |stored: &Self, key: &Key| stored.0.get(key.name).cloned();
        let changed = KEYS.iter().filter(|key| {
            value(from, key) != value(to, key) && value(self, key) == value(from, key)
        });
        let mut next = self.clone();
        let mut names = Vec::new();
        for key in changed {
            match value(to, key) {
                Some(value) => next.0.insert(key.name.into(), value),
                None => next.0.remove(key.name),
            };
            names.push(key.name);
        }
        (!names.is_empty()).then_some((next, names))
    }

    /// These settings, with the folders that `other` shares.
    pub fn with_shares_of(&self, other: &Self) -> Self {
        let mut with = self.clone();
        for key in KEYS.iter().filter(|key| matches!(key.kind, Kind::Shares)) {
            match other.0.get(key.name) {
                Some(shares) => with.0.insert(key.name.into(), shares.clone()),
                None => with.0.remove(key.name),
            };
        }
        with
    }

    /// Adds the members of an object, or takes one away by its name.
    fn change_engine(
        &mut self,
        key: &'static Key,
        text: &str,
        add: bool,
    ) -> Result<(), SettingsError> {
        let mut options = match self.0.get(key.name) {
            Some(Value::Object(options)) => options.clone(),
            _ => Map::new(),
        };
        if add {
            options.extend(engine_options(key, &from_text(key, text))?);
        } else if options.remove(text).is_none() {
            return Err(bad(key, format!("does not contain {text:?}")));
        }
        let checked = check(key, &Value::Object(options))?;
        self.0.insert(key.name.into(), checked);
        Ok(())
    }

    /// The settings in force on this machine.
    pub fn resolve(&self, machine: Machine) -> Settings {
        let Ok(Value::Object(mut map)) = serde_json::to_value(Settings::defaults(machine)) else {
            return Settings::defaults(machine);
        };
        map.extend(self.0.clone());
        // Every value has passed `check`, so that the map has the struct's shape.
        serde_json::from_value(Value::Object(map)).unwrap_or_else(|_| Settings::defaults(machine))
    }
}

fn find(name: &str) -> Result<&'static Key, SettingsError> {
    KEYS.iter()
        .find(|k| k.name == name)
        .ok_or_else(|| SettingsError::UnknownKey {
            key: name.to_owned(),
            near: nearest(name),
        })
}

fn bad(key: &Key, reason: impl Into<String>) -> SettingsError {
    // Keys live in the table for ever; find the static name again.
    let name = KEYS
        .iter()
        .find(|k| k.name == key.name)
        .map_or("", |k| k.name);
    SettingsError::BadValue {
        key: name,
        reason: reason.into(),
    }
}

/// A value typed on a command line, as the JSON that the file would hold.
fn from_text(key: &Key, text: &str) -> Value {
    match key.kind {
        Kind::Count { .. } => text.parse::<u64>().map_or(json!(text), |n| json!(n)),
        Kind::Flag => match text {
            "true" | "yes" | "on" | "1" => json!(true),
            "false" | "no" | "off" | "0" => json!(false),
            _ => json!(text),
        },
        Kind::Shares | Kind::Registries => {
            json!(text.split(',').map(str::trim).collect::<Vec<_>>())
        }
        _ => json!(text),
    }
}

/// Checks a value and brings it into its canonical form.
fn check(key: &'static Key, value: &Value) -> Result<Value, SettingsError> {
    match &key.kind {
        Kind::Count { min, max } => match value.as_u64() {
            Some(n) if (*min..=*max).contains(&n) => Ok(value.clone()),
            _ => Err(bad(
                key,
                format!("{value} is not a whole number from {min} to {max}"),
            )),
        },
        Kind::Size { min, max } => {
            let size: Size = serde_json::from_value(value.clone())
                .map_err(|e| bad(key, plain(&e.to_string())))?;
            if size < *min || size > *max {
                return Err(bad(key, format!("{size} is out of range: {min} to {max}")));
            }
            Ok(json!(size))
        }
        Kind::Word(words) => match value.as_str() {
            Some(word) if words.contains(&word) => Ok(value.clone()),
            _ => Err(bad(
                key,
                format!("{value} is not one of {}", words.join(", ")),
            )),
        },
        Kind::Flag => value
            .as_bool()
            .map(Value::Bool)
            .ok_or_else(|| bad(key, format!("{value} is not true or false"))),
        Kind::Address => match value.as_str().and_then(|s| s.parse::<IpAddr>().ok()) {
            Some(address) => Ok(json!(address)),
            None => Err(bad(key, format!("{value} is not an IP address"))),
        },
        Kind::Shares => check_list(key, value, check_share),
        Kind::Registries => check_list(key, value, check_registry),
        Kind::Engine => {
            let options = engine_options(key, value)?;
            longshore_protocol::engine_options::check(&options)
                .map_err(|refusal| bad(key, refusal.to_string()))?;
            Ok(Value::Object(options))
        }
    }
}

/// An object; what is still a text was no JSON.
fn engine_options(key: &Key, value: &Value) -> Result<Map<String, Value>, SettingsError> {
    match value {
        Value::Object(options) => Ok(options.clone()),
        Value::String(text) => {
            serde_json::from_str(text).map_err(|error| bad(key, plain_object(&error)))
        }
        other => Err(bad(key, format!("{other} is not a JSON object"))),
    }
}

/// serde's own words where the text is no JSON at all: they say where.
fn plain_object(error: &serde_json::Error) -> String {
    match error.is_data() {
        true => "this is not a JSON object: write {\"KEY\": VALUE, …}".to_owned(),
        false => error.to_string(),
    }
}

/// serde's "… at line 1 column 2" says nothing about a value that was typed alone.
fn plain(error: &str) -> String {
    error.split(" at line ").next().unwrap_or(error).to_owned()
}

fn check_list(
    key: &Key,
    value: &Value,
    item: fn(&str) -> Result<String, String>,
) -> Result<Value, SettingsError> {
    let list = value
        .as_array()
        .ok_or_else(|| bad(key, format!("{value} is not a list")))?;
    if list.len() > 64 {
        return Err(bad(key, "has more than 64 entries"));
    }
    let mut checked = Vec::new();
    for entry in list {
        let text = entry
            .as_str()
            .ok_or_else(|| bad(key, format!("{entry} is not a text")))?;
        let text = item(text).map_err(|e| bad(key, e))?;
        if !checked.contains(&text) {
            checked.push(text);
        }
    }
    Ok(json!(checked))
}

fn check_share(text: &str) -> Result<String, String> {
    let (path, read_only) = split_share(text);
    if !path.is_absolute() {
        return Err(format!("{text:?} is not an absolute path"));
    }
    if path.parent().is_none() {
        return Err("the whole file system cannot be shared: name the folders".to_owned());
    }
    if path
        .components()
        .any(|c| matches!(c, std::path::Component::ParentDir))
    {
        return Err(format!("{text:?} contains \"..\""));
    }
    if text.chars().any(|c| c.is_control()) {
        return Err(format!("{text:?} contains a control character"));
    }
    // Collecting the components drops doubled and trailing slashes.
    let path: PathBuf = path.components().collect();
    Ok(format!(
        "{}{}",
        path.display(),
        if read_only { ":ro" } else { "" }
    ))
}

/// Of the folders that are shared, those that were before, however they may be written to now.
fn shares_back_to(tried: Option<&Value>, before: Option<&Value>) -> Option<Value> {
    let entries = |list: Option<&Value>| {
        let list = list.and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    };
    let path = |entry: &Value| entry.as_str().map(|text| split_share(text).0);
    let known: Vec<_> = entries(before).iter().filter_map(path).collect();
    let kept = entries(tried)
        .into_iter()
        .filter(|entry| path(entry).is_some_and(|path| known.contains(&path)));
    tried.map(|_| kept.collect())
}

/// `PATH` or `PATH:ro`
pub fn split_share(text: &str) -> (PathBuf, bool) {
    match text.strip_suffix(":ro") {
        Some(path) => (path.into(), true),
        None => (text.into(), false),
    }
}

fn check_registry(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text.len() < 256
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".-:[]/".contains(c))
        && !text.contains("//");
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not HOST, HOST:PORT or a network"))
    }
}

#[cfg(test)]
mod tests;
