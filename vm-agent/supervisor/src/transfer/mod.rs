//! The transfer service: pull, push, import, export and tag, done here instead of in the client.

mod client_stream;
mod credentials;
mod export;
mod fetch;
mod import;
mod manifest;
mod names;
mod progress;
mod pull;
mod push;
pub mod service;
mod stage;
mod tree;
mod unpack;
