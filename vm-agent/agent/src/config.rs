//! The boot configuration as the host wrote it, and as `configure` changed it since.

use longshore_protocol::config::{GUEST_PATH, GuestConfig};
use std::io;

/// A configuration that is missing or cannot be read is the default one: a guest that boots can tell what is wrong.
pub fn load() -> GuestConfig {
    let text = match std::fs::read(GUEST_PATH) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::error!("read {GUEST_PATH}: {error}");
            }
            return GuestConfig::default();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::error!("parse {GUEST_PATH}: {error}");
        GuestConfig::default()
    })
}

/// Replaces the file whole.
pub fn save(config: &GuestConfig) -> io::Result<()> {
    write_whole(GUEST_PATH, &serde_json::to_vec(config)?)
}

/// Writes a file so that readers see the old or the new one.
pub fn write_whole(path: &str, data: &[u8]) -> io::Result<()> {
    let new = format!("{path}.new");
    std::fs::write(&new, data)?;
    std::fs::rename(new, path)
}

/// A parameter `name=value` of the kernel command line.
pub fn kernel_parameter(name: &str) -> Option<String> {
    let line = std::fs::read_to_string("/proc/cmdline").ok()?;
    line.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.into())
}
