//! The Docker Engine API: containers, images, networks, volumes, logs, events, restart policies.

fn main() {}
