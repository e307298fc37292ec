//! What can stop a build, in the classic builder's words.

use std::io;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("dockerfile parse error on line {line}: {why}")]
    Parse { line: usize, why: String },
    #[error("the Dockerfile ({0}) cannot be empty")]
    Empty(String),
    #[error("Cannot locate specified Dockerfile: {0}")]
    NoDockerfile(String),
    /// An instruction that says what cannot be done; the text is Docker's.
    #[error("{0}")]
    Instruction(String),
    /// The CLI exits with `code`.
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Command { command: String, code: i32 },
    #[error("{instruction} failed: {why}")]
    Copy { instruction: String, why: String },
    /// What the engine says of its own work.
    #[error("{0}")]
    Engine(String),
    #[error("{step}: {source}")]
    Io { step: String, source: io::Error },
    #[error("Build cancelled")]
    Cancelled,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn instruction(text: impl Into<String>) -> Self {
        Error::Instruction(text.into())
    }

    pub fn io(step: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let step = step.into();
        move |source| Error::Io { step, source }
    }
}
