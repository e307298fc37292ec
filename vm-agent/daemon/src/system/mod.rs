//! Ping, version, info and events.

use crate::event;
use crate::http_message::{ApiRequest, ApiResponse, bytes, empty};
use crate::router::{Routed, handle};
use crate::state::Daemon;
use http::{HeaderValue, StatusCode, header};
use std::sync::Arc;

pub fn route(daemon: Arc<Daemon>, request: ApiRequest) -> Routed {
    let path = request.path.clone();
    match (request.method.as_str(), path.segments().as_slice()) {
        ("GET", ["_ping"]) => handle(async { Ok(ping(true)) }),
        ("HEAD", ["_ping"]) => handle(async { Ok(ping(false)) }),
        ("GET", ["events"]) => handle(event::serve(daemon, request)),
        _ => Routed::NotMine(request),
    }
}

fn ping(with_body: bool) -> ApiResponse {
    let text = "text/plain; charset=utf-8";
    let mut response = if with_body {
        bytes(StatusCode::OK, text, "OK")
    } else {
        empty(StatusCode::OK)
    };
    let headers = response.headers_mut();
    headers.insert("Builder-Version", HeaderValue::from_static("1"));
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Swarm", HeaderValue::from_static("inactive"));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}
