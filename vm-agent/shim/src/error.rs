//! What can fail in the shim, and which status the caller sees.

use std::io;
use std::path::PathBuf;

use ttrpc::Code;

/// Result of the shim.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One variant for each step that can fail.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} {id}: not found")]
    NotFound { what: &'static str, id: String },
    #[error("{what} {id}: already exists")]
    AlreadyExists { what: &'static str, id: String },
    #[error("cannot {action} a {status} process")]
    WrongState {
        action: &'static str,
        status: &'static str,
    },
    #[error("{0} is not implemented")]
    Unimplemented(&'static str),
    #[error("{what} is not valid: {why}")]
    Invalid { what: &'static str, why: String },
    #[error("cannot {step} {path}: {source}")]
    File {
        step: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot {step}: {source}")]
    System {
        step: &'static str,
        source: io::Error,
    },
    #[error("OCI runtime {command} failed: {message}")]
    Runtime {
        command: &'static str,
        message: String,
    },
    #[error("cannot log the output: {0}")]
    Log(#[from] longshore_container_log::Error),
    #[error("logger {path} has not become ready")]
    LoggerNotReady { path: PathBuf },
}

impl Error {
    fn code(&self) -> Code {
        match self {
            Error::NotFound { .. } => Code::NOT_FOUND,
            Error::AlreadyExists { .. } => Code::ALREADY_EXISTS,
            Error::WrongState { .. } => Code::FAILED_PRECONDITION,
            Error::Unimplemented(_) => Code::UNIMPLEMENTED,
            Error::Invalid { .. } => Code::INVALID_ARGUMENT,
            _ => Code::UNKNOWN,
        }
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        // The sources are part of the messages: ttrpc carries one string.
        let mut message = error.to_string();
        if let Error::Log(inner) = &error {
            let source = std::error::Error::source(inner);
            message.extend(source.map(|source| format!(": {source}")));
        }
        ttrpc::Error::RpcStatus(ttrpc::get_status(error.code(), message))
    }
}

/// Adds the step and the path to an I/O error.
pub trait Step<T> {
    fn step(self, step: &'static str) -> Result<T>;
    fn at(self, step: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T> {
        self.map_err(|e| Error::System {
            step,
            source: e.into(),
        })
    }

    fn at(self, step: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|e| Error::File {
            step,
            path: path.into(),
            source: e.into(),
        })
    }
}
