//! The VM process: finds and starts QEMU, speaks QMP, chooses the accelerator, owns the channel and the file servers.
//!
//! It knows nothing of containers, of the user's settings and of who asks. Its users need [`config`], [`control`] and
//! [`client`]; the rest is what the process `longshore-vm` is made of, in the order of a start.

#[cfg(unix)]
pub mod client;
pub mod config;
pub mod control;

#[cfg(unix)]
pub mod run;
#[cfg(unix)]
mod server;

#[cfg(unix)]
mod machine;

mod accelerator;
mod arguments;
#[cfg(unix)]
mod boot;
mod console;
mod disk;
#[cfg(unix)]
mod guest;
mod image;
mod initramfs;
#[cfg(unix)]
mod process;
mod qemu;
mod qmp;
#[cfg(unix)]
mod share;
