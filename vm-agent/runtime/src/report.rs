//! Where messages go: `--log` in the shape that shims read, and standard error.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::OnceLock;

use crate::cli::Global;
use crate::clock;

static LOG: OnceLock<(Option<String>, bool)> = OnceLock::new();

pub fn set_up(global: &Global) {
    let _ = LOG.set((global.log.clone(), global.log_json));
}

pub fn warn(message: &str) {
    log("warning", message);
}

pub fn error(message: &str) {
    log("error", message);
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// One line for each message, appended. containerd's shim takes the last error's `msg` from the
/// JSON form for what the user reads.
fn log(level: &str, message: &str) {
    let Some((Some(path), json)) = LOG.get() else {
        return;
    };
    let time = clock::now();
    let line = if *json {
        serde_json::json!({"level": level, "msg": message, "time": time}).to_string()
    } else {
        format!("time={time:?} level={level} msg={message:?}")
    };
    if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path) {
        let _ = writeln!(file, "{line}");
    }
}
