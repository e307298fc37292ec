//! Ours, beside the Docker API: looking into a folder without packing all that is below it, and one file as it is.
//!
//! ```text
//! GET /longshore/containers/{id}/files?address=A            what is in a folder
//! GET /longshore/containers/{id}/content?address=A&limit=N  a file's bytes, at most the first N; a folder as tar
//! ```
//! A file name is bytes and JSON is text: so an address is the path with every byte that is no plain character as `%XX`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::api::{archive_response, resolve};
use super::pack;
use super::place::{self, Place};
use crate::container::{Rootfs, open_rootfs};
use crate::error::{ApiError, ApiResult};
use crate::http_message::{ApiRequest, ApiResponse, json, percent_bytes};
use crate::router::{Routed, handle};
use crate::state::Daemon;

/// The most of one folder that is told.
const MOST_ENTRIES: usize = 10_000;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listing {
    entries: Vec<Entry>,
    /// The folder holds more.
    truncated: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    name: String,
    /// The name's address, where the name itself is no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    kind: Kind,
    size: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    /// Seconds since 1970.
    modified: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_target: Option<String>,
    /// What a link leads to, when that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    link_kind: Option<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Folder,
    File,
    Link,
    Device,
    Pipe,
    Socket,
}

impl Kind {
    fn of(kind: fs::FileType) -> Self {
        match kind {
            kind if kind.is_dir() => Kind::Folder,
            kind if kind.is_symlink() => Kind::Link,
            kind if kind.is_fifo() => Kind::Pipe,
            kind if kind.is_socket() => Kind::Socket,
            kind if kind.is_block_device() || kind.is_char_device() => Kind::Device,
            _ => Kind::File,
        }
    }
}

pub fn route(daemon: Arc<Daemon>, request: ApiRequest) -> Routed {
    let path = request.path.clone();
    match (request.method.as_str(), path.segments().as_slice()) {
        ("GET", ["longshore", "containers", id, "files"]) => {
            handle(files(daemon, request, (*id).to_owned()))
        }
        ("GET", ["longshore", "containers", id, "content"]) => {
            handle(content(daemon, request, (*id).to_owned()))
        }
        _ => Routed::NotMine(request),
    }
}

async fn open(
    daemon: &Arc<Daemon>,
    request: &ApiRequest,
    id: &str,
) -> ApiResult<(Arc<Rootfs>, Arc<Place>)> {
    let address = request.query.non_empty("address").unwrap_or("/");
    let path = percent_bytes(address);
    let rootfs = Arc::new(open_rootfs(daemon, id).await?);
    let place = resolve(rootfs.clone(), &path, id, true).await?;
    Ok((rootfs, Arc::new(place)))
}

async fn files(daemon: Arc<Daemon>, request: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    daemon.containers.settled().await;
    let (rootfs, place) = open(&daemon, &request, &id).await?;
    if !place.meta.is_dir() {
        return Err(ApiError::bad_request("this is not a folder"));
    }
    let folder = percent_bytes(request.query.non_empty("address").unwrap_or("/"));
    let listing = tokio::task::spawn_blocking(move || list(&rootfs.path, &place, &folder));
    let listing = listing
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?
        .map_err(|error| ApiError::internal(format!("reading the folder: {error}")))?;
    json(StatusCode::OK, &listing)
}

fn list(root: &Path, place: &Place, folder: &[u8]) -> io::Result<Listing> {
    let mut entries = Vec::new();
    let mut truncated = false;
    for entry in fs::read_dir(place.path())? {
        if entries.len() == MOST_ENTRIES {
            truncated = true;
            break;
        }
        let entry = entry?;
        // It may have gone meanwhile.
        let Ok(meta) = entry.metadata() else { continue };
        let name = entry.file_name();
        let kind = Kind::of(meta.file_type());
        let mut told = Entry {
            name: name.to_string_lossy().into_owned(),
            address: name.to_str().is_none().then(|| address(name.as_bytes())),
            kind,
            size: meta.size(),
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            modified: meta.mtime(),
            link_target: None,
            link_kind: None,
        };
        if kind == Kind::Link {
            let path = [folder, b"/", name.as_bytes()].concat();
            let target = fs::read_link(entry.path()).unwrap_or_default();
            told.link_target = Some(target.to_string_lossy().into_owned());
            let led = place::open_followed(root, &path).ok();
            told.link_kind = led.map(|led| Kind::of(led.meta.file_type()));
        }
        entries.push(told);
    }
    Ok(Listing { entries, truncated })
}

