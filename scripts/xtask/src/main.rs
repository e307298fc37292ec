//! Repository checks: dependency direction, maps.

fn main() {}
