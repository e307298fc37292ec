//! Host folders in the guest: the virtiofs server process.

fn main() {}
