//! The archive endpoints of the Docker API.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderValue, StatusCode};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::pack::{self, ChunkWriter};
use super::place::{self, Place};
use super::unpack::{self, Options};
use crate::container::{Container, MountPoint, Rootfs, open_rootfs};
use crate::error::{ApiError, ApiResult};
use crate::http_message::{ApiRequest, ApiResponse, empty, stream};
use crate::router::{Routed, complete, handle};
use crate::state::Daemon;

const STAT: &str = "X-Docker-Container-Path-Stat";

pub fn route(daemon: Arc<Daemon>, request: ApiRequest) -> Routed {
    let path = request.path.clone();
    match (request.method.as_str(), path.segments().as_slice()) {
        ("HEAD", ["containers", id, "archive"]) => handle(stat(daemon, request, (*id).to_owned())),
        ("GET", ["containers", id, "archive"]) => handle(get(daemon, request, (*id).to_owned())),
        ("PUT", ["containers", id, "archive"]) => complete(put(daemon, request, (*id).to_owned())),
        ("GET", ["containers", id, "export"]) => handle(export(daemon, (*id).to_owned())),
        _ => Routed::NotMine(request),
    }
}

fn wanted_path(request: &ApiRequest) -> ApiResult<String> {
    let path = request.query.non_empty("path");
    path.map(str::to_owned)
        .ok_or_else(|| ApiError::bad_request("bad parameter: pathcannot be empty"))
}

/// Resolves the path on a blocking thread; errors in Docker's words.
pub(super) async fn resolve(
    rootfs: Arc<Rootfs>,
    path: &[u8],
    id: &str,
    follow: bool,
) -> ApiResult<Place> {
    let inside = path.to_vec();
    let path = String::from_utf8_lossy(path);
    let opened = tokio::task::spawn_blocking(move || match follow {
        true => place::open_followed(&rootfs.path, &inside),
        false => place::open(&rootfs.path, &inside),
    });
    let opened = opened
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?;
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            ApiError::not_found(format!("Could not find the file {path} in container {id}"))
        }
        io::ErrorKind::NotADirectory => {
            ApiError::internal(format!("lstat {path}: not a directory"))
        }
        _ => ApiError::internal(format!("{path} in container {id}: {error}")),
    })
}

async fn stat(daemon: Arc<Daemon>, request: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    let path = wanted_path(&request)?;
    let rootfs = Arc::new(open_rootfs(&daemon, &id).await?);
    let place = resolve(rootfs, path.as_bytes(), &id, false).await?;
    let mut response = empty(StatusCode::OK);
    add_stat(&mut response, &place)?;
    Ok(response)
}

fn add_stat(response: &mut ApiResponse, place: &Place) -> ApiResult<()> {
    let value = HeaderValue::from_str(&place.stat_header())
        .map_err(|error| ApiError::internal(error.to_string()))?;
    response.headers_mut().insert(STAT, value);
    Ok(())
}

async fn get(daemon: Arc<Daemon>, request: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    let path = wanted_path(&request)?;
    let rootfs = Arc::new(open_rootfs(&daemon, &id).await?);
    let place = resolve(rootfs.clone(), path.as_bytes(), &id, false).await?;
    // `/data/.` asks for what is in the folder.
    let name = match path.ends_with("/.") {
        true => ".".into(),
        false => place.name.clone(),
    };
    let header = place.stat_header();
    let container = daemon.containers.get(&id)?;
    daemon.containers.publish(&container, "archive-path", &[]);
    let mut response = archive_response(move |writer| {
        // Kept to the end: a stopped container's root is mounted only for as long.
        let _mounted = rootfs;
        pack::write(&place, &name, writer)
    });
    let value =
        HeaderValue::from_str(&header).map_err(|error| ApiError::internal(error.to_string()))?;
    response.headers_mut().insert(STAT, value);
    Ok(response)
}

/// Streams what `write` produces on a blocking thread; an error breaks the response off.
pub(super) fn archive_response(
    write: impl FnOnce(ChunkWriter) -> io::Result<()> + Send + 'static,
) -> ApiResponse {
    let (sender, queue) = mpsc::channel::<io::Result<Bytes>>(4);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = write(ChunkWriter(sender.clone())) {
            tracing::debug!(%error, "packing an archive");
            let _ = sender.blocking_send(Err(error));
        }
    });
    stream("application/x-tar", ReceiverStream::new(queue))
}

