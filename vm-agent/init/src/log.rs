//! Init's words, on the kernel's log: they reach the console and `longshore logs`.

use std::fs::OpenOptions;
use std::io::Write;

/// Shown on the console even on a quiet boot.
pub fn error(message: &str) {
    if let Ok(mut kmsg) = OpenOptions::new().write(true).open("/dev/kmsg") {
        // One write is one record; there is nobody to tell when even this fails.
        let _ = kmsg.write_all(format!("<3>longshore-init: {message}\n").as_bytes());
    }
}
