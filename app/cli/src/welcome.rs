//! A first container.

use std::process::ExitCode;

use longshore_host_api::{ApiError, Client};

pub async fn run(client: &Client) -> Result<ExitCode, ApiError> {
    let welcome = client.welcome().await?;
    println!("The container {} runs.", welcome.name);
    if let Some(url) = welcome.url {
        println!("Its page: {url}");
    }
    Ok(ExitCode::SUCCESS)
}
