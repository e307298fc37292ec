//! `GET /containers/{id}/logs`: what the log writer kept, framed or raw, and what comes next.

use super::attach::{MULTIPLEXED, RAW, frame};
use super::log_options;
use super::record::Container;
use crate::error::{ApiError, ApiResult};
use crate::event::parse_time;
use crate::http_message::{self, ApiRequest, ApiResponse, Query};
use crate::state::Daemon;
use bytes::Bytes;
use longshore_container_log::{Driver, LogLine, LogReader, ReadOptions, Streams, Tail, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::io::{AsyncWrite, AsyncWriteExt};

pub async fn serve(daemon: Arc<Daemon>, request: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    let query = &request.query;
    let streams = Streams {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        wake: false,
    };
    if !streams.stdout && !streams.stderr {
        return Err(ApiError::bad_request(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    let container = daemon.containers.get(&id)?;
    let options = options(query, &container)?;
    let shown = Shown {
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
    };
    let mut lines = open(&daemon, &container, options).await?;
    let tty = container.config.tty;
    let body = async_stream::stream! {
        loop {
            match lines.next().await {
                Ok(Some(line)) if wants(streams, &line) => yield Ok(shape(&line, tty, shown)),
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => {
                    yield Err(std::io::Error::other(error.to_string()));
                    return;
                }
            }
        }
    };
    Ok(http_message::stream(
        if tty { RAW } else { MULTIPLEXED },
        body,
    ))
}

fn options(query: &Query, container: &Container) -> ApiResult<ReadOptions> {
    let time = |name: &str| -> ApiResult<Option<Timestamp>> {
        // "0" is the CLI's "not given".
        query
            .non_empty(name)
            .filter(|text| *text != "0")
            .map(|text| parse_time(text).map(Timestamp))
            .transpose()
    };
    let tail = match query.get("tail").unwrap_or("all") {
        "" | "all" => Tail::All,
        // Docker takes what is no number as "all".
        text => text.parse().map_or(Tail::All, Tail::Last),
    };
    Ok(ReadOptions {
        since: time("since")?,
        until: time("until")?,
        tail,
        follow: query.flag("follow") && container.running,
    })
}

async fn open(
    daemon: &Daemon,
    container: &Container,
    options: ReadOptions,
) -> ApiResult<longshore_container_log::LogLines> {
    let config = log_options::log_config(&daemon.containers, container);
    if config.driver == Driver::None {
        return Err(ApiError::not_implemented(
            "configured logging driver does not support reading",
        ));
    }
    LogReader::new(&config)
        .read(options)
        .await
        .map_err(|error| ApiError::internal(format!("reading the container's log: {error}")))
}

fn wants(streams: Streams, line: &LogLine) -> bool {
    match line.stream {
        longshore_container_log::StreamKind::Stdout => streams.stdout,
        longshore_container_log::StreamKind::Stderr => streams.stderr,
    }
}

/// What comes before a line.
#[derive(Debug, Default, Clone, Copy)]
struct Shown {
    timestamps: bool,
    details: bool,
}

fn shape(line: &LogLine, tty: bool, shown: Shown) -> Bytes {
    let mut payload = Vec::new();
    if shown.timestamps {
        let time = chrono::DateTime::from_timestamp_nanos(line.time.0);
        let text = time.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true);
        payload.extend_from_slice(text.as_bytes());
        payload.push(b' ');
    }
    if shown.details {
        payload.extend_from_slice(details(&line.attributes).as_bytes());
        payload.push(b' ');
    }
    let payload = match payload.is_empty() {
        true => line.bytes.clone(),
        false => Bytes::from([&payload, &line.bytes[..]].concat()),
    };
    if tty {
        payload
    } else {
        frame(line.stream, &payload)
    }
}

/// `a=1,b=x+y`, each escaped as in a query.
fn details(attributes: &BTreeMap<String, String>) -> String {
    let escape = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pairs = attributes.iter();
    let pairs: Vec<String> = pairs
        .map(|(key, value)| format!("{}={}", escape(key), escape(value)))
        .collect();
    pairs.join(",")
}

/// What was logged so far, for `attach?logs=1`.
pub async fn replay<W: AsyncWrite + Unpin>(
    daemon: &Daemon,
    container: &Container,
    streams: Streams,
    writer: &mut W,
) -> ApiResult<()> {
    let mut lines = open(daemon, container, ReadOptions::default()).await?;
    while let Ok(Some(line)) = lines.next().await {
        if wants(streams, &line) {
            writer
                .write_all(&shape(&line, container.config.tty, Shown::default()))
                .await?;
        }
    }
    Ok(writer.flush().await?)
}
