//! The archive for whoever helps.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use longshore_host_api::{ApiError, Client};

pub async fn write(client: &Client, output: Option<PathBuf>) -> Result<ExitCode, ApiError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.unwrap_or_default().as_secs();
    let output = output.unwrap_or_else(|| format!("longshore-diagnostics-{seconds}.tar.gz").into());
    let failed =
        |e: io::Error| ApiError::conflict(format!("cannot write {}: {e}", output.display()));
    // Before anything is gathered: nothing is written over.
    let mut file = create(&output).map_err(failed)?;
    let written = match client.diagnostics().await {
        Ok(bytes) => file.write_all(&bytes).map_err(failed),
        Err(error) => Err(error),
    };
    if let Err(error) = written {
        let _ = std::fs::remove_file(&output);
        return Err(error);
    }
    println!("{}", output.display());
    eprintln!(
        "Passwords, tokens and keys are removed where they can be told; look through it before you hand it on."
    );
    Ok(ExitCode::SUCCESS)
}

/// A new file that only this user reads.
fn create(path: &PathBuf) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
