//! Starts the host service when nobody serves, exactly once however many clients ask.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use longshore_local_socket::{self as local_socket, Stream};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::home::{Home, HomeError};

/// What the service writes to its standard output when it serves.
pub const READY: &str = "ready";

/// How long the service may take until it serves; it only binds its sockets in this time.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error("cannot connect to the service's socket {0}: {1}")]
    Connect(PathBuf, io::Error),
    #[error("cannot lock {0}: {1}")]
    Lock(PathBuf, io::Error),
    #[error("cannot find the program {0} beside this one")]
    Missing(PathBuf),
    #[error("cannot open the log {0}: {1}")]
    Log(PathBuf, io::Error),
    #[error("cannot start {0}: {1}")]
    Start(PathBuf, io::Error),
    #[error("the host service did not start: {0}")]
    Refused(String),
    #[error("the host service did not answer within {} s", PATIENCE.as_secs())]
    Silent,
}

/// Connects to the service, and starts it if nobody serves.
pub async fn connect_or_spawn(home: &Home) -> Result<Stream, SpawnError> {
    let socket = home.host_socket();
    match local_socket::connect(&socket).await {
        Ok(stream) => return Ok(stream),
        Err(e) if local_socket::nobody_serves(&e) => {}
        Err(e) => return Err(SpawnError::Connect(socket, e)),
    }
    home.create()?;
    // Whoever holds the lock starts the service; the others find it serving when they get the lock.
    let _lock = lock(home.spawn_lock()).await?;
    match local_socket::connect(&socket).await {
        Ok(stream) => Ok(stream),
        Err(e) if local_socket::nobody_serves(&e) => {
            spawn(home).await?;
            local_socket::connect(&socket)
                .await
                .map_err(|e| SpawnError::Connect(socket, e))
        }
        Err(e) => Err(SpawnError::Connect(socket, e)),
    }
}

/// Waits until no other client starts the service.
pub async fn lock(path: PathBuf) -> Result<File, SpawnError> {
    let result = tokio::task::spawn_blocking({
        let path = path.clone();
        move || {
            let file = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .open(path)?;
            file.lock().map(|()| file)
        }
    })
    .await;
    match result {
        Ok(Ok(file)) => Ok(file),
        Ok(Err(e)) => Err(SpawnError::Lock(path, e)),
        Err(e) => Err(SpawnError::Lock(path, io::Error::other(e))),
    }
}

/// The program that stands beside the running one.
pub fn sibling(name: &str) -> Result<PathBuf, SpawnError> {
    let own = std::env::current_exe().map_err(|e| SpawnError::Start(name.into(), e))?;
    let path = own.with_file_name(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    if path.is_file() {
        Ok(path)
    } else {
        Err(SpawnError::Missing(path))
    }
}

/// Lets a program that is to outlive this one be out of reach of this terminal's Ctrl-C and of its end, and hold nothing of this
/// one's. On unix a program does the first itself, with a session of its own, and files are not inherited.
pub fn stand_alone(command: &mut Command) {
    #[cfg(windows)]
    {
        /// Process Creation Flags of the Win32 API.
        const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
        const CREATE_NO_WINDOW: u32 = 0x0800_0000;
        command.creation_flags(CREATE_NEW_PROCESS_GROUP | CREATE_NO_WINDOW);
        keep_standard_handles();
    }
    #[cfg(not(windows))]
    let _ = command;
}

/// A new process gets each handle that can be inherited, also those that are not its own standard ones; whoever reads this
/// program's output through a pipe would wait for the end of the service. `Stdio::inherit` still works: it duplicates.
#[cfg(windows)]
fn keep_standard_handles() {
    use std::os::windows::io::AsRawHandle;
    use windows_sys::Win32::Foundation::{HANDLE_FLAG_INHERIT, SetHandleInformation};
    for handle in [
        io::stdin().as_raw_handle(),
        io::stdout().as_raw_handle(),
        io::stderr().as_raw_handle(),
    ] {
        // SAFETY: no pointers; a handle that is not one is refused. Then there is nothing to inherit either.
        unsafe { SetHandleInformation(handle, HANDLE_FLAG_INHERIT, 0) };
    }
}

/// The service leaves this session by itself; its standard output is a pipe that says when it serves.
async fn spawn(home: &Home) -> Result<(), SpawnError> {
    let program = sibling("longshore-host")?;
    let log = private_log(home.host_log())?;
    let mut command = Command::new(&program);
    stand_alone(&mut command);
    let mut child = command
        .arg("--home")
        .arg(home.root())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|e| SpawnError::Start(program.clone(), e))?;
    let Some(stdout) = child.stdout.take() else {
        return Err(SpawnError::Silent);
    };
    let mut line = String::new();
    let mut reader = BufReader::new(stdout.take(4096));
    match tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await {
        Ok(Ok(_)) if line.trim() == READY => Ok(()),
        Ok(Ok(_)) => {
            let said = line.trim();
            let why = if said.is_empty() {
                format!("see {}", home.host_log().display())
            } else {
                said.to_owned()
            };
            Err(SpawnError::Refused(why))
        }
        Ok(Err(e)) => Err(SpawnError::Start(program, e)),
        Err(_) => Err(SpawnError::Silent),
    }
}

fn private_log(path: PathBuf) -> Result<File, SpawnError> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&path).map_err(|e| SpawnError::Log(path, e))
}
