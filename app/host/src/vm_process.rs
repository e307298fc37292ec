//! Starting `longshore-vm` and finding the one that runs.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use longshore_host_api::{Home, spawn};
use longshore_vm::client::{Client, ClientError};
use longshore_vm::config::{VmConfig, last_state_file};
use longshore_vm::control::VmState;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::{logs, settings_file};

/// Until its sockets answer; it binds them before it looks at anything else.
const PATIENCE: Duration = Duration::from_secs(10);
/// What it then writes to its standard output.
const LISTENING: &str = "listening";

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
    #[error("longshore-vm does not say that it listens")]
    Silent,
    #[error("longshore-vm does not answer: {0}")]
    Connect(#[from] ClientError),
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

fn config_file(home: &Home) -> PathBuf {
    home.root().join("vm").join("config.json")
}

/// What the VM that was started last is made of.
pub fn last_config(home: &Home) -> Option<VmConfig> {
    serde_json::from_slice(&std::fs::read(config_file(home)).ok()?).ok()
}

/// How the VM ended that has run last, if its process was able to say so.
pub fn last_state(home: &Home) -> Option<VmState> {
    let text = std::fs::read(last_state_file(home.root())).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The process that runs already, if one does.
pub async fn find(home: &Home) -> Option<Client> {
    Client::connect(&home.vm_socket()).await.ok()
}

/// Starts the process; it lives on when this one dies.
pub async fn spawn(home: &Home, config: &VmConfig) -> Result<Client, VmProcessError> {
    let program = spawn::sibling("longshore-vm")?;
    let config_file = config_file(home);
    let json = serde_json::to_vec_pretty(config)
        .map_err(|e| VmProcessError::Config(config_file.clone(), e.into()))?;
    settings_file::replace(&config_file, &json)
        .map_err(|e| VmProcessError::Config(config_file.clone(), e))?;
    let start_failed = |e| VmProcessError::Start(program.clone(), e);
    let log = File::create(log_file(home)).map_err(start_failed)?;
    let mut command = Command::new(&program);
    spawn::stand_alone(&mut command);
    let child = command
        .arg("--config")
        .arg(&config_file)
        .current_dir(home.root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(start_failed)?;
    serving(home, child).await
}

/// Its first line says that its sockets answer; an end instead says that they never will.
async fn serving(home: &Home, mut child: Child) -> Result<Client, VmProcessError> {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout.take(4096));
        match tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(VmProcessError::Start(home.vm_socket(), error)),
            Err(_) => {
                let _ = child.start_kill();
                return Err(VmProcessError::Silent);
            }
        }
    }
    if line.trim() == LISTENING {
        let client = Client::connect(&home.vm_socket()).await?;
        // Somebody has to take its exit status when it ends before we do.
        tokio::spawn(async move { child.wait().await });
        return Ok(client);
    }
    let how = match child.wait().await {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    Err(VmProcessError::Ended(
        how,
        logs::last_lines(&log_file(home), 20),
    ))
}
