//! `longshore-desktop`: the window and the tray of one `LONGSHORE_HOME`.
//!
//! It knows the host service's API and nothing below it. The engine does not need it: a window that closes or crashes ends nothing.
#![cfg_attr(windows, windows_subsystem = "windows")]

mod backend;
mod containers;
mod downloads;
mod engine;
mod instance;
mod news;
mod pages;
mod streams;
mod tray;
mod tray_menu;
mod uploads;
mod window;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use longshore_host_api::{Client, Home};
use tauri::RunEvent;

/// Longshore's window. `longshore app` opens it.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// The folder of the instance [default: $LONGSHORE_HOME, or the platform's data folder]
    #[arg(long)]
    home: Option<PathBuf>,
    /// Stay in the tray, and start the engine: what happens at login
    #[arg(long)]
    hidden: bool,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("longshore-desktop: {error:#}");
            // Whoever has clicked an icon sees no terminal.
            let told = news::tell("Longshore cannot open its window", &format!("{error:#}"));
            let _ = told.join();
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> anyhow::Result<()> {
    let home = Home::open(options.home)?;
    home.create()?;
    let first = tauri::async_runtime::block_on(instance::claim(&home, !options.hidden))?;
    let Some(listener) = first else {
        return Ok(());
    };
    let mut context = tauri::generate_context!();
    pages::install(&mut context)?;
    let place = tauri_plugin_window_state::Builder::new()
        .with_filename(home.window_file().to_string_lossy())
        .with_state_flags(window::PLACE)
        .build();
    let app = tauri::Builder::default()
        .plugin(place)
        .manage(Client::new(home))
        .manage(streams::Streams::default())
        .manage(backend::Uploads::default())
        .manage(downloads::Downloads::default())
        .manage(engine::Engine::default())
        .manage(window::Quitting::default())
        .invoke_handler(tauri::generate_handler![
            backend::ask,
            backend::open_stream,
            backend::open_terminal,
            backend::read,
            backend::write,
            backend::close,
            backend::open_upload,
            backend::write_upload,
            backend::end_upload,
            backend::drop_upload,
            downloads::open_save,
            downloads::follow_save,
            downloads::drop_save,
            window::quit,
            window::stay,
        ])
        .setup(move |app| {
            let app = app.handle();
            tray::create(app).context("making the tray's icon")?;
            window::create(app, !options.hidden).context("making the window")?;
            instance::listen(app, listener);
            engine::follow(app);
            containers::follow(app);
            if options.hidden {
                engine::act(app, engine::Action::Start);
            }
            Ok(())
        })
        .build(context)
        .context("opening the display")?;
    app.run(|app, event| {
        if let RunEvent::ExitRequested {
            code: None, api, ..
        } = event
        {
            // The system's own way to quit, such as Cmd+Q.
            api.prevent_exit();
            window::ask_to_quit(app);
        }
    });
    Ok(())
}
