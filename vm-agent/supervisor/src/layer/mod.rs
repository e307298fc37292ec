//! Layers: tar archives, compressed or not, to and from snapshot folders.
