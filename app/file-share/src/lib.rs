//! Serves one host folder to the guest over vhost-user virtiofs, from inside a sandbox.
//!
//! It knows nothing of the VM's life: it ends when QEMU disconnects, and when the process that started it dies. A library beside the
//! program, so that the guest can be played on the device without QEMU.

#[cfg(target_os = "linux")]
mod confine;
#[cfg(target_os = "linux")]
pub mod device;
#[cfg(target_os = "linux")]
mod lifeline;
#[cfg(target_os = "linux")]
pub mod masks;
#[cfg(target_os = "linux")]
pub mod ownership;
#[cfg(target_os = "linux")]
mod serve;

#[cfg(target_os = "linux")]
pub use serve::unconfined;

use std::path::PathBuf;

use clap::{ArgGroup, Parser, ValueEnum};

/// Serves a folder of the host to the VM. longshore-vm starts it; there is no need to run it by hand.
#[derive(Parser)]
#[command(version)]
#[command(group(ArgGroup::new("listen").required(true).args(["fd", "socket", "probe"])))]
pub struct Options {
    /// An inherited descriptor of a listening unix socket, to which QEMU connects
    #[arg(long, value_name = "N")]
    pub fd: Option<i32>,
    /// The path of a unix socket to listen on
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Only try whether the sandbox can be entered here
    #[arg(long, hide = true)]
    pub probe: bool,
    /// The folder to serve
    #[arg(long, value_name = "DIR")]
    pub shared_dir: PathBuf,
    /// A path that the guest does not see, though it lies in the folder
    #[arg(long = "mask", value_name = "PATH")]
    pub masks: Vec<PathBuf>,
    /// Name of the share, for the log; the guest gets its tag from QEMU
    #[arg(long, default_value = "share")]
    pub tag: String,
    /// Refuse every change
    #[arg(long)]
    pub read_only: bool,
    /// How the process is confined to the folder; auto takes the strongest that works here
    #[arg(long, value_enum, default_value = "auto")]
    pub sandbox: Sandbox,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sandbox {
    Auto,
    /// Own user, mount, PID and network namespaces
    Namespace,
    /// chroot, for root only
    Chroot,
    /// Only the system call filter
    None,
}

/// Serves the folder until QEMU and, with a socket of its parent's, the parent are gone.
#[cfg(target_os = "linux")]
pub fn run(options: Options) -> anyhow::Result<()> {
    Ok(serve::run(options)?)
}

/// The portable server over the channel will stand here.
#[cfg(not(target_os = "linux"))]
pub fn run(_: Options) -> anyhow::Result<()> {
    anyhow::bail!(
        "folders are shared with the VM on Linux only so far: the file server of this system is still to come"
    )
}
