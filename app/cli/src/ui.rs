//! The window's pages in a browser.

use std::process::ExitCode;

use longshore_host_api::{ApiError, Client};

use crate::options::UiFlags;

pub async fn show(client: &Client, flags: UiFlags) -> Result<ExitCode, ApiError> {
    if flags.close {
        client.close_ui().await?;
        return Ok(ExitCode::SUCCESS);
    }
    let address = client.open_ui().await?;
    println!("{}", address.url);
    if !flags.no_open && open::that_detached(&address.url).is_err() {
        eprintln!("longshore: no browser was found: open this address in one");
    }
    Ok(ExitCode::SUCCESS)
}
