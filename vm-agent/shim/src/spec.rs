//! The few things that the shim asks of a bundle's `config.json`.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result, Step};

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(default)]
    process: Process,
    #[serde(default)]
    linux: Linux,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    oom_score_adj: Option<i32>,
}

#[derive(Default, Deserialize)]
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

/// What the shim does differently from container to container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// The end of the container's init is the end of all its processes.
    pub own_pid_namespace: bool,
    /// The runtime sets it for every process of the container: none inherits the shim's.
    pub own_oom_score: bool,
}

pub fn read(bundle: &Path) -> Result<Traits> {
    let path = bundle.join("config.json");
    let text = fs::read(&path).at("read", &path)?;
    let spec: Spec = serde_json::from_slice(&text).map_err(|e| Error::Invalid {
        what: "config.json",
        why: e.to_string(),
    })?;
    Ok(Traits {
        own_pid_namespace: spec
            .linux
            .namespaces
            .iter()
            .any(|ns| ns.r#type == "pid" && ns.path.is_empty()),
        own_oom_score: spec.process.oom_score_adj.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traits() {
        let dir = tempfile::tempdir().unwrap();
        for (json, own_pid_namespace, own_oom_score) in [
            (r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#, true, false),
            (
                r#"{"process":{"oomScoreAdj":0},"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#,
                false,
                true,
            ),
            (
                r#"{"process":{},"linux":{"namespaces":[{"type":"mount"}]}}"#,
                false,
                false,
            ),
            ("{}", false, false),
        ] {
            fs::write(dir.path().join("config.json"), json).unwrap();
            let wanted = Traits {
                own_pid_namespace,
                own_oom_score,
            };
            assert_eq!(read(dir.path()).unwrap(), wanted, "{json}");
        }
    }
}
