//! The Docker Engine API, served over HTTP, as a client of the supervisor's containerd API.

pub mod archive;
mod build;
pub mod config;
pub mod container;
pub mod docker_init;
pub mod error;
pub mod event;
pub mod exec;
pub mod filter;
pub mod http_message;
pub mod identity;
pub mod image;
mod namespace_thread;
pub mod network;
pub mod router;
pub mod server;
pub mod state;
mod store_check;
pub mod supervisor;
pub mod system;
pub mod trace_context;
mod upload;
pub mod volume;

pub use error::ApiError;
pub use http_message::{ApiRequest, ApiResponse};
pub use state::Daemon;
