//! What `longshore-vm --config FILE` is given: one JSON object.

use std::path::{Path, PathBuf};

use longshore_protocol::config::GuestConfig;
use serde::{Deserialize, Serialize};

use crate::control::ShareConfig;

/// One VM. Sizes are in bytes, paths absolute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VmConfig {
    /// `LONGSHORE_HOME`: holds `data.img`, `console.log` and `vm/`.
    pub home: PathBuf,
    /// Where `vm.sock`, `channel.sock` and QEMU's own sockets go; `HOME/vm` when left out. The lock file and
    /// `accelerator.json` stay in `HOME/vm`. Given when HOME is too long for a socket's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_dir: Option<PathBuf>,
    /// `kernel`, `initramfs`, `root.erofs`, `manifest.json`.
    pub guest_image: PathBuf,
    #[serde(default = "default_cpus")]
    pub cpus: u32,
    #[serde(default = "default_memory")]
    pub memory_bytes: u64,
    /// The data disk; `HOME/data.img` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_disk: Option<PathBuf>,
    /// Size of the data disk; a smaller one is grown, a larger one is left as it is.
    #[serde(default = "default_disk")]
    pub disk_bytes: u64,
    #[serde(default)]
    pub accelerator: AcceleratorChoice,
    #[serde(default)]
    pub channel: ChannelChoice,
    #[serde(default)]
    pub shares: Vec<ShareConfig>,
    /// Handed to the guest; its `shares` are made from [`VmConfig::shares`] when it names none.
    #[serde(default)]
    pub guest: GuestConfig,
    /// QEMU's program; found on `PATH` and in the usual places when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu: Option<PathBuf>,
    /// Offers the channel's contract tests in the guest.
    #[serde(default)]
    pub selftest: bool,
}

fn default_cpus() -> u32 {
    2
}

fn default_memory() -> u64 {
    2 << 30
}

fn default_disk() -> u64 {
    64 << 30
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AcceleratorChoice {
    /// The platform's own when a guest really boots on it, else TCG.
    #[default]
    Auto,
    Kvm,
    Hvf,
    Whpx,
    Tcg,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelChoice {
    #[default]
    Auto,
    Vsock,
    Serial,
}

impl VmConfig {
    /// The least that makes a VM.
    pub fn new(home: impl Into<PathBuf>, guest_image: impl Into<PathBuf>) -> Self {
        Self {
            home: home.into(),
            runtime_dir: None,
            guest_image: guest_image.into(),
            cpus: default_cpus(),
            memory_bytes: default_memory(),
            data_disk: None,
            disk_bytes: default_disk(),
            accelerator: AcceleratorChoice::Auto,
            channel: ChannelChoice::Auto,
            shares: Vec::new(),
            guest: GuestConfig::default(),
            qemu: None,
            selftest: false,
        }
    }

    /// The data disk's file.
    pub fn data_disk(&self) -> PathBuf {
        self.data_disk
            .clone()
            .unwrap_or_else(|| self.home.join("data.img"))
    }

    /// The folder of the sockets.
    pub fn sockets(&self) -> PathBuf {
        self.runtime_dir
            .clone()
            .unwrap_or_else(|| self.home.join("vm"))
    }

    pub fn control_socket(&self) -> PathBuf {
        self.sockets().join("vm.sock")
    }

    /// How the last VM ended: [`crate::control::VmState`] as JSON, written before the sockets close.
    pub fn last_state(&self) -> PathBuf {
        last_state_file(&self.home)
    }

    pub fn channel_socket(&self) -> PathBuf {
        self.sockets().join("channel.sock")
    }
}

/// Where the `longshore-vm` of `home` says how it ended.
pub fn last_state_file(home: &Path) -> PathBuf {
    home.join("vm").join("last-state.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_paths_make_a_configuration() {
        let config: VmConfig =
            serde_json::from_str(r#"{"home":"/h","guest_image":"/i","accelerator":"tcg"}"#)
                .unwrap();
        let expected = VmConfig {
            accelerator: AcceleratorChoice::Tcg,
            ..VmConfig::new("/h", "/i")
        };
        assert_eq!(config, expected);
        assert_eq!(config.control_socket(), PathBuf::from("/h/vm/vm.sock"));
    }
}
