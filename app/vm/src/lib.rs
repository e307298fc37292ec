//! The VM process: finds and starts QEMU, speaks QMP, chooses the accelerator, owns the channel and the file servers.
//!
//! It knows nothing of containers, of the user's settings and of who asks. Its users need [`config`], [`control`] and
//! [`client`]; the rest is what the process `longshore-vm` is made of, in the order of a start. What hears the guest, [`console`] and
//! [`guest`], is open to whoever plays one.

pub mod client;
pub mod config;
pub mod control;

pub mod run;
mod server;

mod machine;

mod accelerator;
mod arguments;
mod boot;
mod clock;
pub mod console;
mod disk;
pub mod guest;
pub mod image;
mod initramfs;
mod process;
mod qemu;
mod qmp;
mod share;
mod start;
mod tsc;
