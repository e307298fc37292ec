//! The tray's icon: the engine's state, and what one does without the window.

use longshore_host_api::Client;
use longshore_host_api::types::{EngineState, State};
use tauri::menu::{Menu, MenuEvent, MenuItem, PredefinedMenuItem};
use tauri::tray::{MouseButton, MouseButtonState, TrayIconBuilder, TrayIconEvent};
use tauri::{AppHandle, Manager, Wry};

use crate::engine::{self, Action};
use crate::window;

const TRAY: &str = "longshore";

/// The items that change with the engine.
struct Items {
    state: MenuItem<Wry>,
    start: MenuItem<Wry>,
    stop: MenuItem<Wry>,
    restart: MenuItem<Wry>,
}

/// Makes the icon, where the desktop can have one.
pub fn create(app: &AppHandle) -> tauri::Result<()> {
    if !is_possible() {
        eprintln!(
            "longshore-desktop: no icon in the tray: libayatana-appindicator3 is not installed"
        );
        return Ok(());
    }
    let item = |id, text, enabled| MenuItem::with_id(app, id, text, enabled, None::<&str>);
    let items = Items {
        state: item("state", "Longshore", false)?,
        start: item("start", "Start", false)?,
        stop: item("stop", "Stop", false)?,
        restart: item("restart", "Restart", false)?,
    };
    let line = || PredefinedMenuItem::separator(app);
    let menu = Menu::with_items(
        app,
        &[
            &items.state,
            &line()?,
            &item("open", "Open Longshore", true)?,
            &line()?,
            &items.start,
            &items.stop,
            &items.restart,
            &line()?,
            &item("quit", "Quit Longshore", true)?,
        ],
    )?;
    app.manage(items);
    TrayIconBuilder::with_id(TRAY)
        .icon(tauri::include_image!("icons/tray.png"))
        .tooltip("Longshore")
        // On Linux the icon is handed over as a file: not in a folder that is everybody's.
        .temp_dir_path(app.state::<Client>().home().root().join("tray"))
        .menu(&menu)
        .show_menu_on_left_click(cfg!(target_os = "macos"))
        .on_menu_event(chosen)
        .on_tray_icon_event(|tray, event| {
            if let TrayIconEvent::Click {
                button: MouseButton::Left,
                button_state: MouseButtonState::Up,
                ..
            } = event
                && !cfg!(target_os = "macos")
            {
                window::show(tray.app_handle());
            }
        })
        .build(app)?;
    Ok(())
}

pub fn is_there(app: &AppHandle) -> bool {
    app.tray_by_id(TRAY).is_some()
}

fn chosen(app: &AppHandle, event: MenuEvent) {
    match event.id().as_ref() {
        "open" => window::show(app),
        "start" => engine::act(app, Action::Start),
        "stop" => engine::act(app, Action::Stop),
        "restart" => engine::act(app, Action::Restart),
        "quit" => window::ask_to_quit(app),
        _ => {}
    }
}

/// Shows the engine's state; none while the service does not answer.
pub fn show_state(app: &AppHandle, now: Option<&EngineState>) {
    let Some(items) = app.try_state::<Items>() else {
        return;
    };
    let state = now.map(|n| n.state);
    let text = describe(now);
    let running = matches!(state, Some(State::Running | State::Paused));
    let _ = items.state.set_text(&text);
    let _ = items
        .start
        .set_enabled(matches!(state, Some(State::Stopped | State::Failed)));
    let _ = items
        .stop
        .set_enabled(running || state == Some(State::Starting));
    let _ = items.restart.set_enabled(running);
    if let Some(tray) = app.tray_by_id(TRAY) {
        let _ = tray.set_tooltip(Some(format!("Longshore: {text}")));
    }
}

fn describe(now: Option<&EngineState>) -> String {
    let Some(now) = now else {
        return "The host service does not answer".to_owned();
    };
    let text = format!("Engine {}", now.state.as_str());
    match &now.detail {
        // A menu has room for a stage, not for a story.
        Some(detail) if detail.len() <= 60 => format!("{text}: {detail}"),
        _ => text,
    }
}

/// On Linux the icon is drawn by a library that need not be there, and without which its bindings panic.
fn is_possible() -> bool {
    #[cfg(target_os = "linux")]
    return ["libayatana-appindicator3.so.1", "libappindicator3.so.1"]
        .iter()
        // SAFETY: these libraries run nothing of their own when they are loaded but GObject's registration of types.
        .any(|name| unsafe { libloading::Library::new(name) }.is_ok());
    #[cfg(not(target_os = "linux"))]
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_fits_a_menu() {
        let of = |state, detail: Option<&str>| {
            describe(Some(&EngineState {
                state,
                detail: detail.map(str::to_owned),
            }))
        };
        assert_eq!(of(State::Running, None), "Engine running");
        assert_eq!(of(State::Starting, Some("boot")), "Engine starting: boot");
        assert_eq!(of(State::Failed, Some(&"x".repeat(99))), "Engine failed");
        assert_eq!(describe(None), "The host service does not answer");
    }
}
