//! The few things that the shim asks of a bundle's `config.json`.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result, Step};

#[derive(Deserialize)]
struct Spec {
    linux: Option<Linux>,
}

#[derive(Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Vec<Namespace>,
}

#[derive(Deserialize)]
struct Namespace {
    r#type: String,
    #[serde(default)]
    path: String,
}

/// True if the end of the container's init is the end of all its processes.
pub fn has_own_pid_namespace(bundle: &Path) -> Result<bool> {
    let path = bundle.join("config.json");
    let text = fs::read(&path).at("read", &path)?;
    let spec: Spec = serde_json::from_slice(&text).map_err(|e| Error::Invalid {
        what: "config.json",
        why: e.to_string(),
    })?;
    let namespaces = spec.linux.map(|linux| linux.namespaces).unwrap_or_default();
    Ok(namespaces
        .iter()
        .any(|ns| ns.r#type == "pid" && ns.path.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_namespaces() {
        let dir = tempfile::tempdir().unwrap();
        for (json, own) in [
            (r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#, true),
            (
                r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#,
                false,
            ),
            (r#"{"linux":{"namespaces":[{"type":"mount"}]}}"#, false),
            ("{}", false),
        ] {
            fs::write(dir.path().join("config.json"), json).unwrap();
            assert_eq!(has_own_pid_namespace(dir.path()).unwrap(), own, "{json}");
        }
    }
}
