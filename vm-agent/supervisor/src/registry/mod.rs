//! The client side of the OCI distribution specification.

mod auth;
mod client;
pub mod reference;

pub use auth::{CredentialSource, Credentials};
pub use client::{Access, Registry, Upload};