fn address(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                text.push(char::from(*byte));
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

async fn content(daemon: Arc<Daemon>, request: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    daemon.containers.settled().await;
    let limit: Option<u64> = request.query.number("limit")?;
    let (rootfs, place) = open(&daemon, &request, &id).await?;
    if place.meta.is_dir() {
        return Ok(archive_response(move |writer| {
            // Kept to the end: a stopped container's root is mounted only for as long.
            let _mounted = rootfs;
            pack::write(&place, &place.name, writer)
        }));
    }
    // Reading a pipe or a device would wait, or do something.
    if !place.meta.is_file() {
        return Err(ApiError::bad_request("this is not a file with content"));
    }
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(place.path())
        .map_err(|error| ApiError::internal(format!("opening the file: {error}")))?;
    // The kernel's own files have no size that they tell.
    let told = Some(place.meta.size()).filter(|size| *size > 0);
    let most = [limit, told].into_iter().flatten().min();
    let mut response = archive_response(move |writer| {
        let _mounted = (rootfs, place);
        // A file that has become shorter breaks the answer off, as its length was told.
        let mut writer = pack::in_pieces(writer);
        io::copy(&mut file.take(most.unwrap_or(u64::MAX)), &mut writer)?;
        writer.flush()
    });
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    if told.is_some()
        && let Some(most) = most
    {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(most));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_folder_is_listed_with_names_of_any_bytes_and_links_that_stay_inside() {
        let base = std::env::temp_dir().join(format!("files-{}", crate::identity::new_id()));
        let root = base.join("root");
        fs::create_dir_all(root.join("data/sub")).unwrap();
        fs::write(base.join("secret"), "outside").unwrap();
        let odd = OsStr::from_bytes(b"a%\xff");
        fs::write(root.join("data").join(odd), "odd").unwrap();
        symlink("/data/sub", root.join("data/inside")).unwrap();
        symlink("../../secret", root.join("data/escape")).unwrap();

        let place = place::open_followed(&root, b"/data").unwrap();
        let listing = list(&root, &place, b"/data").unwrap();
        let find = |name: &str| listing.entries.iter().find(|e| e.name == name).unwrap();
        assert_eq!(find("sub").kind, Kind::Folder);
        assert_eq!(find("inside").link_kind, Some(Kind::Folder));
        assert_eq!(find("inside").link_target.as_deref(), Some("/data/sub"));
        assert_eq!(find("escape").link_kind, None);
        let odd = find("a%\u{fffd}");
        assert_eq!(odd.address.as_deref(), Some("a%25%FF"));
        assert_eq!((odd.size, odd.kind), (3, Kind::File));
        let path = [b"/data/", &percent_bytes("a%25%FF")[..]].concat();
        assert!(place::open_followed(&root, &path).unwrap().meta.is_file());
        assert!(!listing.truncated);
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_folder_without_end_is_cut() {
        let root = std::env::temp_dir().join(format!("files-{}", crate::identity::new_id()));
        fs::create_dir(&root).unwrap();
        for number in 0..=MOST_ENTRIES {
            File::create(root.join(number.to_string())).unwrap();
        }
        let place = place::open_followed(&root, b"/").unwrap();
        let listing = list(&root, &place, b"/").unwrap();
        assert_eq!(listing.entries.len(), MOST_ENTRIES);
        assert!(listing.truncated);
        fs::remove_dir_all(root).unwrap();
    }
}
