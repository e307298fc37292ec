//! `docker import`: a root file system's archive becomes the one layer of a new image.
//!
//! The image is written as an OCI layout on the fly and goes the same way as a loaded one.

use std::io::{self, Read, Seek, SeekFrom, Write};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::content::{Platform, digest_of};
use super::pull::image_store;
use super::{DANGLING, Images, Reference};
use crate::archive::ChunkWriter;
use crate::error::{ApiError, ApiResult};

/// What the user asked of the new image.
pub struct ImportRequest {
    pub reference: Option<Reference>,
    pub message: String,
    pub changes: Vec<String>,
    pub platform: Platform,
}

impl Images {
    /// Returns the new image's id.
    pub async fn import<S>(&self, archive: S, request: ImportRequest) -> ApiResult<String>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static,
    {
        let config = changed_config(&request.changes)?;
        let folder = self.config.data("tmp");
        let (layer, diff_id, digest, size) = spool(archive, folder).await?;
        let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true);
        let image = json!({
            "architecture": request.platform.architecture,
            "os": request.platform.os,
            "created": now,
            "comment": request.message,
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
            "history": [{ "created": now, "comment": request.message }],
        })
        .to_string();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest_of(image.as_bytes()),
                "size": image.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": digest,
                "size": size,
            }],
        })
        .to_string();
        let id = digest_of(manifest.as_bytes());
        let name = match &request.reference {
            Some(reference) => reference.to_string(),
            None => format!("{DANGLING}@{id}"),
        };
        let layout = Layout {
            image,
            manifest,
            name: name.clone(),
            layer,
            digest,
            size,
        };
        let (sender, queue) = mpsc::channel(4);
        let writing = tokio::task::spawn_blocking(move || layout.write(ChunkWriter(sender)));
        let store = image_store("", request.platform);
        let imported = self.import_archive(ReceiverStream::new(queue), store).await;
        let written = writing
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?;
        imported?;
        written?;
        if self.by_name(&name).await?.is_none() {
            return Err(ApiError::internal(format!(
                "the imported image {name} was not stored"
            )));
        }
        self.publish_event("import", &id, &name);
        Ok(id)
    }
}

/// Spools the archive, unpacked, to a file that is gone when closed; digests of it for config and manifest.
async fn spool<S>(
    mut archive: S,
    folder: std::path::PathBuf,
) -> ApiResult<(std::fs::File, String, String, u64)>
where
    S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
{
    let (sender, mut queue) = mpsc::channel::<Bytes>(8);
    let writing = tokio::task::spawn_blocking(move || -> io::Result<_> {
        std::fs::create_dir_all(&folder)?;
        let mut file = unnamed_file(&folder)?;
        let head = queue.blocking_recv().unwrap_or_default();
        let compressed = Compression::of(&head);
        let source = ChannelReader { queue, part: head };
        let mut plain = compressed.reader(Box::new(source))?;
        let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 64 * 1024]);
        loop {
            let read = plain.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            file.write_all(&buffer[..read])?;
            size += read as u64;
        }
        file.seek(SeekFrom::Start(0))?;
        Ok((
            file,
            format!("sha256:{}", hex::encode(hasher.finalize())),
            size,
        ))
    });
    while let Some(part) = archive.next().await {
        let part =
            part.map_err(|error| ApiError::bad_request(format!("reading the archive: {error}")))?;
        if sender.send(part).await.is_err() {
            break;
        }
    }
    drop(sender);
    let spooled = writing
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let (file, digest, size) =
        spooled.map_err(|error| ApiError::internal(format!("spooling the archive: {error}")))?;
    Ok((file, digest.clone(), digest, size))
}

fn unnamed_file(folder: &std::path::Path) -> io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(folder)
}

/// How an archive is packed, by its first bytes.
#[derive(Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Unknown(&'static str),
}

impl Compression {
    fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Unknown("zstd"),
            [0x42, 0x5a, 0x68, ..] => Self::Unknown("bzip2"),
            [0xfd, 0x37, 0x7a, 0x58, 0x5a, ..] => Self::Unknown("xz"),
            _ => Self::None,
        }
    }

    fn reader(self, source: Box<dyn Read>) -> io::Result<Box<dyn Read>> {
        match self {
            Self::None => Ok(source),
            Self::Gzip => Ok(Box::new(flate2::read::MultiGzDecoder::new(source))),
            Self::Unknown(name) => Err(io::Error::other(format!(
                "archives packed with {name} cannot be imported; unpack it first"
            ))),
        }
    }
}

struct ChannelReader {
    queue: mpsc::Receiver<Bytes>,
    part: Bytes,
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.queue.blocking_recv() {
                Some(part) => self.part = part,
                None => return Ok(0),
            }
        }
        let len = self.part.len().min(buffer.len());
        buffer[..len].copy_from_slice(&self.part.split_to(len));
        Ok(len)
    }
}

/// An OCI image layout of one image (image-spec, image-layout.md).
struct Layout {
    image: String,
    manifest: String,
    name: String,
    layer: std::fs::File,
    digest: String,
    size: u64,
}

