//! What can go wrong in the supervisor, and the gRPC status that a client sees for it.

use std::io;

use tonic::{Code, Status};

/// An error of any service. The first variants are containerd's error classes, whose text ends as
/// containerd's does (`image "x": not found`): clients match on code and text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}: not found")]
    NotFound(String),
    #[error("{0}: already exists")]
    AlreadyExists(String),
    #[error("{0}: invalid argument")]
    InvalidArgument(String),
    #[error("{0}: failed precondition")]
    FailedPrecondition(String),
    #[error("{0}: unavailable")]
    Unavailable(String),
    #[error("{0}: not implemented")]
    Unimplemented(String),
    #[error("{0}: out of range")]
    OutOfRange(String),
    #[error("{0}: canceled")]
    Canceled(String),
    #[error("{step}: {source}")]
    Io { step: String, source: io::Error },
    #[error("metadata store: {0}")]
    Store(String),
    #[error("{0}")]
    Other(String),
    /// In somebody else's words: a shim's answer, or what Docker says of a registry.
    #[error("{message}")]
    Foreign { code: Code, message: String },
    #[error("{context}: {source}")]
    Context { context: String, source: Box<Error> },
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn code(&self) -> Code {
        match self {
            Error::NotFound(_) => Code::NotFound,
            Error::AlreadyExists(_) => Code::AlreadyExists,
            Error::InvalidArgument(_) => Code::InvalidArgument,
            Error::FailedPrecondition(_) => Code::FailedPrecondition,
            Error::Unavailable(_) => Code::Unavailable,
            Error::Unimplemented(_) => Code::Unimplemented,
            Error::OutOfRange(_) => Code::OutOfRange,
            Error::Canceled(_) => Code::Cancelled,
            Error::Foreign { code, .. } => *code,
            Error::Context { source, .. } => source.code(),
            Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Code::ResourceExhausted
            }
            Error::Io { .. } | Error::Store(_) | Error::Other(_) => Code::Unknown,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.code() == Code::NotFound
    }

    /// The same error, with what was being done in front.
    pub fn context(self, context: impl Into<String>) -> Self {
        Error::Context {
            context: context.into(),
            source: Box::new(self),
        }
    }
}

impl From<longshore_registry::Error> for Error {
    fn from(error: longshore_registry::Error) -> Self {
        match error {
            longshore_registry::Error::NotFound(text) => Error::NotFound(text),
            longshore_registry::Error::Denied(message) => Error::Foreign {
                code: Code::PermissionDenied,
                message,
            },
            longshore_registry::Error::Unreachable(message) => Error::Foreign {
                code: Code::Unavailable,
                message,
            },
            longshore_registry::Error::InvalidArgument(text) => Error::InvalidArgument(text),
            longshore_registry::Error::Unavailable(text) => Error::Unavailable(text),
            longshore_registry::Error::Other(text) => Error::Other(text),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Status::new(error.code(), error.to_string())
    }
}

/// Names the step of an I/O operation that failed.
pub trait IoStep<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoStep<T> for std::result::Result<T, E> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io {
            step: step(),
            source: known(source.into()),
        })
    }
}

/// A full disk is told in the words that Docker's clients look for.
fn known(error: io::Error) -> io::Error {
    match error.kind() {
        kind @ io::ErrorKind::StorageFull => io::Error::new(kind, "no space left on device"),
        _ => error,
    }
}

/// Runs blocking work (files, hashes, the metadata store) beside the async threads.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(Error::Other(format!("a worker panicked: {panic}"))))
}
