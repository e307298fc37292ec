//! What can go wrong between us and a registry.

/// The texts end as containerd's do (`image "x": not found`): clients match on them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}: not found")]
    NotFound(String),
    #[error("{0}")]
    Denied(String),
    /// In Docker's words, without a class at the end.
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}: invalid argument")]
    InvalidArgument(String),
    #[error("{0}: unavailable")]
    Unavailable(String),
    #[error("{0}")]
    Other(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
