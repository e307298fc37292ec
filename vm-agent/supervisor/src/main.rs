//! containerd's part: content, images, snapshots, containers, tasks, events, garbage collection.

fn main() {}
