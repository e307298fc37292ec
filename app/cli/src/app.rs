//! The window, a program of its own that outlives this one.

use std::process::{ExitCode, Stdio};

use longshore_host_api::{ApiError, ErrorCode, Home, spawn};

pub fn open(home: &Home) -> Result<ExitCode, ApiError> {
    let missing = |why: String| {
        ApiError::new(ErrorCode::Unavailable, why)
            .with_hint("show its pages in a browser instead: longshore ui")
    };
    if !has_display() {
        return Err(missing(
            "there is no display to open a window on: neither DISPLAY nor WAYLAND_DISPLAY is set"
                .into(),
        ));
    }
    let program = spawn::sibling("longshore-desktop").map_err(|e| missing(e.to_string()))?;
    let mut command = tokio::process::Command::new(&program);
    spawn::stand_alone(&mut command);
    // Ctrl-C in this terminal is not meant for the window.
    #[cfg(unix)]
    command.process_group(0);
    command
        .arg("--home")
        .arg(home.root())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| ApiError::internal(format!("cannot start {}: {e}", program.display())))?;
    Ok(ExitCode::SUCCESS)
}

/// Only Linux can be without.
fn has_display() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    !cfg!(target_os = "linux") || set("DISPLAY") || set("WAYLAND_DISPLAY")
}
