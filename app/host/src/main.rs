//! The background host service: VM life cycle, settings, docker socket, ports, shares.

fn main() {}
