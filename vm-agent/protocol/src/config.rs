//! What the host tells the guest before it boots: `/longshore/config.json` of the initramfs, `/run/longshore/config.json` later.

use serde::{Deserialize, Serialize};

/// Where the host puts the configuration into the initramfs (a second, uncompressed newc archive after the image's own).
pub const INITRAMFS_PATH: &str = "longshore/config.json";
/// Where init leaves it in the guest.
pub const GUEST_PATH: &str = "/run/longshore/config.json";
/// Tag of the data disk's and the root disk's virtio-blk `serial=`.
pub const DATA_DISK_SERIAL: &str = "longshore-data";
pub const ROOT_DISK_SERIAL: &str = "longshore-root";
/// Name of the virtio-serial port that carries the multiplexed channel.
pub const SERIAL_PORT_NAME: &str = "longshore.channel";
/// Kernel command line: `longshore.channel=serial|vsock`.
pub const CHANNEL_PARAMETER: &str = "longshore.channel";
/// Kernel command line: `longshore.selftest=1` offers the channel's contract tests.
pub const SELFTEST_PARAMETER: &str = "longshore.selftest";

/// The boot configuration; every field may be left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestConfig {
    pub version: u32,
    /// Host name of the guest.
    pub hostname: String,
    /// Host folders, mounted before the daemon starts.
    pub shares: Vec<Share>,
    /// Keys of dockerd's `daemon.json` (`insecure-registries`, `ip`, …), handed to the daemon as they are.
    pub daemon_json: serde_json::Value,
    /// The host's clock when it started QEMU, in nanoseconds since 1970; 0 when not told.
    pub host_time_unix_ns: u64,
    /// Swap on the data disk, in bytes; 0 for none.
    pub swap_bytes: u64,
    pub network: NetworkConfig,
}

impl Default for GuestConfig {
    fn default() -> Self {
        Self {
            version: crate::VERSION,
            hostname: "longshore".into(),
            shares: Vec::new(),
            daemon_json: serde_json::Value::Object(Default::default()),
            host_time_unix_ns: 0,
            swap_bytes: 0,
            network: NetworkConfig::default(),
        }
    }
}

/// A host folder in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The virtiofs tag (at most 36 bytes).
    pub tag: String,
    /// Absolute path in the guest: the same as on the host.
    pub path: String,
    #[serde(default)]
    pub read_only: bool,
}

/// The guest's one network interface, on QEMU's user network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkConfig {
    pub address: String,
    pub prefix: u8,
    /// Also the host itself, `host.docker.internal`.
    pub gateway: String,
    pub dns: Vec<String>,
    /// Search domains of `/etc/resolv.conf`.
    pub search: Vec<String>,
    /// Further lines of `/etc/hosts`.
    pub extra_hosts: Vec<HostEntry>,
    pub mtu: Option<u32>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            address: "10.0.2.15".into(),
            prefix: 24,
            gateway: "10.0.2.2".into(),
            dns: vec!["10.0.2.3".into()],
            search: Vec::new(),
            extra_hosts: Vec::new(),
            mtu: None,
        }
    }
}

/// A line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    pub name: String,
    pub address: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_configuration_is_a_whole_one() {
        let config: GuestConfig = serde_json::from_str("{}").unwrap();
        assert_eq!(config, GuestConfig::default());
        let config: GuestConfig = serde_json::from_str(
            r#"{"network":{"mtu":1400},"shares":[{"tag":"home","path":"/home/u"}]}"#,
        )
        .unwrap();
        assert_eq!(config.network.gateway, "10.0.2.2");
        assert!(!config.shares[0].read_only);
    }
}
