//! Types and client of the host service's API: HTTP/1 and JSON on a local socket.
//!
//! It does not know how the service does its work, nor anything of QEMU.

pub mod client;
pub mod doctor;
pub mod error;
pub mod home;
pub mod pages;
pub mod program;
pub mod settings;
pub mod size;
pub mod spawn;
pub mod types;

pub use client::Client;
pub use error::{ApiError, ErrorCode};
pub use home::Home;
pub use settings::Settings;
pub use size::Size;

#[cfg(test)]
mod typescript;
