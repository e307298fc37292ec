//! The OCI runtime, with runc's command line: namespaces, cgroups, mounts, seccomp, capabilities.

fn main() {}
