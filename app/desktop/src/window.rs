//! The one window. Closing it leaves the tray; quitting asks what becomes of the engine.

use std::sync::atomic::{AtomicBool, Ordering};

use longshore_host_api::types::State as EngineState;
use longshore_host_api::{ApiError, Client};
use tauri::webview::{NewWindowResponse, PageLoadEvent, WebviewWindowBuilder};
use tauri::{AppHandle, Emitter, Manager, State, Url, WebviewUrl, WindowEvent};
use tauri_plugin_window_state::{AppHandleExt, StateFlags, WindowExt};

use crate::backend::Uploads;
use crate::downloads::Downloads;
use crate::engine::{self, Engine};
use crate::streams::Streams;
use crate::tray;

/// The name that the capabilities are bound to.
const MAIN: &str = "main";
/// What is remembered of it.
pub const PLACE: StateFlags = StateFlags::SIZE
    .union(StateFlags::POSITION)
    .union(StateFlags::MAXIMIZED)
    .union(StateFlags::FULLSCREEN);
/// Tells the page to ask what becomes of the engine.
const QUIT_ASKED: &str = "quit-asked";
/// Tells the page to show the container of this id.
const CONTAINER_ASKED: &str = "container-asked";

/// The locale C.UTF-8 makes WebKitGTK tell a language that no formatter of its own takes.
const LANGUAGE: &str =
    "if (navigator.language === 'C') Object.defineProperty(navigator, 'language', { value: 'en' })";

/// The page has been told to ask, and has not answered yet.
#[derive(Default)]
pub struct Quitting(AtomicBool);

pub fn create(app: &AppHandle, visible: bool) -> tauri::Result<()> {
    let window = WebviewWindowBuilder::new(app, MAIN, WebviewUrl::default())
        .title("Longshore")
        .inner_size(1180.0, 740.0)
        .min_inner_size(760.0, 480.0)
        .visible(visible)
        .initialization_script(LANGUAGE)
        .data_directory(app.state::<Client>().home().root().join("webview"))
        // Files are dropped on the pages themselves.
        .disable_drag_drop_handler()
        // Nothing but our own pages is ever shown here.
        .on_navigation(is_own)
        .on_new_window(|url, _| {
            if matches!(url.scheme(), "http" | "https")
                && let Err(error) = open::that_detached(url.as_str())
            {
                eprintln!("longshore-desktop: cannot open a browser: {error}");
            }
            NewWindowResponse::Deny
        })
        .on_page_load(|window, load| {
            if load.event() == PageLoadEvent::Started {
                window.state::<Streams>().close_all();
                window.state::<Uploads>().drop_all();
                window.state::<Downloads>().drop_all();
            }
        })
        .build()?;
    let app = app.clone();
    window.on_window_event(move |event| {
        if let WindowEvent::CloseRequested { api, .. } = event {
            api.prevent_close();
            close(&app);
        }
    });
    Ok(())
}

fn is_own(url: &Url) -> bool {
    url.scheme() == "tauri" || url.host_str() == Some("tauri.localhost")
}

pub fn show(app: &AppHandle) {
    if let Some(window) = app.get_webview_window(MAIN) {
        // A window manager finds a place of its own for one that was hidden, unless it is told.
        if !window.is_visible().unwrap_or(true) {
            let _ = window.restore_state(StateFlags::POSITION);
        }
        let _ = window.show();
        let _ = window.unminimize();
        let _ = window.set_focus();
    }
}

/// Shows the window, and in it a container.
pub fn show_container(app: &AppHandle, id: &str) {
    show(app);
    if let Err(error) = app.emit_to(MAIN, CONTAINER_ASKED, id) {
        eprintln!("longshore-desktop: cannot show a container: {error}");
    }
}

/// Without a tray nothing would be left to click.
fn close(app: &AppHandle) {
    if !tray::is_there(app) {
        return ask_to_quit(app);
    }
    if let Err(error) = app.save_window_state(PLACE) {
        eprintln!("longshore-desktop: cannot remember the window's place: {error}");
    }
    if let Some(window) = app.get_webview_window(MAIN) {
        let _ = window.hide();
    }
}

/// The page asks, if there is something to ask. Asked twice, the window goes and the engine stays.
pub fn ask_to_quit(app: &AppHandle) {
    let idle = matches!(
        app.state::<Engine>().state(),
        None | Some(EngineState::Stopped | EngineState::Failed)
    );
    let asked = app.state::<Quitting>().0.swap(true, Ordering::Relaxed);
    if idle || asked || app.emit_to(MAIN, QUIT_ASKED, ()).is_err() {
        app.exit(0);
    } else {
        show(app);
    }
}

/// The user's answer: the engine goes with the window, or lives on.
#[tauri::command]
pub async fn quit(stop: bool, app: AppHandle, client: State<'_, Client>) -> Result<(), ApiError> {
    if stop {
        engine::stop(&client).await?;
        client.shutdown().await?;
    }
    app.exit(0);
    Ok(())
}

/// The user has thought better of it.
#[tauri::command]
pub fn stay(quitting: State<'_, Quitting>) {
    quitting.0.store(false, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_shows_our_pages_only() {
        for (url, own) in [
            ("tauri://localhost/", true),
            ("tauri://localhost/#/containers", true),
            ("http://tauri.localhost/", true),
            ("http://localhost:8080/", false),
            ("http://tauri.localhost.example.com/", false),
            ("https://example.com/", false),
            ("file:///etc/passwd", false),
        ] {
            assert_eq!(is_own(&url.parse().unwrap()), own, "{url}");
        }
    }
}
