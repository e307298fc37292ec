//! What runs in the guest, and what its requests did in each layer. The guest says it: all of it is bounded here.

use std::time::Duration;

use http::Response;
use longshore_host_api::ApiError;
use longshore_host_api::types::{ChainProcess, LayerService, Layers, TraceSpan};
use longshore_protocol::control::{self, KillableService, Reply, Request};

use crate::api::{self, Body};
use crate::guest;
use crate::service::Service;

const PATIENCE: Duration = Duration::from_secs(20);
/// How many requests are told.
const MOST_REQUESTS: u32 = 200;
/// The longest text of the guest, in characters.
pub const LONGEST: usize = 512;

/// The spans of one request, from every process of the guest: JSON lines.
pub async fn trace(id: &str, service: &Service) -> Result<Response<Body>, ApiError> {
    let trace_id = id.to_ascii_lowercase();
    let spans = spans(Request::Trace { trace_id }, service).await?;
    let mut text = Vec::new();
    for span in spans {
        serde_json::to_writer(&mut text, &span).map_err(|e| ApiError::internal(e.to_string()))?;
        text.push(b'\n');
    }
    Ok(Response::new(api::whole(text)))
}

/// The last requests, newest first.
pub async fn requests(service: &Service) -> Result<Vec<TraceSpan>, ApiError> {
    let most = MOST_REQUESTS;
    let mut found = spans(Request::Requests { most }, service).await?;
    found.truncate(most as usize);
    Ok(found)
}

async fn spans(request: Request, service: &Service) -> Result<Vec<TraceSpan>, ApiError> {
    match ask(request, service).await? {
        Reply::Spans(spans) => Ok(spans.into_iter().map(span).collect()),
        _ => Err(unexpected()),
    }
}

pub async fn layers(service: &Service) -> Result<Layers, ApiError> {
    match ask(Request::Layers, service).await? {
        Reply::Layers(found) => Ok(told(found)),
        _ => Err(unexpected()),
    }
}

/// What the guest said of its layers, as it is passed on.
pub fn told(found: control::Layers) -> Layers {
    let services = found.services.into_iter().map(|status| LayerService {
        name: short(status.name),
        starts: status.starts,
        last_exit: status.last_exit.map(short),
    });
    let processes = found.processes.into_iter().map(|process| ChainProcess {
        pid: process.pid,
        parent: process.parent,
        layer: short(process.layer),
        name: short(process.name),
        subject: process.subject.map(short),
        rss_kib: process.rss_kib,
        cpu_ms: process.cpu_ms,
        uptime_ms: process.uptime_ms,
    });
    Layers {
        uptime_ms: found.uptime_ms,
        services: services.collect(),
        processes: processes.collect(),
        left_out: found.left_out,
    }
}

/// Kills one of the two services that live apart from the containers; the guest starts it again.
pub async fn kill(name: &str, service: &Service) -> Result<(), ApiError> {
    let services = [KillableService::Daemon, KillableService::Supervisor];
    let found = services.into_iter().find(|known| known.as_str() == name);
    let killed = found.ok_or_else(|| {
        ApiError::invalid(format!(
            "{name:?} is not killed from here: daemon and supervisor are"
        ))
    })?;
    tracing::info!(service = name, "killing a service of the guest, as asked");
    match ask(Request::KillService { service: killed }, service).await? {
        Reply::Done => Ok(()),
        _ => Err(unexpected()),
    }
}

async fn ask(request: Request, service: &Service) -> Result<Reply, ApiError> {
    let channel = service.home().channel_socket();
    guest::ask(&channel, request, PATIENCE).await.map_err(|e| {
        ApiError::conflict(format!("cannot ask the guest: {e}"))
            .with_hint("is the VM running? Look at: longshore status")
    })
}

fn unexpected() -> ApiError {
    ApiError::internal(guest::GuestError::Unexpected.to_string())
}

/// A span of the guest, as it is passed on.
pub fn span(span: control::Span) -> TraceSpan {
    TraceSpan {
        trace_id: short(span.trace_id),
        span_id: short(span.span_id),
        parent_id: span.parent_id.map(short),
        service: short(span.service),
        name: short(span.name),
        start_us: span.start_us,
        duration_us: span.duration_us,
        fields: span.fields,
    }
}

pub fn short(text: String) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_of_the_guest_is_cut_between_characters() {
        assert_eq!(short("ä".repeat(600)), "ä".repeat(512));
        assert_eq!(short("a".into()), "a");
    }
}
