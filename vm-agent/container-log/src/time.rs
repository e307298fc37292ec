//! Times of log lines: RFC 3339 with nanoseconds, in UTC, as Go prints them.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

const NANOS: i128 = 1_000_000_000;

/// Nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The present.
    pub fn now() -> Timestamp {
        SystemTime::now().into()
    }

    /// Seconds (negative before 1970) and nanoseconds (0 to 999 999 999).
    pub fn from_parts(seconds: i64, nanos: u32) -> Timestamp {
        let total = i128::from(seconds) * NANOS + i128::from(nanos);
        Timestamp(total.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
    }

    /// Reads RFC 3339, with any offset and up to nine digits of fraction.
    pub fn parse(text: &str) -> Result<Timestamp> {
        parse(text).ok_or_else(|| Error::BadTime {
            text: text.chars().take(64).collect(),
        })
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Timestamp::from_parts(since.as_secs() as i64, since.subsec_nanos()),
            Err(_) => Timestamp(0),
        }
    }
}

impl fmt::Display for Timestamp {
    /// Like Go's `RFC3339Nano`, which drops the fraction's trailing zeros.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(NANOS as i64);
        let nanos = self.0.rem_euclid(NANOS as i64);
        let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
        let of_day = seconds.rem_euclid(86_400);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )?;
        if nanos != 0 {
            let digits = format!("{nanos:09}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let part = text.get(from..to)?;
        part.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| part.parse().ok())?
    };
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if bytes.len() < 20 || separators.iter().any(|(at, b)| bytes[*at] != *b) {
        return None;
    }
    if !matches!(bytes[10], b'T' | b't' | b' ') {
        return None;
    }
    let (month, day) = (number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day);
    if !in_range || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = &text[19..];
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > 9 {
            return None;
        }
        nanos = fraction[..digits].parse::<u32>().ok()? * 10u32.pow(9 - digits as u32);
        rest = &fraction[digits..];
    }
    let seconds =
        days_from_civil(number(0, 4)?, month, day) * 86_400 + hour * 3600 + minute * 60 + second
            - parse_offset(rest)?;
    Some(Timestamp::from_parts(seconds, nanos))
}

/// Seconds east of UTC of `Z` or `±hh:mm`.
fn parse_offset(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text[1..].split_once(':')?;
    let part = |text: &str| -> Option<i64> {
        (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
    };
    Some(sign * (part(hours)? * 3600 + part(minutes)? * 60))
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar. Years begin in March, so
/// that the leap day is the last one.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for text in [
            "1970-01-01T00:00:00Z",
            "2000-02-29T23:59:59.1Z",
            "2026-11-23T18:30:00.000000001Z",
            "1969-12-31T23:59:59.999999999Z",
            "2100-03-01T00:00:00.12Z",
        ] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn offsets() {
        let utc = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        assert_eq!(Timestamp::parse("2026-01-01T02:30:00+02:30").unwrap(), utc);
        assert_eq!(Timestamp::parse("2025-12-31T23:00:00-01:00").unwrap(), utc);
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "2026-01-01",
            "2026-13-01T00:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+1",
        ] {
            assert!(Timestamp::parse(text).is_err(), "{text}");
        }
    }
}
