//! longshore: start, stop, status, shell, doctor, settings.

fn main() {}
