//! The settings that the engine came up with last: what a change that does not work is taken back to.

use longshore_host_api::settings::Stored;
use longshore_host_api::{ApiError, ErrorCode, Home};

use crate::settings_file;

/// Only the way back is lost when it cannot be written: the engine runs.
pub fn remember(home: &Home, stored: &Stored) {
    if let Err(error) = settings_file::save(&home.good_settings_file(), stored) {
        tracing::warn!(%error, "a change of settings that does not work cannot be taken back");
    }
}

/// The folders that the running engine was given, or that were taken from it, since it came up.
pub fn remember_shares(home: &Home, stored: &Stored) {
    if let Some(good) = recall(home) {
        remember(home, &good.with_shares_of(stored));
    }
}

/// `None` where the engine has never come up, or nobody can read what it came up with.
pub fn recall(home: &Home) -> Option<Stored> {
    let file = home.good_settings_file();
    if !file.exists() {
        return None;
    }
    match settings_file::load(&file) {
        Ok(stored) => Some(stored),
        Err(error) => {
            tracing::warn!(%error, "the settings before are lost");
            None
        }
    }
}

/// What the user is told once the engine runs with the settings before.
pub fn rolled_back(names: &str, failure: ApiError) -> ApiError {
    let message = format!(
        "the engine does not start with the new {names}: {}",
        failure.message
    );
    ApiError {
        hint: Some(match failure.hint {
            Some(hint) => format!("{BACK}; for the new ones: {hint}"),
            None => BACK.to_owned(),
        }),
        code: ErrorCode::RolledBack,
        message,
        ..failure
    }
}

const BACK: &str = "the settings before are back, and the engine runs with them";
