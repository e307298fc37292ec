//! Which of our crates may use which: calls go down the picture, and processes share only the
//! crates that hold a joint's protocol.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::process::Command;

/// Crate → our crates that it may depend on. A crate that is missing here fails the check.
const ALLOWED: &[(&str, &[&str])] = &[
    ("longshore-protocol", &[]),
    ("longshore-trace", &[]),
    ("longshore-supervisor-api", &[]),
    ("longshore-container-log", &[]),
    ("longshore-init", &[]),
    // A library of the daemon, so that its core stays free of either build protocol.
    ("longshore-builder", &["longshore-tar-entries"]),
    // A stranger's archive is bounded in one place, whoever reads it.
    ("longshore-tar-entries", &[]),
    // What is freed is given back in one way.
    ("longshore-heap", &[]),
    // Both ask registries: one for content, one what a name stands for.
    ("longshore-registry", &[]),
    (
        "longshore-agent",
        &["longshore-protocol", "longshore-trace"],
    ),
    (
        "longshore-daemon",
        &[
            "longshore-builder",
            "longshore-container-log",
            "longshore-heap",
            "longshore-protocol",
            "longshore-registry",
            "longshore-supervisor-api",
            "longshore-tar-entries",
            "longshore-trace",
        ],
    ),
    (
        "longshore-supervisor",
        &[
            "longshore-heap",
            "longshore-registry",
            "longshore-supervisor-api",
            "longshore-tar-entries",
            "longshore-trace",
        ],
    ),
    (
        "containerd-shim-longshore-v2",
        &[
            "longshore-container-log",
            "longshore-heap",
            "longshore-trace",
        ],
    ),
    ("longshore-runtime", &["longshore-trace"]),
    ("longshore-local-socket", &[]),
    (
        "longshore-channel",
        &["longshore-local-socket", "longshore-protocol"],
    ),
    (
        "longshore-vm",
        &[
            "longshore-channel",
            "longshore-local-socket",
            "longshore-protocol",
        ],
    ),
    ("longshore-file-share", &[]),
    (
        "longshore-host-api",
        &["longshore-local-socket", "longshore-protocol"],
    ),
    (
        "longshore-host",
        &[
            "longshore-host-api",
            "longshore-local-socket",
            "longshore-protocol",
            "longshore-vm",
        ],
    ),
    // It plays the guest on all that hears one.
    (
        "longshore-fuzz",
        &[
            "longshore-channel",
            "longshore-file-share",
            "longshore-host",
            "longshore-protocol",
            "longshore-vm",
        ],
    ),
    ("longshore", &["longshore-host-api", "longshore-protocol"]),
    (
        "longshore-desktop",
        &["longshore-host-api", "longshore-local-socket"],
    ),
    ("longshore-guest-image", &[]),
    ("longshore-posix-cases", &[]),
    ("xtask", &[]),
];

/// Fails with every edge that points the wrong way.
pub fn check() -> Result<()> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("running cargo metadata")?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("parsing cargo metadata")?;
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata has no packages")?;
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(may_use) = allowed.get(name) else {
            wrong.push(format!(
                "{name} is not in scripts/xtask/src/dependencies.rs"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            if allowed.contains_key(used) && dependency["kind"] != "dev" && !may_use.contains(&used)
            {
                wrong.push(format!("{name} must not depend on {used}"));
            }
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("dependency direction:\n  {}", wrong.join("\n  "));
}
