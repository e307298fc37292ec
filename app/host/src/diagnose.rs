//! What somebody who helps wants to see of an instance, as one archive: versions, settings, state, what the engine holds, logs.
//!
//! Of containers and volumes it has names, sizes and states: no environment, no command, no label's value. All texts pass
//! [`Redactor`].

use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use longshore_host_api::ApiError;
use longshore_protocol::logs::LogSource;
use longshore_protocol::ports;
use serde_json::{Map, Value, json};
use tokio::process::Command;

use crate::phase::Phase;
use crate::redact::Redactor;
use crate::service::{self, Service};
use crate::{channel, doctor, engine, layers, logs, shares, vm_process};

/// What one question to the engine or the guest may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The end of a log that is kept.
const MOST: usize = 4 << 20;
/// Variables that change what Longshore or docker does. Others are not looked at.
const VARIABLES: [&str; 12] = [
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "LONGSHORE_HOME",
    "LONGSHORE_LOG",
    "XDG_RUNTIME_DIR",
];
/// The folder that the archive unpacks to.
const FOLDER: &str = "longshore-diagnostics";
const READ_ME: &str = "What a diagnosis of Longshore needs, made by `longshore diagnose`.

Look through it before you hand it on. Passwords, tokens and keys were taken out where they can be told by what stands around
them; of containers it has names, images and states, and neither their environment, nor their commands, nor their own logs.
";

/// A name in the archive, and the text there.
type Entry = (&'static str, String);

/// The archive: tar, compressed with gzip.
pub async fn bundle(service: &Service) -> Result<Vec<u8>, ApiError> {
    let settings = service.settings().await;
    let mut redactor = Redactor::default().with_home(shares::user_home().as_deref());
    for address in addresses(&Value::Object(settings.engine.clone())) {
        redactor.know_address(&address);
    }
    for name in VARIABLES {
        redactor.know_address(&std::env::var(name).unwrap_or_default());
    }
    let mut entries: Vec<Entry> = vec![
        ("about.json", pretty(&about(service).await)),
        (
            "settings.json",
            pretty(&Value::Object(service::as_map(&settings))),
        ),
        ("status.json", pretty(&service.status().await)),
        ("machine.json", pretty(&service.machine())),
        ("doctor.json", pretty(&doctor::examine(service).await)),
    ];
    if matches!(*service.vm().phase().borrow(), Phase::Running) {
        entries.push(("layers.json", or_error(layers::layers(service).await)));
        entries.push(("engine.json", pretty(&of_engine(service).await)));
        entries.extend(guest_logs(service).await);
    }
    let home = service.home();
    for (name, path) in [
        ("logs/host.log", home.host_log()),
        ("logs/vm.log", vm_process::log_file(home)),
        ("logs/console.log", home.console_log()),
    ] {
        entries.push((name, end_of(&path)));
    }
    let packed = tokio::task::spawn_blocking(move || pack(&entries, &redactor)).await;
    let failed =
        |e: &dyn std::fmt::Display| ApiError::internal(format!("cannot pack the archive: {e}"));
    packed.map_err(|e| failed(&e))?.map_err(|e| failed(&e))
}

fn pack(entries: &[Entry], redactor: &Redactor) -> std::io::Result<Vec<u8>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let mut add = |name: &str, text: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now);
        tar.append_data(&mut header, format!("{FOLDER}/{name}"), text.as_bytes())
    };
    add("README.txt", READ_ME)?;
    for (name, text) in entries {
        add(name, &redactor.text(text))?;
    }
    let mut encoder = tar.into_inner()?;
    encoder.flush()?;
    encoder.finish()
}

async fn about(service: &Service) -> Value {
    let variables: Map<String, Value> = VARIABLES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), Value::from(std::env::var(name).ok()?))))
        .collect();
    let system = match std::env::consts::OS {
        "linux" => {
            let read = |path| std::fs::read_to_string(path).unwrap_or_default();
            format!("{}{}", read("/proc/version"), read("/etc/os-release"))
        }
        "macos" => said("sw_vers", &[]).await,
        _ => said("cmd", &["/c", "ver"]).await,
    };
    json!({
        "longshore": env!("CARGO_PKG_VERSION"),
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "system": system.lines().collect::<Vec<_>>(),
        "docker_command": said("docker", &["--version"]).await,
        "environment": variables,
        "sockets": service.home().socket_folder(),
    })
}

/// What a program of this machine says.
async fn said(program: &str, words: &[&str]) -> String {
    let output = Command::new(program)
        .args(words)
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(PATIENCE, output).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Ok(Err(error)) => format!("{program}: {error}"),
        Err(_) => format!("{program} hangs"),
    }
}

