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

use longshore_registry::hosts::{self, Endpoint};
use longshore_registry::reference::Reference;
use longshore_supervisor_api::types::transfer::RegistryResolver;

/// Where the client wants a reference's registry asked.
fn endpoints(
    reference: &Reference,
    resolver: &RegistryResolver,
) -> longshore_registry::Result<Vec<Endpoint>> {
    let scheme = &resolver.default_scheme;
    match resolver.host_dir.as_str() {
        "" => hosts::direct(&reference.host, scheme),
        folder => hosts::read(folder.as_ref(), &reference.host, scheme),
    }
}
