//! The engine's options: which of daemon.json's keys our engine has, under Docker's names, and what each may hold.
//!
//! Source of names and meanings: dockerd's configuration file (docs.docker.com/reference/cli/dockerd). A key that is accepted here takes effect in
//! the guest; a key of dockerd's that our engine does not have is refused like any other unknown one, never ignored.

use std::net::IpAddr;

use serde_json::{Map, Value};

/// Why the options cannot be taken: Docker's words, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {advice}")]
pub struct Refusal {
    pub message: String,
    pub advice: String,
}

/// The log drivers, and the options that each takes beside `mode` and `max-buffer-size`, which all take.
pub const LOG_DRIVERS: &[(&str, &[&str])] = &[
    (
        "json-file",
        &[
            "max-file",
            "max-size",
            "compress",
            "labels",
            "labels-regex",
            "env",
            "env-regex",
            "tag",
        ],
    ),
    ("local", &["max-file", "max-size", "compress"]),
    ("none", &[]),
];
const ANY_LOG_OPTION: [&str; 2] = ["mode", "max-buffer-size"];
/// The runtimes that need no entry in `runtimes`.
const RUNTIMES: [&str; 3] = ["longshore", "runc", "crun"];
/// Below it IPv4 does not work (RFC 791); above it no packet is.
const MTU: std::ops::RangeInclusive<u64> = 68..=65535;

type Check = fn(&str, &Value) -> Result<(), Refusal>;

const KEYS: &[(&str, Check)] = &[
    ("bip", check_network),
    ("debug", check_flag),
    ("default-address-pools", check_pools),
    ("default-runtime", check_text),
    ("default-shm-size", check_size),
    ("default-ulimits", check_ulimits),
    ("dns", check_addresses),
    ("dns-opts", check_texts),
    ("dns-search", check_texts),
    ("features", check_features),
    ("fixed-cidr-v6", check_network),
    ("init", check_flag),
    ("insecure-registries", check_texts),
    ("ipv6", check_flag),
    ("labels", check_labels),
    ("log-driver", check_log_driver),
    ("log-opts", check_text_map),
    ("mtu", check_mtu),
    ("no-new-privileges", check_flag),
    ("proxies", check_proxies),
    ("registry-mirrors", check_mirrors),
    ("runtimes", check_runtimes),
];

/// Checks each option, and those that depend on one another.
pub fn check(options: &Map<String, Value>) -> Result<(), Refusal> {
    if options.contains_key("ip") {
        return refuse(
            "\"ip\" is a setting of its own here",
            "use: longshore settings set publish_address=ADDRESS",
        );
    }
    let known = |name: &str| KEYS.iter().find(|(key, _)| *key == name);
    let unknown: Vec<&str> = options
        .keys()
        .map(String::as_str)
        .filter(|name| known(name).is_none())
        .collect();
    if !unknown.is_empty() {
        let names: Vec<&str> = KEYS.iter().map(|(key, _)| *key).collect();
        return refuse(
            format!(
                "the following directives don't match any configuration option: {}",
                unknown.join(", ")
            ),
            format!("remove them; this engine has {}", names.join(", ")),
        );
    }
    for (name, value) in options {
        if let Some((_, check)) = known(name) {
            check(name, value)?;
        }
    }
    check_log_options(options)?;
    check_default_runtime(options)
}

/// Of `http://user:secret@proxy` what may be shown: Docker puts `xxxxx` for both.
pub fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.find('/').unwrap_or(rest.len());
    match (rest[..authority].rfind('@'), scheme) {
        (None, _) => url.to_owned(),
        (Some(at), "") => format!("xxxxx:xxxxx{}", &rest[at..]),
        (Some(at), scheme) => format!("{scheme}://xxxxx:xxxxx{}", &rest[at..]),
    }
}

/// Whether `option` is one that the log driver takes.
pub fn has_log_option(driver: &str, option: &str) -> bool {
    let options = LOG_DRIVERS.iter().find(|(name, _)| *name == driver);
    ANY_LOG_OPTION.contains(&option) || options.is_some_and(|(_, own)| own.contains(&option))
}