impl Layout {
    fn write(self, to: ChunkWriter) -> io::Result<()> {
        let manifest_digest = digest_of(self.manifest.as_bytes());
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": manifest_digest,
                "size": self.manifest.len(),
                "annotations": { "io.containerd.image.name": self.name },
            }],
        })
        .to_string();
        let mut tar = tar::Builder::new(io::BufWriter::with_capacity(32 * 1024, to));
        let blob = |digest: &str| format!("blobs/{}", digest.replace(':', "/"));
        append(
            &mut tar,
            "oci-layout",
            30,
            &br#"{"imageLayoutVersion":"1.0.0"}"#[..],
        )?;
        append(&mut tar, "index.json", index.len() as u64, index.as_bytes())?;
        append(
            &mut tar,
            &blob(&manifest_digest),
            self.manifest.len() as u64,
            self.manifest.as_bytes(),
        )?;
        let config = digest_of(self.image.as_bytes());
        append(
            &mut tar,
            &blob(&config),
            self.image.len() as u64,
            self.image.as_bytes(),
        )?;
        append(&mut tar, &blob(&self.digest), self.size, self.layer)?;
        tar.into_inner()?.flush()
    }
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o444);
    tar.append_data(&mut header, name, content)
}

/// `-c`: the Dockerfile instructions that only change the configuration.
fn changed_config(changes: &[String]) -> ApiResult<Map<String, Value>> {
    let mut config = Map::new();
    for change in changes.iter().filter(|change| !change.trim().is_empty()) {
        let bad = || ApiError::bad_request(format!("{change} is not a valid change command"));
        let (keyword, rest) = change
            .trim()
            .split_once(char::is_whitespace)
            .ok_or_else(bad)?;
        let rest = rest.trim();
        match keyword.to_ascii_uppercase().as_str() {
            "CMD" => drop(config.insert("Cmd".into(), command(rest))),
            "ENTRYPOINT" => drop(config.insert("Entrypoint".into(), command(rest))),
            "WORKDIR" => drop(config.insert("WorkingDir".into(), json!(rest))),
            "USER" => drop(config.insert("User".into(), json!(rest))),
            "STOPSIGNAL" => drop(config.insert("StopSignal".into(), json!(rest))),
            "ENV" => {
                let (key, value) = rest.split_once(['=', ' ']).ok_or_else(bad)?;
                let entry = json!(format!("{key}={}", value.trim_matches('"')));
                let list = config.entry("Env").or_insert_with(|| json!([]));
                list.as_array_mut().ok_or_else(bad)?.push(entry);
            }
            "LABEL" => {
                let (key, value) = rest.split_once('=').ok_or_else(bad)?;
                let labels = config.entry("Labels").or_insert_with(|| json!({}));
                labels[key.trim_matches('"')] = json!(value.trim_matches('"'));
            }
            "EXPOSE" => {
                let ports = config.entry("ExposedPorts").or_insert_with(|| json!({}));
                for port in rest.split_whitespace() {
                    let port = if port.contains('/') {
                        port.to_owned()
                    } else {
                        format!("{port}/tcp")
                    };
                    ports[port] = json!({});
                }
            }
            "VOLUME" => {
                let volumes = config.entry("Volumes").or_insert_with(|| json!({}));
                let listed: Vec<String> = serde_json::from_str(rest)
                    .unwrap_or_else(|_| rest.split_whitespace().map(str::to_owned).collect());
                for volume in listed {
                    volumes[volume] = json!({});
                }
            }
            _ => return Err(bad()),
        }
    }
    Ok(config)
}

/// The exec form as it is, the shell form under `/bin/sh -c`.
fn command(text: &str) -> Value {
    serde_json::from_str::<Vec<String>>(text)
        .map_or_else(|_| json!(["/bin/sh", "-c", text]), |list| json!(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_edit_the_configuration() {
        let changes = [
            "CMD [\"x\"]",
            "ENV A=1",
            "env B 2",
            "LABEL k=\"v\"",
            "EXPOSE 80 53/udp",
            "VOLUME /d",
            "ENTRYPOINT run it",
            "WORKDIR /w",
        ];
        let config = changed_config(&changes.map(str::to_owned)).unwrap();
        assert_eq!(
            Value::Object(config),
            json!({
                "Cmd": ["x"],
                "Env": ["A=1", "B=2"],
                "Labels": { "k": "v" },
                "ExposedPorts": { "80/tcp": {}, "53/udp": {} },
                "Volumes": { "/d": {} },
                "Entrypoint": ["/bin/sh", "-c", "run it"],
                "WorkingDir": "/w",
            })
        );
        for bad in ["RUN x", "CMD", "ENV A"] {
            assert!(changed_config(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn packings_are_told_apart() {
        assert_eq!(Compression::of(&[0x1f, 0x8b, 8]), Compression::Gzip);
        assert_eq!(Compression::of(b"file\0\0"), Compression::None);
        assert_eq!(
            Compression::of(&[0x28, 0xb5, 0x2f, 0xfd]),
            Compression::Unknown("zstd")
        );
    }
}
