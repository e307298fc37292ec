//! HEALTHCHECK's flags and forms.

use crate::config::Health;
use crate::dockerfile::Instruction;
use crate::error::{Error, Result};

pub fn parse(instruction: &Instruction) -> Result<Health> {
    instruction.allow_flags(&[
        "interval",
        "timeout",
        "start-period",
        "start-interval",
        "retries",
    ])?;
    let (kind, rest) = instruction
        .rest
        .split_once(char::is_whitespace)
        .unwrap_or((&instruction.rest, ""));
    let rest = rest.trim();
    let bad = |why: String| Error::Parse {
        line: instruction.line,
        why,
    };
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if rest.is_empty() => Ok(Health {
            test: vec!["NONE".into()],
            ..Health::default()
        }),
        "NONE" => Err(bad("HEALTHCHECK NONE takes no arguments".into())),
        "CMD" if rest.is_empty() => Err(bad("missing command after HEALTHCHECK CMD".into())),
        "CMD" => {
            let test = match serde_json::from_str::<Vec<String>>(rest) {
                Ok(words) => [vec!["CMD".to_owned()], words].concat(),
                Err(_) => vec!["CMD-SHELL".into(), rest.to_owned()],
            };
            let time = |name: &str| match instruction.flag(name) {
                None => Ok(0),
                Some(text) => duration(text).map_err(|why| bad(format!("{why} for flag {name}"))),
            };
            let retries = match instruction.flag("retries") {
                None => 0,
                Some(text) => text.parse().ok().filter(|n| *n >= 0).ok_or_else(|| {
                    bad(format!(
                        "--retries cannot be negative or no number ({text})"
                    ))
                })?,
            };
            Ok(Health {
                test,
                interval: time("interval")?,
                timeout: time("timeout")?,
                start_period: time("start-period")?,
                start_interval: time("start-interval")?,
                retries,
            })
        }
        other => Err(bad(format!(
            "Unknown type {other:?} in HEALTHCHECK (try CMD)"
        ))),
    }
}

/// Go's durations (`1m30s`, `500ms`), in nanoseconds; at least a millisecond, as Docker wants it.
pub fn duration(text: &str) -> Result<i64, String> {
    let bad = || format!("invalid duration {text:?}");
    let (mut total, mut rest) = (0f64, text);
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let len = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        total += number
            * match &rest[..len] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return Err(bad()),
            };
        rest = &rest[len..];
    }
    match total {
        0.0 if text == "0s" => Ok(0),
        total if (1e6..9e18).contains(&total) => Ok(total as i64),
        _ => Err(format!("interval {text:?} cannot be less than 1ms")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::instruction;

    #[test]
    fn both_forms_and_none() {
        let health = |text: &str| parse(&instruction(text, 1).unwrap());
        let shell =
            health("HEALTHCHECK --interval=1m30s --retries=2 CMD curl -f x || exit 1").unwrap();
        assert_eq!(shell.test, ["CMD-SHELL", "curl -f x || exit 1"]);
        assert_eq!((shell.interval, shell.retries), (90_000_000_000, 2));
        assert_eq!(
            health("HEALTHCHECK CMD [\"a\",\"b\"]").unwrap().test,
            ["CMD", "a", "b"]
        );
        assert_eq!(health("HEALTHCHECK NONE").unwrap().test, ["NONE"]);
        for bad in [
            "HEALTHCHECK FOO x",
            "HEALTHCHECK CMD",
            "HEALTHCHECK --interval=x CMD a",
        ] {
            assert!(health(bad).is_err(), "{bad}");
        }
    }
}