fn refuse<T>(message: impl Into<String>, advice: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        message: message.into(),
        advice: advice.into(),
    })
}

/// In the words of Go's decoder, which dockerd answers with.
fn wrong_type<T>(name: &str, value: &Value, wanted: &str, advice: &str) -> Result<T, Refusal> {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    refuse(
        format!(
            "json: cannot unmarshal {kind} into Go struct field Config.{name} of type {wanted}"
        ),
        advice,
    )
}

fn text<'a>(name: &str, value: &'a Value) -> Result<&'a str, Refusal> {
    match value.as_str() {
        Some(text) => Ok(text),
        None => wrong_type(
            name,
            value,
            "string",
            &format!("write \"{name}\" as a text in quotes"),
        ),
    }
}

fn texts<'a>(name: &str, value: &'a Value) -> Result<Vec<&'a str>, Refusal> {
    let advice = format!("write \"{name}\" as a list of texts: [\"…\"]");
    let Some(list) = value.as_array() else {
        return wrong_type(name, value, "[]string", &advice);
    };
    let text = |item: &'a Value| match item.as_str() {
        Some(text) => Ok(text),
        None => wrong_type(name, item, "string", &advice),
    };
    list.iter().map(text).collect()
}

fn members<'a>(
    name: &str,
    value: &'a Value,
    wanted: &str,
) -> Result<&'a Map<String, Value>, Refusal> {
    match value.as_object() {
        Some(members) => Ok(members),
        None => wrong_type(
            name,
            value,
            wanted,
            &format!("write \"{name}\" as an object: {{\"…\": …}}"),
        ),
    }
}

fn check_flag(name: &str, value: &Value) -> Result<(), Refusal> {
    match value.is_boolean() {
        true => Ok(()),
        false => wrong_type(name, value, "bool", "write true or false, without quotes"),
    }
}

fn check_text(name: &str, value: &Value) -> Result<(), Refusal> {
    text(name, value).map(drop)
}

fn check_texts(name: &str, value: &Value) -> Result<(), Refusal> {
    texts(name, value).map(drop)
}

fn check_text_map(name: &str, value: &Value) -> Result<(), Refusal> {
    let all = members(name, value, "map[string]string")?;
    all.values().try_for_each(|item| check_text(name, item))
}

/// `ADDRESS/BITS`
fn check_network(name: &str, value: &Value) -> Result<(), Refusal> {
    let network = text(name, value)?;
    let wants_v6 = name == "fixed-cidr-v6";
    match parse_network(network) {
        Some(address) if address.is_ipv6() == wants_v6 => Ok(()),
        _ => refuse(
            format!("invalid CIDR address: {network}"),
            match wants_v6 {
                true => format!("write \"{name}\" like fd00:1::/64"),
                false => format!("write \"{name}\" like 172.20.0.1/16"),
            },
        ),
    }
}

fn parse_network(network: &str) -> Option<IpAddr> {
    let (address, bits) = network.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    bits.parse::<u8>()
        .ok()
        .filter(|bits| (1..=most).contains(bits))?;
    Some(address)
}

fn check_pools(name: &str, value: &Value) -> Result<(), Refusal> {
    let advice = "write [{\"base\": \"10.99.0.0/16\", \"size\": 24}]";
    let Some(pools) = value.as_array() else {
        return wrong_type(name, value, "[]*ipamutils.NetworkToSplit", advice);
    };
    for pool in pools {
        let base = pool.get("base").and_then(Value::as_str).unwrap_or_default();
        let Some(address) = parse_network(base) else {
            return refuse(
                format!("invalid default address pool: invalid CIDR address: {base}"),
                advice,
            );
        };
        let bits: u64 = base
            .rsplit('/')
            .next()
            .and_then(|bits| bits.parse().ok())
            .unwrap_or(0);
        let most = if address.is_ipv4() { 32 } else { 128 };
        let size = pool.get("size").and_then(Value::as_u64).unwrap_or(0);
        if size < bits || size > most {
            return refuse(
                format!("invalid default address pool: size {size} does not fit {base}"),
                format!("give a size from {bits} to {most}"),
            );
        }
    }
    Ok(())
}

