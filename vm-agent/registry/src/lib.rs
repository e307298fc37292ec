//! The client side of the OCI distribution specification.
//!
//! It does not know where content is kept, nor what an image is run for.

mod auth;
mod client;
pub mod digest;
mod error;
pub mod hosts;
pub mod reference;

pub use auth::{CredentialSource, Credentials};
pub use client::{Access, Registry, Upload};
pub use error::{Error, Result};
