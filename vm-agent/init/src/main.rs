//! PID 1 of the guest: mounts, reaps, respawns, holds the listening sockets.

fn main() {}