/// Unpacks a client's archive, compressed or not, into a folder of ours.
pub async fn receive<S>(mut body: S, folder: &Path) -> io::Result<()>
where
    S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
{
    let (sender, queue) = mpsc::channel(4);
    let root = folder.to_owned();
    let writing = tokio::task::spawn_blocking(move || {
        let source = ChannelReader {
            queue,
            part: Bytes::new(),
        };
        unpack_compressed(&root, "/", source, Options::default())
    });
    while let Some(part) = body.next().await {
        let failed = part.is_err();
        if sender.send(part).await.is_err() || failed {
            break;
        }
    }
    drop(sender);
    writing.await.map_err(io::Error::other)?
}

/// Unpacks an archive of ours over a root file system.
pub fn unpack_into(root: &Path, source: impl Read) -> io::Result<()> {
    unpack::unpack(root, "/", source, Options::default())
}

/// A text below a folder, at most `limit` bytes of it; no link in it leads out of the folder.
pub fn read_text(root: &Path, path: &str, limit: u64) -> io::Result<String> {
    let place = place::open_followed(root, path.as_bytes())?;
    if !place.meta.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut bytes = Vec::new();
    std::fs::File::open(place.path())?
        .take(limit)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn put(daemon: Arc<Daemon>, request: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    let path = wanted_path(&request)?;
    let options = Options {
        no_overwrite_dir_non_dir: request.query.flag("noOverwriteDirNonDir"),
    };
    let rootfs = Arc::new(open_rootfs(&daemon, &id).await?);
    let place = resolve(rootfs.clone(), path.as_bytes(), &id, true).await?;
    if !place.meta.is_dir() {
        return Err(ApiError::bad_request("extraction point is not a directory"));
    }
    let container = daemon.containers.get(&id)?;
    let read_only = |on_volume: bool| {
        ApiError::bad_request(match on_volume {
            true => "mounted volume is marked read-only",
            false => "container rootfs is marked read-only",
        })
    };
    match volume_of(&container, &path) {
        Some(volume) if !volume.rw => return Err(read_only(true)),
        None if container.host_config.readonly_rootfs => return Err(read_only(false)),
        _ => {}
    }
    let (sender, queue) = mpsc::channel(4);
    let root = rootfs.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let source = ChannelReader {
            queue,
            part: Bytes::new(),
        };
        unpack_compressed(&root.path, &path, source, options)
    });
    let mut body = request.into_stream();
    while let Some(part) = body.next().await {
        let failed = part.is_err();
        if sender.send(part).await.is_err() || failed {
            break;
        }
    }
    drop(sender);
    let done = writing
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?;
    done.map_err(|error| match error.kind() {
        // A link led where the path does not say.
        io::ErrorKind::ReadOnlyFilesystem => read_only(!container.host_config.readonly_rootfs),
        _ => ApiError::internal(error.to_string()),
    })?;
    daemon.containers.publish(&container, "extract-to-dir", &[]);
    Ok(empty(StatusCode::OK))
}

/// The mount that a path is in.
fn volume_of<'a>(container: &'a Container, path: &str) -> Option<&'a MountPoint> {
    let path = Path::new("/").join(path);
    let below = |mount: &&MountPoint| path.starts_with(&mount.destination);
    let mounts = container.mounts.iter().filter(below);
    mounts.max_by_key(|mount| mount.destination.len())
}

fn unpack_compressed(
    root: &Path,
    path: &str,
    mut source: impl Read,
    options: Options,
) -> io::Result<()> {
    let mut head = [0u8; 2];
    let mut len = 0;
    while len < head.len() {
        match source.read(&mut head[len..])? {
            0 => break,
            read => len += read,
        }
    }
    let whole = (&head[..len]).chain(source);
    match head {
        [0x1f, 0x8b] => unpack::unpack(
            root,
            path,
            flate2::read::MultiGzDecoder::new(whole),
            options,
        ),
        _ => unpack::unpack(root, path, whole, options),
    }
}

struct ChannelReader {
    queue: mpsc::Receiver<io::Result<Bytes>>,
    part: Bytes,
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.queue.blocking_recv() {
                Some(part) => self.part = part?,
                None => return Ok(0),
            }
        }
        let len = self.part.len().min(buffer.len());
        buffer[..len].copy_from_slice(&self.part.split_to(len));
        Ok(len)
    }
}

async fn export(daemon: Arc<Daemon>, id: String) -> ApiResult<ApiResponse> {
    daemon.containers.settled().await;
    let rootfs = daemon.containers.bare_rootfs(&id).await?;
    let container = daemon.containers.get(&id)?;
    daemon.containers.publish(&container, "export", &[]);
    let mut response = archive_response(move |writer| {
        // The whole of it: its mount lasts as long as the value.
        let rootfs = rootfs;
        pack::write_all(&rootfs.path, writer)
    });
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    Ok(response)
}
