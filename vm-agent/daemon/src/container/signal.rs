//! Signal names and numbers as `docker kill -s` and `STOPSIGNAL` take them.

use crate::error::{ApiError, ApiResult};
use nix::sys::signal::Signal;
use std::str::FromStr;

pub const TERM: u32 = 15;
pub const KILL: u32 = 9;

/// `9`, `KILL`, `SIGKILL`, `rtmin+3`; 400 otherwise.
pub fn parse(text: &str) -> ApiResult<u32> {
    let invalid = || ApiError::bad_request(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return match u32::try_from(number) {
            Ok(known @ 1..=64) => Ok(known),
            Ok(0) => Err(invalid()),
            _ => Err(ApiError::bad_request(format!(
                "the linux daemon does not support signal {number}"
            ))),
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return offset(rest, '+')
            .map(|n| 34 + n)
            .filter(|n| *n <= 64)
            .ok_or_else(invalid);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return offset(rest, '-').map(|n| 64 - n).ok_or_else(invalid);
    }
    Signal::from_str(&format!("SIG{name}"))
        .map(|signal| signal as u32)
        .map_err(|_| invalid())
}

fn offset(text: &str, sign: char) -> Option<u32> {
    match text {
        "" => Some(0),
        _ => text.strip_prefix(sign)?.parse().ok().filter(|n| *n <= 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let table = [
            ("9", Some(9)),
            ("KILL", Some(9)),
            ("sigterm", Some(15)),
            ("RTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("0", None),
            ("65", None),
            ("ZZ", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text).ok(), expected, "{text}");
        }
    }
}
