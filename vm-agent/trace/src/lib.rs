//! Logging and trace spans shared by the guest's processes.
//!
//! [`init`] sends events to stderr for people and finished spans to `/run/longshore/trace/NAME.jsonl`. A span belongs to a trace
//! when it, or a span around it, has the field `traceparent`:
//!
//! ```no_run
//! longshore_trace::init("daemon").unwrap();
//! let context = longshore_trace::TraceContext::random();
//! let span = tracing::info_span!("request", traceparent = %context, path = "/containers/json");
//! span.in_scope(|| {
//!     // What the next process in the chain must be told: same trace, this span as parent.
//!     let onward = longshore_trace::current().unwrap();
//!     assert_eq!(onward.trace_id(), context.trace_id());
//! });
//! ```

mod context;
mod log_file;
mod ring;
mod span_layer;

pub use context::{ParseError, TraceContext};
pub use span_layer::current;

use std::path::Path;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// What is logged: a level, or `target=level` with commas between; `info` when not set.
pub const LOG_VARIABLE: &str = "LONGSHORE_LOG";
/// The traceparent that a short-lived process is started with.
pub const TRACEPARENT_VARIABLE: &str = "TRACEPARENT";
/// Folder of the span rings; without it no span is written.
pub const TRACE_FOLDER: &str = "/run/longshore/trace";
/// Folder of the services' logs, `NAME.log` and, rotated, `NAME.log.1`.
pub const LOG_FOLDER: &str = "/run/longshore/log";

/// Why tracing could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("{LOG_VARIABLE}={value}: {source}")]
    Filter {
        value: String,
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("set the process's subscriber: {0}")]
    Subscriber(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets up logging and spans for the whole process; `service` names its files.
pub fn init(service: &'static str) -> Result<(), InitError> {
    let filter = log_filter(std::env::var(LOG_VARIABLE).ok())?;
    let log = log_file::LogFile::new(Path::new(LOG_FOLDER), service);
    let events = fmt::layer()
        .with_ansi(false)
        .with_writer(log)
        .with_filter(filter);
    let ring = ring::Ring::new(Path::new(TRACE_FOLDER), service);
    let spans = span_layer::SpanLayer::new(service, ring).with_filter(filter_fn(|metadata| {
        metadata.is_span() && *metadata.level() <= LevelFilter::INFO
    }));
    tracing_subscriber::registry()
        .with(spans)
        .with(events)
        .try_init()?;
    Ok(())
}

fn log_filter(value: Option<String>) -> Result<Targets, InitError> {
    let value = value
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| "info".into());
    value
        .parse()
        .map_err(|source| InitError::Filter { value, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_filter_has_a_default_and_says_what_is_wrong() {
        let cases = [
            (None, "info"),
            (Some(""), "info"),
            (Some("warn,h2=debug"), "h2=debug,warn"),
        ];
        for (value, shown) in cases {
            assert_eq!(
                log_filter(value.map(String::from)).unwrap().to_string(),
                shown
            );
        }
        let error = log_filter(Some("h2=loud".into())).unwrap_err();
        assert!(
            error.to_string().starts_with("LONGSHORE_LOG=h2=loud: "),
            "{error}"
        );
    }
}
