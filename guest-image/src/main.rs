//! Builds kernel, initramfs and compressed root for the guest, without root, from Debian packages and the guest's binaries.

fn main() {}
