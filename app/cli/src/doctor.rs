//! The doctor's report, with what only this side can see: the service, the docker command and its context.

use std::process::ExitCode;

use longshore_host_api::doctor::{Check, Report, Verdict};
use longshore_host_api::{ApiError, Client};

use crate::context;
use crate::terminal::printable;

pub async fn show(client: &Client, json: bool) -> Result<ExitCode, ApiError> {
    let mut report = match client.doctor().await {
        Ok(report) => report,
        Err(error) => {
            let log = client.home().host_log();
            let hint = error.hint;
            Report {
                checks: vec![Check::fail(
                    "service",
                    error.message,
                    hint.unwrap_or_else(|| format!("look at {}", log.display())),
                )],
            }
        }
    };
    report.checks.push(docker_command());
    report.checks.push(context::check(client.home()));
    tell(&report, json)
}

/// What the store holds, and whether it is whole.
pub async fn show_store(client: &Client, json: bool) -> Result<ExitCode, ApiError> {
    tell(&client.doctor_store().await?, json)
}

fn tell(report: &Report, json: bool) -> Result<ExitCode, ApiError> {
    if json {
        let text =
            serde_json::to_string_pretty(report).map_err(|e| ApiError::internal(e.to_string()))?;
        println!("{text}");
    } else {
        print(report);
    }
    Ok(if report.healthy() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn docker_command() -> Check {
    let found = std::env::var_os("PATH").and_then(|path| {
        let name = format!("docker{}", std::env::consts::EXE_SUFFIX);
        std::env::split_paths(&path)
            .map(|folder| folder.join(&name))
            .find(|p| p.is_file())
    });
    match found {
        Some(path) => Check::ok("docker", path.display().to_string()),
        None => Check::warn("docker", "no docker command on PATH", install_docker()),
    }
}

fn install_docker() -> &'static str {
    if cfg!(target_os = "macos") {
        "install Docker's CLI: brew install docker"
    } else if cfg!(windows) {
        "install Docker's CLI: docker.exe from Docker's website, on PATH"
    } else {
        "install Docker's CLI: sudo apt install docker-cli"
    }
}

fn print(report: &Report) {
    for check in &report.checks {
        let mark = match check.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
            Verdict::Skip => "-   ",
        };
        println!("{mark}  {:<14} {}", check.name, printable(&check.detail));
        if let Some(fix) = &check.fix {
            println!("      {:<14} → {fix}", "");
        }
    }
    println!(
        "{}",
        if report.healthy() {
            "Nothing is broken."
        } else {
            "Something is broken: see FAIL above."
        }
    );
}
