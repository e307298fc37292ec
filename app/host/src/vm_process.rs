//! Starting `longshore-vm` and finding the one that runs.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use longshore_host_api::{Home, spawn};
use longshore_vm::client::{Client, ClientError};
use longshore_vm::config::VmConfig;
use tokio::process::{Child, Command};

use crate::{logs, settings_file};

/// Until its control socket answers; it binds that before it looks at anything else.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks for the control socket, in that short time only.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

#[derive(Debug, thiserror::Error)]
pub enum VmProcessError {
    #[error(transparent)]
    Program(#[from] spawn::SpawnError),
    #[error("cannot write the VM's configuration {0}: {1}")]
    Config(PathBuf, io::Error),
    #[error("cannot start {0}: {1}")]
    Start(PathBuf, io::Error),
    #[error("longshore-vm ended at once ({0})")]
    Ended(String, Vec<String>),
    #[error("longshore-vm does not answer on its socket: {0}")]
    Silent(ClientError),
}

impl VmProcessError {
    /// What the process itself said.
    pub fn log(&self) -> Vec<String> {
        match self {
            VmProcessError::Ended(_, log) => log.clone(),
            _ => Vec::new(),
        }
    }
}

/// Where the process writes what goes wrong with itself.
pub fn log_file(home: &Home) -> PathBuf {
    home.root().join("vm").join("vm.log")
}

/// The process that runs already, if one does.
pub async fn find(home: &Home) -> Option<Client> {
    Client::connect(&home.vm_socket()).await.ok()
}

/// Starts the process; it lives on when this one dies.
pub async fn spawn(home: &Home, config: &VmConfig) -> Result<Client, VmProcessError> {
    let program = spawn::sibling("longshore-vm")?;
    let config_file = home.root().join("vm").join("config.json");
    let json = serde_json::to_vec_pretty(config)
        .map_err(|e| VmProcessError::Config(config_file.clone(), e.into()))?;
    settings_file::replace(&config_file, &json)
        .map_err(|e| VmProcessError::Config(config_file.clone(), e))?;
    let start_failed = |e| VmProcessError::Start(program.clone(), e);
    let log = File::create(log_file(home)).map_err(start_failed)?;
    let child = Command::new(&program)
        .arg("--config")
        .arg(&config_file)
        .current_dir(home.root())
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(start_failed)?)
        .stderr(log)
        .spawn()
        .map_err(start_failed)?;
    serving(home, child).await
}

async fn serving(home: &Home, mut child: Child) -> Result<Client, VmProcessError> {
    let socket = home.vm_socket();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match Client::connect(&socket).await {
            Ok(client) => {
                // Somebody has to take its exit status when it ends before we do.
                tokio::spawn(async move { child.wait().await });
                return Ok(client);
            }
            Err(error) if tokio::time::Instant::now() > deadline => {
                let _ = child.start_kill();
                return Err(VmProcessError::Silent(error));
            }
            Err(_) => {}
        }
        if let Ok(status) = tokio::time::timeout(LOOK_AGAIN, child.wait()).await {
            let how = status.map_or_else(|e| e.to_string(), |s| s.to_string());
            return Err(VmProcessError::Ended(
                how,
                logs::last_lines(&log_file(home), 20),
            ));
        }
    }
}
