//! What starts when the user logs in: the window in its tray, which starts the engine.

use std::path::Path;

use auto_launch::{AutoLaunchBuilder, LinuxLaunchMode, MacOSLaunchMode, WindowsEnableMode};
use longshore_host_api::{ApiError, Home, spawn};

/// Enters this instance into the desktop's list, or takes it out.
pub fn set(home: &Home, on: bool) -> Result<(), ApiError> {
    let program = spawn::sibling("longshore-desktop").map_err(|e| {
        ApiError::conflict(format!("the window cannot start at login: {e}"))
            .with_hint("install the window, or start the engine at login by: longshore start")
    })?;
    let mut builder = AutoLaunchBuilder::new();
    builder
        .set_app_name(&home.name())
        .set_app_path(&quoted(&program))
        .set_linux_launch_mode(LinuxLaunchMode::XdgAutostart)
        .set_macos_launch_mode(MacOSLaunchMode::LaunchAgent)
        .set_windows_enable_mode(WindowsEnableMode::CurrentUser);
    let root = quoted(home.root());
    match home.is_default() {
        true => builder.set_args(&["--hidden"]),
        false => builder.set_args(&["--hidden", "--home", &root]),
    };
    let entry = builder.build().and_then(|entry| match on {
        true => entry.enable(),
        // Taking out what is not there is an error on some systems.
        false if entry.is_enabled()? => entry.disable(),
        false => Ok(()),
    });
    entry.map_err(|e| ApiError::internal(format!("the start at login could not be changed: {e}")))
}

/// A word of a command line, as the desktop's list wants it.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    if cfg!(target_os = "macos") {
        return path;
    }
    if cfg!(windows) {
        return format!("\"{path}\"");
    }
    // Desktop Entry Specification, "The Exec key": the string's own escapes, those of the quotes, and field codes.
    let mut word = String::new();
    for c in path.chars() {
        match c {
            '\\' => word.push_str(r"\\\\"),
            '"' | '`' | '$' => word.extend([r"\\", &c.to_string()]),
            '%' => word.push_str("%%"),
            c => word.push(c),
        }
    }
    format!("\"{word}\"")
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_one_word() {
        for (path, want) in [
            ("/opt/long shore/x", r#""/opt/long shore/x""#),
            ("/a$b", r#""/a\\$b""#),
            ("/100%", r#""/100%%""#),
        ] {
            assert_eq!(quoted(Path::new(path)), want);
        }
    }
}
