//! The diff service: layers onto mounts, and mounts into layers.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use longshore_supervisor_api::server::diff::Diff;
use longshore_supervisor_api::services::v1::*;
use longshore_supervisor_api::types::{Descriptor, Mount};
use tonic::{Request, Response, Status};

use crate::content::{Finished, Ingest};
use crate::core::Core;
use crate::digest::{Digest, Digester};
use crate::error::{Error, IoStep, Result, blocking};
use crate::layer::compression::decompress;
use crate::layer::{pack, unpack};
use crate::request::Scope;

pub struct DiffService(pub Arc<Core>);

const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The label that tells the digest of a compressed layer's content.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// The folder that a snapshot's own changes are in, and those below it, nearest first.
struct Folders {
    upper: PathBuf,
    lower: Vec<PathBuf>,
}

impl Folders {
    fn of(mounts: &[Mount]) -> Result<Self> {
        let [mount] = mounts else {
            return Err(Error::InvalidArgument(format!(
                "want one mount, got {}",
                mounts.len()
            )));
        };
        let option = |name: &str| {
            mount
                .options
                .iter()
                .find_map(|option| option.strip_prefix(name))
        };
        match mount.r#type.as_str() {
            "bind" => Ok(Self {
                upper: PathBuf::from(&mount.source),
                lower: Vec::new(),
            }),
            "overlay" => {
                let lower: Vec<PathBuf> = option("lowerdir=")
                    .unwrap_or_default()
                    .split(':')
                    .map(PathBuf::from)
                    .collect();
                match option("upperdir=") {
                    Some(upper) => Ok(Self {
                        upper: upper.into(),
                        lower,
                    }),
                    // A view has nothing of its own: its top layer is what it shows.
                    None => Err(Error::InvalidArgument(
                        "overlay mount has no upperdir".into(),
                    )),
                }
            }
            other => Err(Error::Unimplemented(format!("layers on a {other:?} mount"))),
        }
    }
}

struct Hashed<R> {
    inner: R,
    digester: Digester,
    size: i64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.digester.update(&buffer[..n]);
        self.size += n as i64;
        Ok(n)
    }
}

/// Unpacks a blob onto mounts. Returns what was in it, uncompressed.
fn apply(core: &Core, diff: &Descriptor, mounts: &[Mount], sync: bool) -> Result<Descriptor> {
    let digest: Digest = diff.digest.parse()?;
    let folders = Folders::of(mounts)?;
    let step = || format!("applying layer {digest}");
    let inner = decompress(core.content.open_blob(&digest)?).step(step)?;
    let mut layer = Hashed {
        inner,
        digester: Digester::default(),
        size: 0,
    };
    let deferred = unpack::unpack(&mut layer, &folders.upper)?;
    io::copy(&mut layer, &mut io::sink()).step(step)?;
    unpack::settle(&deferred, &folders.upper, &folders.lower)?;
    if sync {
        core.content.sync_file_system()?;
    }
    Ok(Descriptor {
        media_type: OCI_LAYER.into(),
        digest: layer.digester.finish().to_string(),
        size: layer.size,
        annotations: HashMap::new(),
    })
}

struct IngestWriter<'a, 'b>(&'a mut Ingest<'b>);

impl Write for IngestWriter<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct HashingWriter<W> {
    inner: W,
    digester: Digester,
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.digester.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes the changes of `upper` as a blob. Returns it with the digest of its content, uncompressed.
fn make_layer(
    core: &Core,
    namespace: &str,
    upper: &Path,
    gzip: bool,
) -> Result<(Finished, Digest)> {
    let mut ingest = core.content.scratch(namespace, 0)?;
    let output = io::BufWriter::with_capacity(128 * 1024, IngestWriter(&mut ingest));
    let step = || "writing a layer".to_owned();
    let uncompressed = if gzip {
        let encoder = flate2::write::GzEncoder::new(output, flate2::Compression::fast());
        let mut writer = HashingWriter {
            inner: encoder,
            digester: Digester::default(),
        };
        pack::pack(upper, &mut writer)?;
        writer.inner.finish().step(step)?.flush().step(step)?;
        writer.digester.finish()
    } else {
        let mut writer = HashingWriter {
            inner: output,
            digester: Digester::default(),
        };
        pack::pack(upper, &mut writer)?;
        writer.flush().step(step)?;
        writer.digester.finish()
    };
    ingest.sync()?;
    Ok((ingest.finish(0, None)?, uncompressed))
}

#[tonic::async_trait]
impl Diff for DiffService {
    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<ApplyResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        let diff = request
            .diff
            .ok_or_else(|| Error::InvalidArgument("diff is required".into()))?;
        self.0.content_info(&scope.namespace, &diff.digest)?;
        let core = self.0.clone();
        let applied =
            blocking(move || apply(&core, &diff, &request.mounts, request.sync_fs)).await?;
        Ok(Response::new(ApplyResponse {
            applied: Some(applied),
        }))
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Result<Response<DiffResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        let media_type = match request.media_type.as_str() {
            "" => OCI_LAYER_GZIP.to_owned(),
            other => other.to_owned(),
        };
        let gzip = match media_type.as_str() {
            OCI_LAYER => false,
            OCI_LAYER_GZIP => true,
            other => return Err(Error::Unimplemented(format!("diff media type {other}")).into()),
        };
        let folders = Folders::of(&request.right)?;
        let (core, namespace) = (self.0.clone(), scope.namespace.clone());
        let (finished, uncompressed) =
            blocking(move || make_layer(&core, &namespace, &folders.upper, gzip)).await?;
        let diff = Descriptor {
            media_type,
            digest: finished.digest.to_string(),
            size: finished.size,
            annotations: HashMap::new(),
        };
        let mut labels = request.labels;
        labels.insert(UNCOMPRESSED.into(), uncompressed.to_string());
        self.0.commit_content(&scope, finished, labels).await?;
        Ok(Response::new(DiffResponse { diff: Some(diff) }))
    }
}