fn check_size(name: &str, value: &Value) -> Result<(), Refusal> {
    let advice = "write a size such as \"64M\"";
    let bytes = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => size(text),
        _ => return wrong_type(name, value, "opts.MemBytes", advice),
    };
    match bytes {
        Some(1..) => Ok(()),
        _ => refuse(
            format!("invalid size: '{}'", value.as_str().unwrap_or("0")),
            advice,
        ),
    }
}

/// go-units' `RAMInBytes`: a number, with or without k, m, g or t.
pub fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = match lower[digits.len()..]
        .trim_end_matches("ib")
        .trim_end_matches('b')
    {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(1 << power)
}

fn check_ulimits(name: &str, value: &Value) -> Result<(), Refusal> {
    let advice = "write {\"nofile\": {\"Name\": \"nofile\", \"Hard\": 64000, \"Soft\": 64000}}";
    for (limit, bounds) in members(name, value, "map[string]*container.Ulimit")? {
        let bound = |key: &str| bounds.get(key).and_then(Value::as_i64);
        match (bound("Soft"), bound("Hard")) {
            (Some(soft), Some(hard)) if hard == -1 || (soft != -1 && soft <= hard) => {}
            (Some(soft), Some(hard)) => {
                let words = format!(
                    "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
                );
                return refuse(words, advice);
            }
            _ => return refuse(format!("invalid ulimit: {limit}"), advice),
        }
    }
    Ok(())
}

fn check_addresses(name: &str, value: &Value) -> Result<(), Refusal> {
    match texts(name, value)?
        .iter()
        .find(|text| text.parse::<IpAddr>().is_err())
    {
        Some(text) => refuse(
            format!("IP address is not correctly formatted: {text}"),
            "write the address of each name server, such as 9.9.9.9",
        ),
        None => Ok(()),
    }
}

fn check_features(name: &str, value: &Value) -> Result<(), Refusal> {
    for (feature, on) in members(name, value, "map[string]bool")? {
        if feature != "containerd-snapshotter" || *on != Value::Bool(true) {
            return refuse(
                format!("unknown feature {feature}={on}"),
                "this engine keeps its images with containerd's API (containerd-snapshotter=true) and has no other feature to choose",
            );
        }
    }
    Ok(())
}

fn check_labels(name: &str, value: &Value) -> Result<(), Refusal> {
    match texts(name, value)?
        .iter()
        .find(|label| label.split('=').next().unwrap_or_default().is_empty())
    {
        Some(label) => refuse(
            format!("bad attribute format: {label}"),
            "write each label as \"key=value\"",
        ),
        None => Ok(()),
    }
}

fn check_log_driver(name: &str, value: &Value) -> Result<(), Refusal> {
    let driver = text(name, value)?;
    match LOG_DRIVERS.iter().any(|(known, _)| *known == driver) {
        true => Ok(()),
        false => refuse(
            format!("logger: no log driver named '{driver}' is registered"),
            "use json-file, local or none",
        ),
    }
}

/// Of the driver that is chosen.
fn check_log_options(options: &Map<String, Value>) -> Result<(), Refusal> {
    let driver = options
        .get("log-driver")
        .and_then(Value::as_str)
        .unwrap_or("json-file");
    let chosen = options.get("log-opts").and_then(Value::as_object);
    let unknown = chosen.and_then(|all| all.keys().find(|option| !has_log_option(driver, option)));
    match unknown {
        Some(option) => refuse(
            format!("failed to set log opts: unknown log opt '{option}' for {driver} log driver"),
            format!("remove \"{option}\" from log-opts, or choose another log-driver"),
        ),
        None => Ok(()),
    }
}

