//! The window's pages in a browser.

use std::process::{Command, ExitCode, Stdio};

use longshore_host_api::{ApiError, Client};

use crate::options::UiFlags;

pub async fn show(client: &Client, flags: UiFlags) -> Result<ExitCode, ApiError> {
    if flags.close {
        client.close_ui().await?;
        return Ok(ExitCode::SUCCESS);
    }
    let address = client.open_ui().await?;
    println!("{}", address.url);
    if !flags.no_open && !open(&address.url) {
        eprintln!("longshore: no browser was found: open this address in one");
    }
    Ok(ExitCode::SUCCESS)
}

/// Hands the address to the desktop's browser.
fn open(url: &str) -> bool {
    let mut command = if cfg!(windows) {
        let mut command = Command::new("rundll32");
        command.arg("url.dll,FileProtocolHandler");
        command
    } else if cfg!(target_os = "macos") {
        Command::new("open")
    } else {
        Command::new("xdg-open")
    };
    command
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .is_ok()
}
