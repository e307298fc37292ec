//! The `filters` query parameter: a JSON object of names to values, in both of Docker's shapes.

use crate::error::{ApiError, ApiResult};
use crate::event::parse_time;
use chrono::{NaiveDate, NaiveDateTime};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Values asked for under each filter name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Wire {
    /// API 1.22 and later: `{"status": {"running": true}}`.
    Maps(BTreeMap<String, BTreeMap<String, bool>>),
    /// Older clients and many scripts: `{"status": ["running"]}`.
    Lists(BTreeMap<String, Vec<String>>),
}

impl Filters {
    pub fn parse(text: Option<&str>) -> ApiResult<Self> {
        let text = match text.map(str::trim) {
            None | Some("") => return Ok(Filters::default()),
            Some(text) => text,
        };
        let wire: Wire =
            serde_json::from_str(text).map_err(|_| ApiError::bad_request("invalid filter"))?;
        Ok(Filters(match wire {
            Wire::Lists(lists) => lists,
            Wire::Maps(maps) => maps
                .into_iter()
                .map(|(name, values)| {
                    let wanted = values.into_iter().filter(|(_, wanted)| *wanted);
                    (name, wanted.map(|(value, _)| value).collect())
                })
                .collect(),
        }))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// 400 for a filter that this endpoint does not know.
    pub fn allow(&self, names: &[&str]) -> ApiResult<()> {
        match self.0.keys().find(|name| !names.contains(&name.as_str())) {
            Some(name) => Err(ApiError::bad_request(format!("invalid filter '{name}'"))),
            None => Ok(()),
        }
    }

    /// The values under `name`; empty when the filter was not given.
    pub fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn has(&self, name: &str) -> bool {
        !self.values(name).is_empty()
    }

    /// Whether no value was asked for, or one of them is `candidate`.
    pub fn exact(&self, name: &str, candidate: &str) -> bool {
        let values = self.values(name);
        values.is_empty() || values.iter().any(|value| value == candidate)
    }

    /// Whether no value was asked for, or `accepts` one of them.
    pub fn any(&self, name: &str, accepts: impl FnMut(&String) -> bool) -> bool {
        let values = self.values(name);
        values.is_empty() || values.iter().any(accepts)
    }

    /// `invalid filter 'dangling=[maybe]'`
    fn invalid(&self, name: &str) -> ApiError {
        let values = self.values(name).join(" ");
        ApiError::bad_request(format!("invalid filter '{name}=[{values}]'"))
    }

    /// The boolean filter `name` (`dangling=true`).
    pub fn boolean(&self, name: &str) -> ApiResult<Option<bool>> {
        match self.values(name) {
            [] => Ok(None),
            [value] => match value.as_str() {
                "1" | "true" | "True" => Ok(Some(true)),
                "0" | "false" | "False" => Ok(Some(false)),
                _ => Err(self.invalid(name)),
            },
            _ => Err(self.invalid(name)),
        }
    }

    /// The `until` filter of prunes in nanoseconds of the epoch: a time, or a duration back from now.
    pub fn until(&self) -> ApiResult<Option<i64>> {
        let text = match self.values("until") {
            [] => return Ok(None),
            [text] => text,
            _ => {
                return Err(ApiError::bad_request(
                    "more than one until filter specified",
                ));
            }
        };
        let now = chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default();
        let back = duration(text).map(|duration| now.saturating_sub(duration));
        let found = back
            .or_else(|| parse_time(text).ok())
            .or_else(|| date(text));
        found.map(Some).ok_or_else(|| {
            ApiError::bad_request(format!(
                "failed to parse value as time or duration: {text:?}"
            ))
        })
    }

    /// Whether `labels` satisfy every `label` filter (`KEY` or `KEY=VALUE`), and no `label!` filter.
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let holds = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        };
        self.values("label").iter().all(holds) && !self.values("label!").iter().any(holds)
    }
}

/// A duration of Go's (`1h30m`, `1.5s`), in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[letters..];
    }
    (!text.is_empty()).then_some(total as i64)
}

/// A date with or without a time of day, in the guest's time zone, which is UTC.
fn date(text: &str) -> Option<i64> {
    let times = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M"];
    let time = times
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    let day = || {
        NaiveDate::parse_from_str(text, "%Y-%m-%d")
            .ok()?
            .and_hms_opt(0, 0, 0)
    };
    time.or_else(day)?.and_utc().timestamp_nanos_opt()
}

/// What Go's `strconv.ParseBool` reads.
pub fn go_boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_shapes() {
        let table = [
            r#"{"status":["running","paused"]}"#,
            r#"{"status":{"running":true,"paused":true,"dead":false}}"#,
        ];
        for text in table {
            let filters = Filters::parse(Some(text)).unwrap();
            let mut values = filters.values("status").to_vec();
            values.sort();
            assert_eq!(values, ["paused", "running"], "{text}");
            assert!(filters.exact("status", "running") && !filters.exact("status", "dead"));
            assert!(filters.exact("name", "anything"));
            assert!(filters.allow(&["status"]).is_ok());
            assert_eq!(
                filters.allow(&["name"]).unwrap_err().message,
                "invalid filter 'status'"
            );
        }
        assert!(Filters::parse(Some("[]")).is_err());
        assert!(Filters::parse(None).unwrap().is_empty());
    }

    #[test]
    fn times_and_durations_are_gos() {
        let table = [
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("10ms", Some(10_000_000)),
            ("10", None),
            ("abc", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(duration(text), expected, "{text}");
        }
        assert_eq!(date("1970-01-02"), Some(86_400_000_000_000));
        assert_eq!(date("1970-01-01T00:01:00"), Some(60_000_000_000));
        let until = |text: &str| Filters::parse(Some(text)).unwrap().until();
        assert_eq!(
            until(r#"{"until":["1970-01-02"]}"#),
            Ok(Some(86_400_000_000_000))
        );
        let message = until(r#"{"until":["abc"]}"#).unwrap_err().message;
        assert_eq!(
            message,
            "failed to parse value as time or duration: \"abc\""
        );
        assert!(until(r#"{"until":["1h","2h"]}"#).is_err());
    }

    #[test]
    fn labels_match_by_key_and_by_value() {
        let labels = BTreeMap::from([
            ("a".to_owned(), "1".to_owned()),
            ("b".to_owned(), String::new()),
        ]);
        let table = [
            (r#"{"label":["a"]}"#, true),
            (r#"{"label":["a=1","b="]}"#, true),
            (r#"{"label":["a=2"]}"#, false),
            (r#"{"label":["c"]}"#, false),
            (r#"{"label!":["a=1"]}"#, false),
            (r#"{"label!":["c"]}"#, true),
        ];
        for (text, expected) in table {
            assert_eq!(
                Filters::parse(Some(text)).unwrap().labels(&labels),
                expected,
                "{text}"
            );
        }
    }
}
