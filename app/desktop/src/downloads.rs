//! Answers kept as files where the user's downloads go, as a browser would: the page names them, and chooses nothing else.

use std::io;
use std::path::{Path, PathBuf};

use futures::StreamExt;
use http_body_util::BodyExt;
use longshore_host_api::types::StreamRequest;
use longshore_host_api::{ApiError, Client};
use tauri::{AppHandle, Manager, State};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

use crate::backend::{self, Refusal};

/// The longest name, in bytes; with a number or an ending it stays below what file systems take.
const MOST: usize = 200;
/// How many files of one name there may be.
const MOST_NUMBER: u32 = 1000;

/// Saves the answer to a GET; gives the file's path.
#[tauri::command]
pub async fn save(
    path: String,
    name: String,
    app: AppHandle,
    client: State<'_, Client>,
) -> Result<PathBuf, Refusal> {
    let request = StreamRequest {
        method: "GET".to_owned(),
        path,
        body: None,
        registry_auth: None,
    };
    let response = backend::succeeded(client.page(request).await?).await?;
    let folder = app
        .path()
        .download_dir()
        .map_err(|e| ApiError::internal(format!("there is no folder for downloads: {e}")))?;
    let cannot = |e: io::Error| ApiError::internal(format!("cannot save to {folder:?}: {e}"));
    fs::create_dir_all(&folder).await.map_err(cannot)?;
    let (place, mut file) = create(&folder, &plain(&name)).await.map_err(cannot)?;
    let mut pieces = response.into_body().into_data_stream();
    let kept = async {
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|e| backend::broken_off(&e))?;
            file.write_all(&piece).await.map_err(cannot)?;
        }
        file.sync_all().await.map_err(cannot)
    };
    if let Err(error) = kept.await {
        // Half a file must not look like a whole one.
        let _ = fs::remove_file(&place).await;
        return Err(error.into());
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
