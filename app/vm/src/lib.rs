//! The VM process: finds and starts QEMU, speaks QMP, chooses the accelerator, owns the channel and the file servers.
//!
//! It knows nothing of containers, of the user's settings and of who asks. Its users need [`config`], [`control`] and
//! [`client`]; the rest is what the process `longshore-vm` is made of.

#[cfg(unix)]
pub mod client;
pub mod config;
pub mod control;
