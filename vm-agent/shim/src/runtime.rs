//! The OCI runtime's command line (runc's, as every runtime speaks it).

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::error::{Error, Result, Step};
use crate::options::Options;
use crate::reaper::Reaper;

/// A runtime's log and stderr are read up to this size.
const MAX_MESSAGE: u64 = 64 << 10;

/// The three descriptors that the container's process inherits through the runtime.
#[derive(Debug)]
pub struct ChildStdio {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Calls one container's runtime.
#[derive(Debug)]
pub struct Runtime {
    pub options: Options,
    pub id: String,
    pub bundle: PathBuf,
    /// See [`crate::spec::Traits`].
    pub own_oom_score: bool,
    pub reaper: Reaper,
}

/// One call: what is asked, with which descriptors, on whose behalf.
pub struct Call<'a> {
    /// The verb, for the error's message.
    pub command: &'static str,
    pub args: Vec<OsString>,
    /// The container's stdio, or nothing.
    pub stdio: Option<ChildStdio>,
    pub traceparent: Option<&'a str>,
}

impl Runtime {
    /// Runs the runtime to its end; an error carries the runtime's own message.
    pub async fn run(&self, call: Call<'_>) -> Result<()> {
        let log = self.bundle.join("log.json");
        // Only this call's messages shall be found in it.
        let log_start = fs::metadata(&log).map_or(0, |meta| meta.len());
        let mut command = self.command(&log);
        command.args(&call.args);
        if let Some(traceparent) = call.traceparent {
            command.env("TRACEPARENT", traceparent);
        }
        let mut stderr = None;
        match call.stdio {
            Some(stdio) => {
                command
                    .stdin(stdio.stdin)
                    .stdout(stdio.stdout)
                    .stderr(stdio.stderr);
            }
            None => {
                // A file, not a pipe: nobody has to read it while the runtime runs.
                let file = temporary_file().step("make a file for the runtime's messages")?;
                let copy = file
                    .try_clone()
                    .step("make a file for the runtime's messages")?;
                command
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(copy);
                stderr = Some(file);
            }
        }
        let (_, exit) = self.reaper.spawn(&mut command)?;
        // Closes our copies of the container's descriptors.
        drop(command);
        let exit = exit
            .await
            .map_err(io::Error::other)
            .step("wait for the runtime")?;
        if exit.code == 0 {
            return Ok(());
        }
        let message = last_error(&log, log_start)
            .or_else(|| stderr.and_then(read_from_start))
            .unwrap_or_else(|| format!("{} ended with {}", self.options.binary, exit.code));
        Err(Error::Runtime {
            command: call.command,
            message,
        })
    }

    /// A call without stdio and options: `VERB ID`.
    pub async fn simple(&self, verb: &'static str, traceparent: Option<&str>) -> Result<()> {
        let args = vec![verb.into(), (&self.id).into()];
        self.run(Call {
            command: verb,
            args,
            stdio: None,
            traceparent,
        })
        .await
    }

    fn command(&self, log: &Path) -> Command {
        let mut command = Command::new(find_binary(&self.options.binary));
        command.arg("--root").arg(&self.options.root);
        command.arg("--log").arg(log).args(["--log-format", "json"]);
        if self.options.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        if !self.own_oom_score {
            // SAFETY: the closure only opens, writes and closes a file, which is async-signal-safe. Without it the standard
            // library can use vfork, which is twice as fast.
            unsafe { command.pre_exec(reset_oom_score) };
        }
        command
    }
}

/// The shim is protected from the out-of-memory killer; what it starts must not inherit that.
fn reset_oom_score() -> io::Result<()> {
    // SAFETY: plain system calls on a constant path and a constant buffer.
    unsafe {
        let fd = libc::open(
            c"/proc/self/oom_score_adj".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        );
        if fd >= 0 {
            libc::write(fd, b"0".as_ptr().cast(), 1);
            libc::close(fd);
        }
    }
    Ok(())
}

/// A path is taken as it is; a name is looked for in `PATH`, then in `/usr/bin`.
pub fn find_binary(binary: &str) -> PathBuf {
    if binary.contains('/') {
        return binary.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    dirs.extend(["/usr/bin".into(), "/usr/sbin".into()]);
    dirs.into_iter()
        .map(|dir| dir.join(binary))
        .find(|p| p.is_file())
        .unwrap_or(binary.into())
}

fn temporary_file() -> io::Result<File> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    Ok(memfd_create(c"runtime-stderr", MFdFlags::MFD_CLOEXEC)?.into())
}

fn read_from_start(mut file: File) -> Option<String> {
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(MAX_MESSAGE).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The last message of level error in a runtime's JSON log.
fn last_error(log: &Path, start: u64) -> Option<String> {
    #[derive(Deserialize)]
    struct Entry {
        level: String,
        msg: String,
    }
    let mut file = File::open(log).ok()?;
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut text = String::new();
    file.take(MAX_MESSAGE).read_to_string(&mut text).ok()?;
    let mut entries = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Entry>(line).ok());
    entries
        .rfind(|e| matches!(e.level.as_str(), "error" | "fatal"))
        .map(|e| e.msg)
}

/// Builds an argument list from things that are not all of one type.
pub fn args<const N: usize>(list: [&dyn AsRef<OsStr>; N]) -> Vec<OsString> {
    list.iter().map(|arg| arg.as_ref().to_owned()).collect()
}