/// What the engine says of itself, and names and sizes of what it holds.
async fn of_engine(service: &Service) -> Value {
    let mut all = Map::new();
    for (name, path, keep) in [
        ("version", "/version", &[][..]),
        ("info", "/info", &[]),
        (
            "containers",
            "/containers/json?all=true",
            &[
                "Id", "Names", "Image", "Created", "State", "Status", "Ports",
            ],
        ),
        (
            "images",
            "/images/json",
            &["Id", "RepoTags", "Created", "Size"],
        ),
        (
            "volumes",
            "/volumes",
            &["Volumes", "Name", "Driver", "CreatedAt", "Scope"],
        ),
        (
            "networks",
            "/networks",
            &["Id", "Name", "Driver", "Scope", "Internal", "IPAM"],
        ),
        ("disk usage", "/system/df", &["LayersSize"]),
    ] {
        let asked = async {
            let socket = service.home().channel_socket();
            let stream = channel::dial(&socket, ports::DOCKER).await;
            let stream = stream.map_err(|e| e.to_string())?;
            engine::value(stream, path, PATIENCE)
                .await
                .map_err(|e| e.to_string())
        };
        let answer = asked
            .await
            .unwrap_or_else(|error| json!({ "error": error }));
        all.insert(name.to_owned(), kept(answer, keep));
    }
    Value::Object(all)
}

/// Of lists and objects only these keys; all of it when none is named.
fn kept(value: Value, keep: &[&str]) -> Value {
    match value {
        Value::Array(list) => list.into_iter().map(|item| kept(item, keep)).collect(),
        Value::Object(map) if !keep.is_empty() && !map.contains_key("error") => {
            let named = map
                .into_iter()
                .filter(|(key, _)| keep.contains(&key.as_str()));
            named
                .map(|(key, value)| match key.as_str() {
                    // The list that the answer wraps.
                    "Volumes" => (key, kept(value, keep)),
                    _ => (key, value),
                })
                .collect()
        }
        other => other,
    }
}

async fn guest_logs(service: &Service) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (name, source) in [
        ("logs/daemon.log", LogSource::Daemon),
        ("logs/supervisor.log", LogSource::Supervisor),
        ("logs/agent.log", LogSource::Agent),
    ] {
        let channel = service.home().channel_socket();
        let read = async {
            let stream = logs::guest(&channel, source, false).await?;
            let mut stream = std::pin::pin!(stream);
            let mut bytes = Vec::new();
            while let Some(Ok(piece)) = stream.next().await {
                bytes.extend_from_slice(&piece);
                // The guest decides how much it sends.
                if bytes.len() > 2 * MOST {
                    bytes.drain(..bytes.len() - MOST);
                }
            }
            Ok::<_, ApiError>(text(&bytes))
        };
        let text = match tokio::time::timeout(PATIENCE, read).await {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the agent does not answer".to_owned(),
        };
        entries.push((name, text));
    }
    entries
}

/// The end of a file of ours; what a `MOST` cuts off is the beginning.
fn end_of(path: &Path) -> String {
    match std::fs::read(path) {
        Ok(bytes) => text(&bytes),
        Err(error) => format!("{}: {error}", path.display()),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(MOST)..]).into_owned()
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|error| error.to_string())
}

fn or_error<T: serde::Serialize>(answer: Result<T, ApiError>) -> String {
    match answer {
        Ok(value) => pretty(&value),
        Err(error) => pretty(&error),
    }
}

/// Every text in a value.
fn addresses(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list.iter().flat_map(addresses).collect(),
        Value::Object(map) => map.values().flat_map(addresses).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_kept() {
        let answer = json!([{ "Id": "1", "Command": "db --pass=x", "Labels": { "token": "x" } }]);
        assert_eq!(kept(answer, &["Id"]), json!([{ "Id": "1" }]));
        let answer = json!({ "Volumes": [{ "Name": "data", "Options": { "o": "password=x" } }], "Warnings": null });
        let wanted = json!({ "Volumes": [{ "Name": "data" }] });
        assert_eq!(kept(answer, &["Volumes", "Name"]), wanted);
        assert_eq!(
            kept(json!({ "error": "lost" }), &["Id"]),
            json!({ "error": "lost" })
        );
    }

    #[test]
    fn every_text_of_the_archive_is_redacted() {
        use std::io::Read;
        let mut redactor = Redactor::default();
        redactor.know("hunter2");
        let entries = [
            ("a.json", "url http://u:p4ss@h".to_owned()),
            ("logs/b", "said hunter2".to_owned()),
        ];
        let packed = pack(&entries, &redactor).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed.as_slice()));
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            names.push(entry.path().unwrap().display().to_string());
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert!(
                !text.contains("hunter2") && !text.contains("p4ss"),
                "{text}"
            );
        }
        let wanted = ["README.txt", "a.json", "logs/b"].map(|name| format!("{FOLDER}/{name}"));
        assert_eq!(names, wanted);
    }
}
