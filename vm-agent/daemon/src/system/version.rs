//! `docker version`: the engine, and every layer below it with its own version.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::error::ApiResult;
use crate::server::{MAX_VERSION, MIN_VERSION};
use crate::state::Daemon;

/// The engine's own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub fn kernel_version() -> String {
    nix::sys::utsname::uname().map_or_else(
        |_| String::new(),
        |name| name.release().to_string_lossy().into_owned(),
    )
}

/// Go's name of this architecture.
pub fn architecture() -> String {
    crate::image::Platform::host().architecture
}

pub async fn describe(daemon: &Daemon) -> ApiResult<Value> {
    let (api, minimum) = (
        format!("{}.{}", MAX_VERSION.0, MAX_VERSION.1),
        format!("{}.{}", MIN_VERSION.0, MIN_VERSION.1),
    );
    let supervisor = daemon
        .supervisor
        .version()
        .version(())
        .await
        .ok()
        .map(|v| v.into_inner());
    let (supervisor_version, revision) = supervisor.map_or_else(Default::default, |version| {
        (version.version, version.revision)
    });
    let components = json!([
        {
            "Name": "Engine",
            "Version": VERSION,
            "Details": {
                "ApiVersion": api,
                "Arch": architecture(),
                "BuildTime": "",
                "Experimental": "false",
                "GitCommit": "",
                "GoVersion": "",
                "KernelVersion": kernel_version(),
                "MinAPIVersion": minimum,
                "Os": "linux",
                "Program": "longshore-daemon",
            },
        },
        component(&supervisor_name(daemon), &supervisor_version, &revision),
        component("longshore-runtime", &runtime_version(daemon).await, ""),
        component("longshore-init", VERSION, ""),
    ]);
    Ok(json!({
        "Platform": { "Name": format!("Longshore {VERSION} (longshore-daemon)") },
        "Components": components,
        "Version": VERSION,
        "ApiVersion": api,
        "MinAPIVersion": minimum,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": architecture(),
        "KernelVersion": kernel_version(),
        "BuildTime": "",
    }))
}

fn component(name: &str, version: &str, commit: &str) -> Value {
    json!({ "Name": name, "Version": version, "Details": { "GitCommit": commit } })
}

/// Ours, unless this daemon was pointed at a foreign shim, and so at a foreign containerd.
fn supervisor_name(daemon: &Daemon) -> String {
    match daemon.config.options.default_shim.is_some() {
        true => "containerd".to_owned(),
        false => "longshore-supervisor".to_owned(),
    }
}

/// Asks the runtime itself, once: it may have been built at another time.
async fn runtime_version(_daemon: &Daemon) -> String {
    static KNOWN: tokio::sync::OnceCell<String> = tokio::sync::OnceCell::const_new();
    let ask = || async {
        let program = PathBuf::from("/usr/bin/longshore-runtime");
        let asked = tokio::process::Command::new(program)
            .arg("--version")
            .kill_on_drop(true)
            .output();
        let answered = tokio::time::timeout(std::time::Duration::from_secs(5), asked).await;
        let output = answered
            .ok()
            .and_then(Result::ok)
            .map(|output| output.stdout)
            .unwrap_or_default();
        version_word(&String::from_utf8_lossy(&output)).unwrap_or_else(|| VERSION.to_owned())
    };
    KNOWN.get_or_init(ask).await.clone()
}

/// The first word of the first line that begins with a digit.
fn version_word(text: &str) -> Option<String> {
    let mut words = text.lines().next()?.split_whitespace();
    words
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtimes_version_is_found_in_its_first_line() {
        for (text, version) in [
            ("longshore-runtime 0.1.0\nspec: 1.2.0\n", Some("0.1.0")),
            ("runc version 1.3.6+ds1\n", Some("1.3.6+ds1")),
            ("", None),
        ] {
            assert_eq!(version_word(text).as_deref(), version);
        }
    }
}
