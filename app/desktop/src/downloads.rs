//! Answers kept as files where the user's downloads go, as a browser would: the page names them, and chooses nothing else.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use longshore_host_api::types::{Saving, StreamRequest};
use longshore_host_api::{ApiError, Client};
use tauri::{AppHandle, Manager, State};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::backend::{self, Refusal};

/// The longest name, in bytes; with a number or an ending it stays below what file systems take.
const MOST: usize = 200;
/// How many files of one name there may be.
const MOST_NUMBER: u32 = 1000;
/// A page has no use for so many at once.
const MOST_OPEN: usize = 16;
/// A page is told of what has come no more often than this.
const PAUSE: Duration = Duration::from_millis(200);
/// The ending of a file that is not whole yet.
const PART: &str = "part";

/// What is being saved for the page.
#[derive(Default)]
pub struct Downloads {
    open: Mutex<HashMap<u32, Arc<Download>>>,
    next: AtomicU32,
}

struct Download {
    state: watch::Receiver<Result<Saving, ApiError>>,
    cancel: CancellationToken,
}

/// Begins to save the answer to a GET; gives the download's number.
#[tauri::command]
pub async fn open_save(
    path: String,
    name: String,
    app: AppHandle,
    client: State<'_, Client>,
    downloads: State<'_, Downloads>,
) -> Result<u32, Refusal> {
    let request = StreamRequest {
        method: "GET".to_owned(),
        path,
        body: None,
        registry_auth: None,
    };
    let response = backend::succeeded(client.page(request).await?).await?;
    // A session without the usual folders names none.
    let folder = app
        .path()
        .download_dir()
        .or_else(|_| Ok(app.path().home_dir()?.join("Downloads")))
        .map_err(|e: tauri::Error| {
            ApiError::internal(format!("there is no folder for downloads: {e}"))
        })?;
    let length = response.headers().get(CONTENT_LENGTH);
    let total = length.and_then(|v| v.to_str().ok()?.parse().ok());
    let pieces = response.into_body().into_data_stream();
    let pieces = pieces.map(|piece| piece.map_err(|e| backend::broken_off(&e)));
    Ok(downloads.begin(folder, name, total, pieces)?)
}

/// How far a download is, soon; its file, as soon as it is whole.
#[tauri::command]
pub async fn follow_save(id: u32, downloads: State<'_, Downloads>) -> Result<Saving, Refusal> {
    Ok(downloads.follow(id).await?)
}

/// Gives a download up; of one that is not whole nothing stays.
#[tauri::command]
pub fn drop_save(id: u32, downloads: State<'_, Downloads>) {
    downloads.drop_one(id);
}

impl Downloads {
    /// Saves `pieces` as a new file in `folder`; `total` is how many bytes will come, where that is known.
    fn begin(
        &self,
        folder: PathBuf,
        name: String,
        total: Option<u64>,
        pieces: impl Stream<Item = Result<Bytes, ApiError>> + Send + 'static,
    ) -> Result<u32, ApiError> {
        let mut open = self.lock();
        if open.len() >= MOST_OPEN {
            return Err(
                ApiError::conflict("the window saves too many files at once")
                    .with_hint("wait for one of them"),
            );
        }
        let begun = Saving {
            bytes: 0,
            total,
            path: None,
        };
        let (told, state) = watch::channel(Ok(begun));
        let cancel = CancellationToken::new();
        let cancelled = cancel.clone();
        tokio::spawn(async move {
            let saved = save(&folder, &name, pieces, &told, cancelled).await;
            told.send_modify(|state| match saved {
                Ok(place) => {
                    if let Ok(saving) = state {
                        saving.path = Some(place);
                    }
                }
                Err(error) => *state = Err(error),
            });
        });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        open.insert(id, Arc::new(Download { state, cancel }));
        Ok(id)
    }

    async fn follow(&self, id: u32) -> Result<Saving, ApiError> {
        let download = self.lock().get(&id).cloned();
        let download = download.ok_or_else(|| ApiError::conflict("this download has ended"))?;
        let mut state = download.state.clone();
        let over = |state: &Result<Saving, ApiError>| {
            state.as_ref().map_or(true, |saving| saving.path.is_some())
        };
        let _ = tokio::time::timeout(PAUSE, state.wait_for(over)).await;
        let now = state.borrow().clone();
        if over(&now) {
            self.lock().remove(&id);
        }
        now
    }

    fn drop_one(&self, id: u32) {
        if let Some(download) = self.lock().remove(&id) {
            download.cancel.cancel();
        }
    }

