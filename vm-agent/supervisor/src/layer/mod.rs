//! Layers: tar archives, compressed or not, to and from snapshot folders.

pub mod compression;
pub mod pack;
pub mod place;
pub mod unpack;
mod xattr;

#[cfg(test)]
mod hostile;

/// Prefix of whiteout entries (OCI image specification, "Whiteouts").
pub const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// An entry with this name hides everything below its folder in lower layers.
pub const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
/// overlayfs's form of the same.
pub const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
