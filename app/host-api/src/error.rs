//! The one error shape of the API: a code for programs, and text for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of failure it is; the CLI derives its exit code from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request itself is wrong: a bad value, an unknown setting.
    Invalid,
    /// The thing asked for does not exist.
    NotFound,
    /// The request does not fit the present state, for example a shell in a stopped VM.
    Conflict,
    /// The caller may not ask for this.
    Forbidden,
    /// The machine lacks something: QEMU, disk space, memory.
    Unavailable,
    /// The VM could not be started.
    StartFailed,
    /// The engine did not start with new settings: those before are back, and it runs with them.
    RolledBack,
    /// The service could not be reached or started.
    NoService,
    /// The service takes requests and does not answer them.
    NoAnswer,
    /// Anything else.
    Internal,
}

impl ErrorCode {
    /// HTTP status that carries the error.
    pub fn http_status(self) -> u16 {
        match self {
            ErrorCode::Invalid => 400,
            ErrorCode::NotFound => 404,
            ErrorCode::Forbidden => 403,
            ErrorCode::Conflict => 409,
            ErrorCode::Unavailable | ErrorCode::NoService => 503,
            ErrorCode::NoAnswer => 504,
            ErrorCode::StartFailed | ErrorCode::RolledBack | ErrorCode::Internal => 500,
        }
    }

    /// Exit code of the command line: 2 for what the user can mend by typing something else.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorCode::Invalid => 2,
            ErrorCode::NotFound => 3,
            ErrorCode::Conflict => 4,
            ErrorCode::Unavailable => 5,
            ErrorCode::StartFailed => 6,
            ErrorCode::NoService | ErrorCode::NoAnswer => 7,
            ErrorCode::RolledBack => 8,
            ErrorCode::Forbidden | ErrorCode::Internal => 1,
        }
    }
}

/// A failed request: what failed and why, what to do next, and the log lines that show it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ApiError {
    pub code: ErrorCode,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub hint: Option<String>,
    /// The stage of the start that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub stage: Option<String>,
    /// The decisive lines of the logs, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

impl ApiError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            stage: None,
            log: Vec::new(),
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Invalid, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Conflict, message)
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn with_log(mut self, log: Vec<String>) -> Self {
        self.log = log;
        self
    }

    pub fn at_stage(mut self, stage: impl Into<String>) -> Self {
        self.stage = Some(stage.into());
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}
