//! PID 1 of the guest: mounts, reaps, respawns, holds the listening sockets.
//!
//! One program in three roles: `/init` of the initramfs finds and mounts the root; PID 1 of the root runs the services; as
//! `modprobe` it loads the module that the kernel asks for. It parses nothing that comes from outside.

mod cgroup;
mod initramfs;
mod log;
mod modprobe;
mod mounts;
mod service;
mod services;
mod shutdown;
mod sockets;
mod spawn;
mod status;
mod supervise;
mod system;

use std::process::ExitCode;

fn main() -> ExitCode {
    let role = std::env::args().next().unwrap_or_default();
    match role.rsplit('/').next() {
        Some("modprobe") => return modprobe::main(),
        _ if std::process::id() != 1 => {
            eprintln!(
                "longshore-init: this is PID 1 of a Longshore guest; to power it off: kill -TERM 1"
            );
            return ExitCode::FAILURE;
        }
        Some("init") if role == "/init" => {
            // Comes back only when the root could not be entered.
            let error = initramfs::enter_root();
            log::error(&format!("the guest cannot start: {error}"));
        }
        _ => {
            let error = supervise::run();
            log::error(&format!("init failed: {error}"));
        }
    }
    // PID 1 must not return (the kernel would panic and the reason scroll away): power off, the console log has the reason.
    shutdown::power_off()
}
