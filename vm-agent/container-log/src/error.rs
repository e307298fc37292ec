//! What can fail in writing, attaching to and reading a container's log.

use std::io;
use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One variant for each step that can fail.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("log URI {uri:?} is not binary://…/longshore-log?…")]
    NotOurUri { uri: String },
    #[error("log setting {key} is missing")]
    MissingSetting { key: &'static str },
    #[error("log setting {key}={value:?} is not valid")]
    BadSetting { key: String, value: String },
    #[error("cannot open log file {path}")]
    OpenLog { path: PathBuf, source: io::Error },
    #[error("cannot rotate log file {path}")]
    Rotate { path: PathBuf, source: io::Error },
    #[error("cannot read log file {path}")]
    ReadLog { path: PathBuf, source: io::Error },
    #[error("cannot listen on attach socket {path}")]
    Listen { path: PathBuf, source: io::Error },
    #[error("cannot connect to attach socket {path}")]
    Connect { path: PathBuf, source: io::Error },
    #[error("attach connection broke")]
    Attach { source: io::Error },
    #[error("attach peer broke the protocol: {what}")]
    Protocol { what: &'static str },
    #[error("cannot watch an output descriptor of the container")]
    Register { source: io::Error },
    #[error("time {text:?} is not RFC 3339")]
    BadTime { text: String },
}
