//! The VM process: finds and starts QEMU, speaks QMP, chooses the accelerator, owns the channel and the file servers.

fn main() {}
