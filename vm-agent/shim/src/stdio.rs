//! Where a process's stdin, stdout and stderr go (containerd's stdio URIs).
//!
//! Without a terminal the container writes to the client's FIFOs themselves: no byte of output
//! passes through the shim. The shim holds each FIFO open for reading and writing, so that a
//! client which dies gives the container neither an end of input nor a broken pipe; the container
//! waits, as under containerd's shim. Stdin is copied, from after the runtime's `create`: the
//! client's first write waits until then, and clients (`ctr`) rely on that for their `CloseIO`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use longshore_container_log::{LogConfig, LogTask, StreamKind};
use nix::fcntl::OFlag;
use nix::pty::Winsize;
use nix::unistd::{Gid, Uid, fchown, pipe2};
use tokio::task::JoinHandle;

use crate::copy::{self, Target};
use crate::error::{Result, Step};
use crate::logger;
use crate::runtime::ChildStdio;

/// The stdio part of a create or exec request.
#[derive(Debug, Clone, Default)]
pub struct StdioSpec {
    pub terminal: bool,
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
}

/// On whose behalf stdio is opened.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    pub id: &'a str,
    pub namespace: &'a str,
    pub uid: u32,
    pub gid: u32,
}

/// The shim's side of a process's stdio.
#[derive(Debug, Default)]
pub struct Stdio {
    /// The client's FIFO; empty for none.
    stdin: String,
    /// What the process reads; goes to the copy.
    stdin_pipe: Option<File>,
    /// Keeps the FIFO's writing side open until `CloseIO`.
    stdin_holder: Option<File>,
    stdin_closed: bool,
    /// Keep output FIFOs open until the process is deleted.
    holders: Vec<File>,
    log: Option<LogTask>,
    /// Where a terminal's output goes, until the terminal comes.
    terminal_output: Option<Target>,
    console: Option<OwnedFd>,
    output_copy: Option<JoinHandle<()>>,
    stdin_copy: Option<JoinHandle<()>>,
}

impl Stdio {
    /// Opens what `spec` names. Processes with a terminal get no descriptors.
    pub async fn open(spec: &StdioSpec, owner: Owner<'_>) -> Result<(Stdio, Option<ChildStdio>)> {
        let path = spec.stdin.strip_prefix("fifo://").unwrap_or(&spec.stdin);
        let mut stdio = Stdio {
            stdin: path.to_owned(),
            ..Stdio::default()
        };
        if spec.terminal {
            stdio.terminal_output = stdio.open_terminal_output(&spec.stdout, owner).await?;
            return Ok((stdio, None));
        }
        let stdin = match stdio.stdin.is_empty() {
            true => open_null()?,
            false => {
                let (read, write) = pipe(owner)?;
                stdio.stdin_pipe = Some(write.into());
                read
            }
        };
        let (stdout, stderr) = match logger::scheme(&spec.stdout) {
            Some(uri) => stdio.open_logger(uri, owner).await?,
            None => (
                stdio.open_output(&spec.stdout)?,
                stdio.open_output(&spec.stderr)?,
            ),
        };
        Ok((
            stdio,
            Some(ChildStdio {
                stdin,
                stdout,
                stderr,
            }),
        ))
    }

    /// Begins to copy the client's input, once the process exists.
    pub fn connect_stdin(&mut self) -> Result<()> {
        if self.stdin.is_empty() {
            return Ok(());
        }
        let path = self.stdin.as_str();
        let target = match (self.stdin_pipe.take(), &self.console) {
            (Some(pipe), _) => pipe,
            (None, Some(console)) => console.try_clone().step("duplicate the terminal")?.into(),
            (None, None) => return Ok(()),
        };
        if !self.stdin_closed {
            let both = OpenOptions::new().read(true).write(true).open(path);
            self.stdin_holder = Some(both.at("open stdin", path)?);
        }
        let mut reading = OpenOptions::new();
        reading.read(true).custom_flags(libc::O_NONBLOCK);
        let fifo = reading.open(path).at("open stdin", path)?;
        let from = copy::source(fifo).step("watch stdin")?;
        let to = Target::new(target).step("watch the process's stdin")?;
        self.stdin_copy = Some(tokio::spawn(copy::copy(from, to)));
        Ok(())
    }

