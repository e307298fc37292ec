//! Unpacking a layer from a stream, with its DiffID checked.

use std::io::{self, Read};
use std::path::PathBuf;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::core::Core;
use crate::digest::{Digest, Digester};
use crate::error::{Error, IoStep, Result};
use crate::layer::compression::{Compression, decompress};
use crate::layer::unpack::{Deferred, unpack};

/// An unpacked layer that is not yet part of any stack.
pub struct Unpacked {
    pub folder: PathBuf,
    pub deferred: Deferred,
}

impl Drop for Unpacked {
    /// A layer that became a snapshot has been renamed; one that did not is of no use.
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Unpacks a layer into a new folder. `blob` is the stream's own digest, when the caller checks that: it is the DiffID
/// of a layer that is not compressed, and need not be computed twice.
pub fn unpack_layer(
    core: &Core,
    stream: impl Read + Send,
    diff_id: &Digest,
    blob: Option<&Digest>,
) -> Result<Unpacked> {
    // `work` too: that is what the folder of a committed active snapshot looks like.
    let folder = core.snapshots.new_folder(true)?;
    let mut unpacked = Unpacked {
        folder,
        deferred: Deferred::default(),
    };
    let step = || format!("decompressing layer {diff_id}");
    let inner = decompress(stream).step(step)?;
    let mut hashed = Hashed {
        inner,
        digester: (blob != Some(diff_id)).then(Digester::default),
    };
    unpacked.deferred = unpack(&mut hashed, &unpacked.folder.join("fs"))?;
    // Padding behind the archive's end is part of the layer.
    io::copy(&mut hashed, &mut io::sink()).step(step)?;
    if let Some(digester) = hashed.digester {
        let found = digester.finish();
        if found != *diff_id {
            return Err(Error::FailedPrecondition(format!(
                "wrong diff id calculated on extraction {found}, expected {diff_id}"
            )));
        }
    }
    Ok(unpacked)
}

/// Whether a layer's stream is compressed, from its first bytes.
pub fn is_compressed(first_bytes: &[u8]) -> bool {
    Compression::of(first_bytes) != Compression::None
}

struct Hashed<R> {
    inner: R,
    digester: Option<Digester>,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if let Some(digester) = &mut self.digester {
            digester.update(&buffer[..n]);
        }
        Ok(n)
    }
}

/// A blocking reader of what an async task sends. An error ends it.
pub struct ChannelReader {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl ChannelReader {
    pub fn new(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self {
            receiver,
            current: Bytes::new(),
        }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(next) => self.current = next?,
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.current.len());
        buffer[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}