    /// Gives all of them up: their page is gone.
    pub fn drop_all(&self) {
        for (_, download) in self.lock().drain() {
            download.cancel.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Arc<Download>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the file's path, when all of it is there.
async fn save(
    folder: &Path,
    name: &str,
    pieces: impl Stream<Item = Result<Bytes, ApiError>>,
    told: &watch::Sender<Result<Saving, ApiError>>,
    cancelled: CancellationToken,
) -> Result<PathBuf, ApiError> {
    let cannot = |e: io::Error| ApiError::internal(format!("cannot save to {folder:?}: {e}"));
    fs::create_dir_all(folder).await.map_err(cannot)?;
    // The name is taken now; what has come stands beside it until it is whole, so that half a file never looks like one.
    let (place, _) = create(folder, &plain(name)).await.map_err(cannot)?;
    let mut part = place.clone().into_os_string();
    part.push(format!(".{PART}"));
    let part = PathBuf::from(part);
    let kept = async {
        let mut file = File::create(&part).await.map_err(cannot)?;
        let mut pieces = std::pin::pin!(pieces);
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            file.write_all(&piece).await.map_err(cannot)?;
            told.send_modify(|state| {
                if let Ok(saving) = state {
                    saving.bytes += piece.len() as u64;
                }
            });
        }
        file.sync_all().await.map_err(cannot)?;
        drop(file);
        fs::rename(&part, &place).await.map_err(cannot)
    };
    let kept = tokio::select! {
        kept = kept => kept,
        () = cancelled.cancelled() => Err(ApiError::conflict("cancelled")),
    };
    if let Err(error) = kept {
        let _ = fs::remove_file(&part).await;
        let _ = fs::remove_file(&place).await;
        return Err(error);
    }
    Ok(place)
}

/// A new file; where the name is taken, with a number.
async fn create(folder: &Path, name: &str) -> io::Result<(PathBuf, File)> {
    let (stem, ending) = match name.find('.').filter(|at| *at > 0) {
        Some(at) => name.split_at(at),
        None => (name, ""),
    };
    for number in 0..MOST_NUMBER {
        let name = match number {
            0 => name.to_owned(),
            _ => format!("{stem} ({number}){ending}"),
        };
        let path = folder.join(name);
        match File::options()
            .write(true)
            .create_new(true)
            .open(&path)
            .await
        {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// A container chooses the names of its files: what is left of one leads nowhere, hides nothing and is no device.
fn plain(name: &str) -> String {
    let harmless = |c: char| match c {
        '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' => '_',
        // Characters that turn or hide the ones around them.
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '_',
        c if c.is_control() => '_',
        c => c,
    };
    let text: String = name.chars().map(harmless).collect();
    let text = text.trim_end_matches(['.', ' ']).trim_start();
    let end = (0..=MOST.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    let text = &text[..end];
    let stem = text.split('.').next().unwrap_or_default().to_uppercase();
    let device = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL")
        || (stem.len() == 4 && (stem.starts_with("COM") || stem.starts_with("LPT")));
    match text {
        "" => "download".to_owned(),
        text if device || text.starts_with('.') => format!("_{text}"),
        text => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_its_folder() {
        for (name, wanted) in [
            ("data.tar", "data.tar"),
            ("../../.bashrc", "_.._.._.bashrc"),
            ("..", "download"),
            ("", "download"),
            (".profile", "_.profile"),
            ("a/b\\c:d", "a_b_c_d"),
            ("con.txt", "_con.txt"),
            ("x\u{202e}gpj.exe", "x_gpj.exe"),
            ("line\nfeed\0", "line_feed_"),
        ] {
            assert_eq!(plain(name), wanted, "{name:?}");
        }
        assert!(plain(&"ä".repeat(500)).len() <= MOST);
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_download_tells_how_far_it_is_and_where_it_went() {
        let folder = tempfile::tempdir().unwrap();
        let downloads = Downloads::default();
        let (more, pieces) = tokio::sync::mpsc::channel(1);
        let pieces = tokio_stream(pieces);
        let place = folder.path().to_owned();
        let id = downloads
            .begin(place, "data.tar".into(), Some(8), pieces)
            .unwrap();
        more.send(Ok(Bytes::from_static(b"half"))).await.unwrap();
        let mut saving = downloads.follow(id).await.unwrap();
        while saving.bytes < 4 {
            saving = downloads.follow(id).await.unwrap();
        }
        assert_eq!((saving.total, saving.path), (Some(8), None));
        assert_eq!(names(folder.path()), ["data.tar", "data.tar.part"]);
        more.send(Ok(Bytes::from_static(b"more"))).await.unwrap();
        drop(more);
        let mut saving = downloads.follow(id).await.unwrap();
        while saving.path.is_none() {
            saving = downloads.follow(id).await.unwrap();
        }
        assert_eq!(names(folder.path()), ["data.tar"]);
        assert_eq!(std::fs::read(saving.path.unwrap()).unwrap(), b"halfmore");
        assert!(downloads.follow(id).await.is_err());
    }

    #[tokio::test]
    async fn nothing_stays_of_a_download_that_is_given_up_or_broken() {
        let folder = tempfile::tempdir().unwrap();
        let downloads = Downloads::default();
        let (more, pieces) = tokio::sync::mpsc::channel(1);
        let place = folder.path().to_owned();
        let id = downloads
            .begin(place.clone(), "a".into(), None, tokio_stream(pieces))
            .unwrap();
        more.send(Ok(Bytes::from_static(b"half"))).await.unwrap();
        downloads.follow(id).await.unwrap();
        downloads.drop_one(id);
        // Nobody takes pieces any more once it has cleared up.
        more.closed().await;
        while !names(folder.path()).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let broken = futures::stream::iter([
            Ok(Bytes::from_static(b"half")),
            Err(ApiError::internal("the engine is lost")),
        ]);
        let id = downloads.begin(place, "b".into(), None, broken).unwrap();
        let error = loop {
            if let Err(error) = downloads.follow(id).await {
                break error;
            }
        };
        assert_eq!(error.message, "the engine is lost");
        assert!(names(folder.path()).is_empty());
    }

    fn tokio_stream<T>(receiver: tokio::sync::mpsc::Receiver<T>) -> impl Stream<Item = T> {
        futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|item| (item, receiver))
        })
    }

    #[tokio::test]
    async fn no_file_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut names = Vec::new();
        for _ in 0..3 {
            let (path, _) = create(folder.path(), "data.tar.gz").await.unwrap();
            names.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
        assert_eq!(names, ["data.tar.gz", "data (1).tar.gz", "data (2).tar.gz"]);
    }
}
