//! containerd's part: content, images, snapshots, containers, tasks, events, garbage collection.
//!
//! Serves containerd's gRPC API and the ttrpc events service. Knows nothing of Docker; what a container is made of is
//! the client's spec, how it is run is the shim's business.

pub mod content;
pub mod core;
pub mod error;
pub mod events;
pub mod filter;
pub mod gc;
pub mod layer;
pub mod listen;
pub mod request;
pub mod serve;
pub mod services;
pub mod snapshots;
pub mod store;
pub mod streams;
pub mod tasks;
pub mod transfer;

pub use longshore_registry::digest;