    fn open_output(&mut self, uri: &str) -> Result<OwnedFd> {
        if uri.is_empty() {
            return open_null();
        }
        if let Some(path) = uri.strip_prefix("file://") {
            return Ok(open_file(Path::new(path))?.into());
        }
        let path = uri.strip_prefix("fifo://").unwrap_or(uri);
        let both = OpenOptions::new().read(true).write(true).open(path);
        self.holders.push(both.at("open output", path)?);
        Ok(OpenOptions::new()
            .write(true)
            .open(path)
            .at("open output", path)?
            .into())
    }

    /// Our log writer in this process, or any other as containerd's binary logger.
    async fn open_logger(&mut self, uri: &str, owner: Owner<'_>) -> Result<(OwnedFd, OwnedFd)> {
        let (stdout, stdout_end) = pipe(owner)?;
        let (stderr, stderr_end) = pipe(owner)?;
        if LogConfig::is_ours(uri) {
            let mut log = LogTask::start(&LogConfig::from_uri(uri)?)?;
            log.pump(StreamKind::Stdout, stdout)?;
            log.pump(StreamKind::Stderr, stderr)?;
            self.log = Some(log);
        } else {
            logger::spawn(uri, owner, stdout, stderr).await?;
        }
        Ok((stdout_end, stderr_end))
    }

    async fn open_terminal_output(
        &mut self,
        uri: &str,
        owner: Owner<'_>,
    ) -> Result<Option<Target>> {
        if LogConfig::is_ours(uri) {
            self.log = Some(LogTask::start(&LogConfig::from_uri(uri)?)?);
            return Ok(None);
        }
        let output = match logger::scheme(uri) {
            Some(uri) => self.open_logger(uri, owner).await?.0,
            None => self.open_output(uri)?,
        };
        Ok(Some(
            Target::new(output.into()).step("watch the terminal's output")?,
        ))
    }

    /// Connects a terminal that the runtime has handed over.
    pub fn connect_console(&mut self, master: OwnedFd) -> Result<()> {
        let duplicate = || master.try_clone().step("duplicate the terminal");
        if let Some(log) = &mut self.log {
            log.pump(StreamKind::Stdout, duplicate()?)?;
        }
        if let Some(output) = self.terminal_output.take() {
            let from = copy::source(duplicate()?.into()).step("watch the terminal")?;
            self.output_copy = Some(tokio::spawn(copy::copy(from, output)));
        }
        self.console = Some(master);
        Ok(())
    }

    /// The container sees the end of its input once the client has closed its side too.
    pub fn close_stdin(&mut self) {
        self.stdin_closed = true;
        self.stdin_holder = None;
    }

    /// Sets the terminal's size; without a terminal there is nothing to do (as containerd's shims have it).
    pub fn resize(&self, width: u32, height: u32) -> Result<()> {
        let Some(console) = &self.console else {
            return Ok(());
        };
        let clamp = |value: u32| value.min(u16::MAX.into()) as u16;
        let size = Winsize {
            ws_row: clamp(height),
            ws_col: clamp(width),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        nix::ioctl_write_ptr_bad!(set_size, libc::TIOCSWINSZ, Winsize);
        // SAFETY: `size` lives during the call and is what this ioctl reads.
        unsafe { set_size(std::os::fd::AsRawFd::as_raw_fd(console), &size) }
            .step("resize the terminal")?;
        Ok(())
    }

    /// After the process's end: takes the rest of its output, then lets go of everything. What
    /// readers still have to read is left in the returned log writer.
    pub async fn close(&mut self, patience: Duration) -> Option<LogTask> {
        if let Some(log) = &mut self.log {
            log.flush(patience).await;
        }
        if let Some(copy) = &mut self.output_copy {
            // It ends by itself when the terminal's slave is closed.
            drop(tokio::time::timeout(patience, copy).await);
        }
        let Stdio {
            log,
            output_copy,
            stdin_copy,
            ..
        } = std::mem::take(self);
        output_copy
            .iter()
            .chain(&stdin_copy)
            .for_each(JoinHandle::abort);
        log
    }
}

fn open_null() -> Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/null");
    Ok(file.at("open", "/dev/null")?.into())
}

fn open_file(path: &Path) -> Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).at("create", dir)?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .at("open", path)
}

/// A pipe whose writing end the container's user may reopen.
fn pipe(owner: Owner<'_>) -> Result<(OwnedFd, OwnedFd)> {
    let make = || -> io::Result<(OwnedFd, OwnedFd)> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        if (owner.uid, owner.gid) != (0, 0) {
            fchown(
                &write,
                Some(Uid::from_raw(owner.uid)),
                Some(Gid::from_raw(owner.gid)),
            )?;
        }
        Ok((read, write))
    };
    make().step("make a pipe")
}
