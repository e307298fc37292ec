//! One window for each `LONGSHORE_HOME`: the second start shows the first one's window and ends.

use anyhow::Context;
use longshore_host_api::Home;
use longshore_local_socket::{ListenError, Listener, connect};
use tauri::AppHandle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::window;

const SHOW: &[u8] = b"show";

/// The socket of the only one; none if another lives, which is then asked to show itself.
pub async fn claim(home: &Home, show: bool) -> anyhow::Result<Option<Listener>> {
    let path = home.window_socket();
    match Listener::bind(&path).await {
        Ok(listener) => Ok(Some(listener)),
        Err(ListenError::Taken(_)) => {
            if show {
                let mut other = connect(&path).await.with_context(|| {
                    format!("cannot reach the open window at {}", path.display())
                })?;
                other.write_all(SHOW).await?;
            }
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Shows the window whenever another start asks for it.
pub fn listen(app: &AppHandle, mut listener: Listener) {
    let app = app.clone();
    tauri::async_runtime::spawn(async move {
        while let Ok(mut other) = listener.accept().await {
            let app = app.clone();
            tauri::async_runtime::spawn(async move {
                let mut word = [0; SHOW.len()];
                if other.read_exact(&mut word).await.is_ok() && word == SHOW {
                    window::show(&app);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_asks_the_first_to_show_itself() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("home")).unwrap();
        home.create().unwrap();
        let mut first = claim(&home, true).await.unwrap().unwrap();
        let read = async {
            loop {
                let mut text = String::new();
                let mut other = first.accept().await.unwrap();
                other.read_to_string(&mut text).await.unwrap();
                if !text.is_empty() {
                    return text;
                }
            }
        };
        let (second, text) = tokio::join!(claim(&home, true), read);
        assert!(second.unwrap().is_none());
        assert_eq!(text.as_bytes(), SHOW);
        drop(first);
        assert!(claim(&home, true).await.unwrap().is_some());
    }
}
