//! `longshore-file-share`: the process that serves one host folder to the guest.

use std::process::ExitCode;

use clap::Parser;
use longshore_file_share::{Options, run};

fn main() -> ExitCode {
    let options = Options::parse();
    let level = tracing_subscriber::EnvFilter::try_from_env("LONGSHORE_LOG")
        .unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(level)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