fn check_default_runtime(options: &Map<String, Value>) -> Result<(), Refusal> {
    let Some(name) = options.get("default-runtime").and_then(Value::as_str) else {
        return Ok(());
    };
    let configured = options
        .get("runtimes")
        .is_some_and(|all| all.get(name).is_some());
    match RUNTIMES.contains(&name) || configured {
        true => Ok(()),
        false => refuse(
            format!("specified default runtime '{name}' does not exist"),
            format!("use {}, or name it in \"runtimes\"", RUNTIMES.join(", ")),
        ),
    }
}

fn check_runtimes(name: &str, value: &Value) -> Result<(), Refusal> {
    for (runtime, told) in members(name, value, "map[string]system.Runtime")? {
        if RUNTIMES.contains(&runtime.as_str()) {
            return refuse(
                format!("runtime name '{runtime}' is reserved"),
                "give yours another name",
            );
        }
        let has = |key: &str| {
            told.get(key)
                .and_then(Value::as_str)
                .is_some_and(|text| !text.is_empty())
        };
        if has("path") == has("runtimeType") {
            return refuse(
                format!("runtime '{runtime}': either a runtimeType or a path must be configured"),
                "write {\"path\": \"/usr/bin/crun\"}, a path in the VM",
            );
        }
    }
    Ok(())
}

fn check_mtu(name: &str, value: &Value) -> Result<(), Refusal> {
    let advice = "give a whole number of bytes from 68 to 65535";
    match value.as_u64() {
        Some(mtu) if MTU.contains(&mtu) => Ok(()),
        _ if value.is_number() => refuse(format!("invalid default MTU: {value}"), advice),
        _ => wrong_type(name, value, "int", advice),
    }
}

fn check_proxies(name: &str, value: &Value) -> Result<(), Refusal> {
    for (key, proxy) in members(name, value, "config.Proxies")? {
        let proxy = text(key, proxy)?;
        match key.as_str() {
            // They become lines of a file.
            "no-proxy" if !proxy.contains(char::is_control) => {}
            "no-proxy" => {
                return refuse(
                    "invalid no-proxy: it holds a control character",
                    "write names and networks with commas between",
                );
            }
            "http-proxy" | "https-proxy" if proxy.is_empty() || host_of(proxy).is_some() => {}
            "http-proxy" | "https-proxy" => {
                let shown = without_secrets(proxy);
                return refuse(
                    format!("invalid {key}: {shown:?} is not a URL of http or https"),
                    "write http://HOST:PORT",
                );
            }
            _ => {
                return refuse(
                    format!(
                        "the following directives don't match any configuration option: proxies.{key}"
                    ),
                    "use http-proxy, https-proxy and no-proxy",
                );
            }
        }
    }
    Ok(())
}

fn check_mirrors(name: &str, value: &Value) -> Result<(), Refusal> {
    let advice = "write each mirror as https://HOST or http://HOST:PORT";
    for mirror in texts(name, value)? {
        let Some(host) = host_of(mirror) else {
            return match mirror.split_once("://") {
                None => refuse(
                    format!(
                        "invalid mirror: no scheme specified for {mirror:?}: must use either 'https://' or 'http://'"
                    ),
                    advice,
                ),
                Some((scheme, _)) => refuse(
                    format!("invalid mirror: unsupported scheme {scheme:?} in {mirror:?}"),
                    advice,
                ),
            };
        };
        if host.contains('@') {
            let shown = without_secrets(mirror);
            return refuse(
                format!("invalid mirror: username/password not allowed in URI {shown:?}"),
                advice,
            );
        }
        let rest = &mirror[mirror.find(host).unwrap_or(0) + host.len()..];
        if !matches!(rest, "" | "/") {
            return refuse(
                format!("invalid mirror: path, query, or fragment at end of the URI {mirror:?}"),
                advice,
            );
        }
    }
    Ok(())
}

/// `user@HOST:PORT` of a URL of http or https.
fn host_of(url: &str) -> Option<&str> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))?;
    let host = rest.split(['/', '?', '#']).next()?;
    let plain = |c: char| c.is_ascii_graphic();
    (!host.is_empty() && !host.ends_with('@') && url.chars().all(plain)).then_some(host)
}

#[cfg(test)]
mod tests;
