//! containerd shim v2: one per container; stdio, reaping, exit status.

fn main() {}
