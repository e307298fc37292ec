//! `longshore`: start, stop, status, logs, shell, doctor, diagnose, app, ui, settings.

mod app;
mod context;
mod diagnose;
mod doctor;
mod logs;
mod options;
mod progress;
mod settings;
mod shell;
mod status;
mod terminal;
mod ui;
mod welcome;

use std::process::ExitCode;

use clap::Parser;
use longshore_host_api::{ApiError, Client, Home};

use options::{Command, Options};

fn main() -> ExitCode {
    let options = Options::parse();
    // Rust ignores SIGPIPE, so that `longshore logs | head` would end with an error instead of quietly.
    terminal::end_quietly_on_closed_pipe();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("longshore: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(options.command));
    // A read of standard input that is still waiting must not hold the process.
    runtime.shutdown_background();
    result.unwrap_or_else(|error| {
        show(&error);
        ExitCode::from(error.code.exit_code())
    })
}

async fn run(command: Command) -> Result<ExitCode, ApiError> {
    let home = Home::from_env().map_err(|e| ApiError::invalid(e.to_string()))?;
    let client = Client::new(home.clone());
    match command {
        Command::Start(flags) => progress::start(&client, flags).await,
        Command::Stop => progress::stop(&client).await,
        Command::Restart => progress::restart(&client).await,
        Command::Status { json } => status::show(&home, json).await,
        Command::Logs(flags) => logs::show(&client, flags).await,
        Command::Shell { command } => shell::run(&client, command).await,
        Command::Doctor { store: true, json } => doctor::show_store(&client, json).await,
        Command::Doctor { json, .. } => doctor::show(&client, json).await,
        Command::Diagnose { output } => diagnose::write(&client, output).await,
        Command::DockerHost => {
            println!("{}", home.docker_host());
            Ok(ExitCode::SUCCESS)
        }
        Command::App => app::open(&home),
        Command::Ui(flags) => ui::show(&client, flags).await,
        Command::Welcome => welcome::run(&client).await,
        Command::Settings(command) => settings::run(&client, command).await,
    }
}

/// What failed, the log lines that show it, and what to do.
fn show(error: &ApiError) {
    match &error.stage {
        Some(stage) => eprintln!("longshore: failed at stage {stage:?}: {error}"),
        None => eprintln!("longshore: {error}"),
    }
    for line in &error.log {
        eprintln!("  | {}", terminal::printable(line));
    }
    if let Some(hint) = &error.hint {
        eprintln!("  → {hint}");
    }
}
