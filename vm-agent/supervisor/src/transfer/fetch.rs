//! Fetching one blob: into the content store and, at the same time, to whoever unpacks it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::progress::Item;
use crate::content::Finished;
use crate::core::Core;
use crate::digest::Digest;
use crate::error::{Error, Result, blocking};
use crate::request::Scope;
use longshore_registry::Registry;

type Chunks = mpsc::Sender<io::Result<Bytes>>;

/// Times that a connection may break without a byte in between.
const BREAKS: u32 = 5;

pub struct Wanted<'a> {
    pub digest: &'a Digest,
    /// In bytes; more is not taken.
    pub size: i64,
}

/// Downloads a blob. `unpacker` gets the same bytes; that it stops reading does not stop the download.
pub async fn fetch(
    core: &Arc<Core>,
    scope: &Scope,
    registry: &Registry,
    wanted: Wanted<'_>,
    item: &mut Item,
    unpacker: Option<Chunks>,
) -> Result<Finished> {
    let (chunks, receiver) = mpsc::channel(16);
    let store = write(
        core.clone(),
        scope.namespace.clone(),
        wanted.digest.clone(),
        wanted.size,
        receiver,
    );
    let store = tokio::spawn(store);
    let downloaded = download(registry, &wanted, item, &chunks, unpacker.as_ref()).await;
    if let Err(error) = &downloaded {
        // An end without this would look like the end of the blob.
        let broken = || Err(io::Error::other(error.to_string()));
        let _ = chunks.send(broken()).await;
        if let Some(unpacker) = &unpacker {
            let _ = unpacker.send(broken()).await;
        }
    }
    drop((chunks, unpacker));
    let stored = store
        .await
        .map_err(|e| Error::Other(format!("a worker panicked: {e}")))?;
    downloaded?;
    stored
}

async fn download(
    registry: &Registry,
    wanted: &Wanted<'_>,
    item: &mut Item,
    store: &Chunks,
    unpacker: Option<&Chunks>,
) -> Result<()> {
    let (mut offset, mut breaks) = (0u64, 0);
    loop {
        let (mut answer, start) = registry.blob(wanted.digest, offset).await?;
        let mut skip = offset - start;
        let reason = loop {
            let mut chunk = match answer.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break None,
                Err(error) => break Some(error.to_string()),
            };
            let skipped = skip.min(chunk.len() as u64);
            skip -= skipped;
            let _ = chunk.split_to(skipped as usize);
            if chunk.is_empty() {
                continue;
            }
            offset += chunk.len() as u64;
            breaks = 0;
            if offset > wanted.size as u64 {
                let message = format!(
                    "content {} is longer than its {} bytes",
                    wanted.digest, wanted.size
                );
                return Err(Error::FailedPrecondition(message));
            }
            if let Some(unpacker) = unpacker {
                let _ = unpacker.send(Ok(chunk.clone())).await;
            }
            if store.send(Ok(chunk)).await.is_err() {
                // The store says why.
                return Ok(());
            }
            item.advance("downloading", offset as i64);
        };
        if offset == wanted.size as u64 {
            return Ok(());
        }
        breaks += 1;
        let reason = reason.unwrap_or_else(|| "the answer ended early".into());
        if breaks > BREAKS {
            return Err(Error::Unavailable(format!(
                "fetching {}: {reason}",
                wanted.digest
            )));
        }
        tracing::info!(digest = %wanted.digest, offset, reason, "resuming a download");
    }
}

async fn write(
    core: Arc<Core>,
    namespace: String,
    digest: Digest,
    size: i64,
    mut chunks: mpsc::Receiver<io::Result<Bytes>>,
) -> Result<Finished> {
    blocking(move || {
        // Another transfer may be busy with the same blob: the one that ends first is kept.
        let mut ingest = core.content.scratch(&namespace, size)?;
        while let Some(chunk) = chunks.blocking_recv() {
            let chunk = chunk.map_err(|e| Error::Unavailable(e.to_string()))?;
            ingest.write(&chunk)?;
        }
        ingest.finish(size, Some(&digest))
    })
    .await
}
