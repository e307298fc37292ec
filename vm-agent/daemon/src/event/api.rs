//! `GET /events`.

use super::Event;
use crate::error::{ApiError, ApiResult};
use crate::filter::Filters;
use crate::http_message::{self, ApiRequest, ApiResponse};
use crate::state::Daemon;
use bytes::Bytes;
use std::io;
use std::sync::Arc;

/// Docker's time stamps in queries: seconds or seconds.nanoseconds, in nanoseconds here. Clients turn other forms into
/// these; for anything else Docker's engine answers 500 in the words of its parser.
pub fn parse_time(text: &str) -> ApiResult<i64> {
    let invalid = || {
        ApiError::internal(format!(
            "strconv.ParseInt: parsing {text:?}: invalid syntax"
        ))
    };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(invalid());
    }
    let seconds: i64 = seconds.parse().map_err(|_| invalid())?;
    let nanos: i64 = format!("{fraction:0<9}").parse().map_err(|_| invalid())?;
    seconds
        .checked_mul(1_000_000_000)
        .and_then(|total| total.checked_add(nanos))
        .ok_or_else(invalid)
}

/// Whether `event` passes the filters of `GET /events`.
fn matches(event: &Event, filters: &Filters) -> bool {
    let attribute = |name: &str| event.actor.attributes.get(name).map_or("", String::as_str);
    let of_type = |kind: &str, name: &str| {
        filters.any(name, |wanted| {
            event.kind == kind
                && (event.actor.id.starts_with(wanted.as_str()) || attribute("name") == wanted)
        })
    };
    let image = || {
        filters.any("image", |wanted| {
            let name = if event.kind == "image" {
                attribute("name")
            } else {
                attribute("image")
            };
            let repository = name.split('@').next().unwrap_or(name);
            let repository = repository
                .rsplit_once(':')
                .map_or(repository, |(repository, _)| repository);
            event.actor.id == *wanted || name == wanted || repository == wanted
        })
    };
    // `exec_create: sh` matches the filter `exec_create`.
    let action = event.action.split(':').next().unwrap_or_default();
    filters.any("event", |wanted| {
        *wanted == event.action || wanted == action
    }) && filters.exact("type", &event.kind)
        && filters.exact("scope", &event.scope)
        && of_type("container", "container")
        && of_type("volume", "volume")
        && of_type("network", "network")
        && of_type("daemon", "daemon")
        && image()
        && filters.labels(&event.actor.attributes)
}

pub async fn serve(daemon: Arc<Daemon>, request: ApiRequest) -> ApiResult<ApiResponse> {
    let filters = request.filters()?;
    // Docker ignores filters that it does not know here.
    let since = request
        .query
        .non_empty("since")
        .map(parse_time)
        .transpose()?;
    let until = request
        .query
        .non_empty("until")
        .map(parse_time)
        .transpose()?;
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        let text = |name: &str| request.query.get(name).unwrap_or_default().to_owned();
        return Err(ApiError::bad_request(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            text("since"),
            text("until")
        )));
    }
    let mut follower = if since.is_some() {
        daemon.events.from_start()
    } else {
        daemon.events.follow()
    };
    let wanted = move |event: &Event| {
        since.is_none_or(|since| event.time_nano >= since)
            && until.is_none_or(|until| event.time_nano <= until)
            && matches(event, &filters)
    };
    let lines = async_stream::stream! {
        let deadline = sleep_until(until);
        tokio::pin!(deadline);
        loop {
            let found = tokio::select! {
                biased;
                found = follower.next() => found,
                () = &mut deadline => return,
            };
            let mut text = Vec::new();
            for event in found.iter().filter(|event| wanted(event)) {
                text.extend(serde_json::to_vec(event.as_ref()).map_err(io::Error::other)?);
                text.push(b'\n');
            }
            if !text.is_empty() {
                yield Ok(Bytes::from(text));
            }
            // One that reads all of the journal lets others work in between.
            tokio::task::yield_now().await;
        }
    };
    Ok(http_message::stream("application/json", lines))
}

/// Ends at `until` (nanoseconds of the epoch), or never.
async fn sleep_until(until: Option<i64>) {
    let Some(until) = until else {
        return std::future::pending().await;
    };
    let now = chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default();
    let left = u64::try_from(until.saturating_sub(now)).unwrap_or(0);
    tokio::time::sleep(std::time::Duration::from_nanos(left)).await;
}

#[cfg(test)]
mod tests {
    use super::super::Events;
    use super::super::tests::publish;
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn filters_select() {
        let events = Events::open(PathBuf::from("/proc/nonexistent"));
        let mut follower = events.follow();
        publish(&events, "exec_create: sh");
        let event = &follower.ready()[0];
        let table = [
            (r#"{"event":["exec_create"]}"#, true),
            (r#"{"event":["start"]}"#, false),
            (r#"{"type":["container"]}"#, true),
            (r#"{"container":["web"]}"#, true),
            (r#"{"container":["abc"]}"#, true),
            (r#"{"container":["other"]}"#, false),
            (r#"{"network":["web"]}"#, false),
            (r#"{"image":["busybox"]}"#, true),
            (r#"{"image":["busybox:latest"]}"#, true),
            (r#"{"image":["nginx"]}"#, false),
            (r#"{"label":["x"]}"#, false),
        ];
        for (text, expected) in table {
            assert_eq!(
                matches(event, &Filters::parse(Some(text)).unwrap()),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn times_are_read_in_all_forms() {
        let table = [
            ("1700000000", Some(1_700_000_000_000_000_000)),
            ("1700000000.5", Some(1_700_000_000_500_000_000)),
            ("1700000000.000000001", Some(1_700_000_000_000_000_001)),
            ("2023-11-14T22:13:20Z", None),
            ("yesterday", None),
            ("1.1234567890", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_time(text).ok(), expected, "{text}");
        }
    }
}
