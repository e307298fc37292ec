//! The tray's icon: the engine's state, the newest containers, and what one does without the window.

use std::sync::{Mutex, PoisonError};

use longshore_host_api::Client;
use longshore_host_api::types::EngineState;
use tauri::image::Image;
use tauri::menu::{
    IsMenuItem, Menu, MenuEvent, MenuItem, MenuItemKind, PredefinedMenuItem, Submenu,
};
use tauri::tray::{MouseButton, MouseButtonState, TrayIconBuilder, TrayIconEvent};
use tauri::{AppHandle, Manager, Wry};

use crate::engine::{self, Action};
use crate::tray_menu::{EnginePart, Icon, Line, Verb, engine_part};
use crate::{containers, window};

const TRAY: &str = "longshore";

/// Where in the menu the containers are: behind the item that opens the window.
const CONTAINERS_AT: usize = 3;

/// What changes, and what of it is shown.
struct Tray {
    menu: Menu<Wry>,
    state: MenuItem<Wry>,
    start: MenuItem<Wry>,
    stop: MenuItem<Wry>,
    restart: MenuItem<Wry>,
    engine: Mutex<Option<EnginePart>>,
    containers: Mutex<Containers>,
}

#[derive(Default)]
struct Containers {
    lines: Option<Vec<Line>>,
    items: Vec<MenuItemKind<Wry>>,
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
    let state = item("state", "Longshore", false)?;
    let start = item("start", "Start", false)?;
    let stop = item("stop", "Stop", false)?;
    let restart = item("restart", "Restart", false)?;
    let line = || PredefinedMenuItem::separator(app);
    let menu = Menu::with_items(
        app,
        &[
            &state,
            &line()?,
            &item("open", "Open Longshore", true)?,
            &line()?,
            &start,
            &stop,
            &restart,
            &line()?,
            &item("quit", "Quit Longshore", true)?,
        ],
    )?;
    app.manage(Tray {
        menu: menu.clone(),
        state,
        start,
        stop,
        restart,
        engine: Mutex::default(),
        containers: Mutex::default(),
    });
    TrayIconBuilder::with_id(TRAY)
        .icon(picture(Icon::Stopped))
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
        item => {
            if let Some((verb, id)) = Verb::of_item(item) {
                containers::act(app, verb, id);
            }
        }
    }
}

/// Shows the engine's state; none while the service does not answer.
pub fn show_state(app: &AppHandle, now: Option<&EngineState>) {
    let Some(tray) = app.try_state::<Tray>() else {
        return;
    };
    let part = engine_part(now);
    let mut shown = tray.engine.lock().unwrap_or_else(PoisonError::into_inner);
    if shown.as_ref() == Some(&part) {
        return;
    }
    let _ = tray.state.set_text(&part.text);
    let _ = tray.start.set_enabled(part.can_start);
    let _ = tray.stop.set_enabled(part.can_stop);
    let _ = tray.restart.set_enabled(part.can_restart);
    if let Some(icon) = app.tray_by_id(TRAY) {
        let _ = icon.set_tooltip(Some(format!("Longshore: {}", part.text)));
        // On Linux each picture is a file that the panel reads anew.
        if shown.as_ref().is_none_or(|shown| shown.icon != part.icon) {
            let _ = icon.set_icon(Some(picture(part.icon)));
        }
    }
    *shown = Some(part);
}

fn picture(icon: Icon) -> Image<'static> {
    match icon {
        Icon::Stopped => tauri::include_image!("icons/tray-stopped.png"),
        Icon::Starting => tauri::include_image!("icons/tray-starting.png"),
        Icon::Running => tauri::include_image!("icons/tray-running.png"),
        Icon::Failed => tauri::include_image!("icons/tray-failed.png"),
    }
}

/// Shows the newest containers; none while the engine does not run.
pub fn show_containers(app: &AppHandle, lines: Option<Vec<Line>>) {
    let Some(tray) = app.try_state::<Tray>() else {
        return;
    };
    let mut shown = tray
        .containers
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if shown.lines == lines {
        return;
    }
    if let Err(error) = replace(app, &tray.menu, &mut shown, lines) {
        eprintln!("longshore-desktop: cannot show the containers in the tray: {error}");
    }
}

fn replace(
    app: &AppHandle,
    menu: &Menu<Wry>,
    shown: &mut Containers,
    lines: Option<Vec<Line>>,
) -> tauri::Result<()> {
    for item in shown.items.drain(..) {
        menu.remove(as_item(&item))?;
    }
    // Should the rest fail, the next list is not taken for what is shown.
    shown.lines = None;
    if let Some(lines) = &lines {
        shown.items = container_items(app, lines)?;
        let items: Vec<_> = shown.items.iter().map(as_item).collect();
        menu.insert_items(&items, CONTAINERS_AT)?;
    }
    shown.lines = lines;
    Ok(())
}

/// A line between them and what is above, then each with what can be done to it.
fn container_items(app: &AppHandle, lines: &[Line]) -> tauri::Result<Vec<MenuItemKind<Wry>>> {
    let mut items = vec![MenuItemKind::Predefined(PredefinedMenuItem::separator(
        app,
    )?)];
    for line in lines {
        let item = |verb: Verb, text, enabled| {
            MenuItem::with_id(app, verb.item(&line.id), text, enabled, None::<&str>)
        };
        let menu = Submenu::with_items(
            app,
            &line.text,
            true,
            &[
                &item(Verb::Open, "Open in the window", true)?,
                &item(Verb::Start, "Start container", line.can_start)?,
                &item(Verb::Stop, "Stop container", line.can_stop)?,
            ],
        )?;
        items.push(MenuItemKind::Submenu(menu));
    }
    if lines.is_empty() {
        let none = MenuItem::new(app, "No containers", false, None::<&str>)?;
        items.push(MenuItemKind::MenuItem(none));
    }
    Ok(items)
}

fn as_item(item: &MenuItemKind<Wry>) -> &dyn IsMenuItem<Wry> {
    match item {
        MenuItemKind::MenuItem(item) => item,
        MenuItemKind::Submenu(item) => item,
        MenuItemKind::Predefined(item) => item,
        MenuItemKind::Check(item) => item,
        MenuItemKind::Icon(item) => item,
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
