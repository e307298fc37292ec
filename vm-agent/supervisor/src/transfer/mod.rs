//! The transfer service: pull, push, import, export and tag, done here instead of in the client.

pub mod service;
