//! Messages, port numbers and mux frames between host and guest.
//!
//! Portable: nothing here is Linux. The host dials a numbered port ([`ports`]); what is spoken there has a module each.
//! Every conversation opens with one JSON line ([`line`]) that carries [`VERSION`], and every line and frame is bounded, since
//! the host believes nothing that the guest says.

pub mod config;
pub mod control;
pub mod dial;
pub mod engine_options;
pub mod line;
pub mod local;
pub mod logs;
pub mod mux;
pub mod port_news;
pub mod ports;
pub mod received;
pub mod shell;

/// Version of the messages in this crate; both sides refuse another one, saying so.
pub const VERSION: u32 = 1;

/// Says whether the other side speaks our version.
pub fn check_version(theirs: u32) -> Result<(), VersionMismatch> {
    if theirs == VERSION {
        Ok(())
    } else {
        Err(VersionMismatch { theirs })
    }
}

/// The other side speaks another version of these messages.
#[derive(Debug, thiserror::Error)]
#[error(
    "the other side speaks version {theirs} of the Longshore protocol, this side version {VERSION}; use programs and guest image of one release"
)]
pub struct VersionMismatch {
    pub theirs: u32,
}
