//! HTTP/1 over the unix listener: versions, the headers every response has, and connections taken over.

use crate::container::RAW;
use crate::error::{ApiError, ApiResult};
use crate::http_message::{ApiRequest, ApiResponse, ApiVersion, Path, Query, empty, stream};
use crate::router;
use crate::state::Daemon;
use crate::trace_context;
use http::{HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::os::fd::FromRawFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::io::{ReaderStream, StreamReader};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub const MAX_VERSION: ApiVersion = ApiVersion(1, 51);
pub const MIN_VERSION: ApiVersion = ApiVersion(1, 24);

/// The listener from init (`LISTEN_FDS`), else one bound at `address`.
pub fn listen(address: &str) -> std::io::Result<UnixListener> {
    if let Some(inherited) = inherited_listener() {
        inherited.set_nonblocking(true)?;
        return UnixListener::from_std(inherited);
    }
    let path = address.strip_prefix("unix://").unwrap_or(address);
    if let Some(parent) = std::path::Path::new(path).parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

fn inherited_listener() -> Option<std::os::unix::net::UnixListener> {
    let variable = |name| std::env::var(name).ok();
    let pid: u32 = variable("LISTEN_PID")?.parse().ok()?;
    let count: usize = variable("LISTEN_FDS")?.parse().ok()?;
    if pid != std::process::id() || count == 0 {
        return None;
    }
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let position = names
        .split(':')
        .position(|name| name == "docker")
        .unwrap_or(0);
    let number = 3 + position.min(count - 1) as i32;
    // SAFETY: systemd's protocol gives this process the descriptors from 3 on; nothing else owns them.
    let descriptor = unsafe { std::os::fd::OwnedFd::from_raw_fd(number) };
    let _ = nix::fcntl::fcntl(
        &descriptor,
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
    );
    Some(descriptor.into())
}

/// Serves until `stop`; connections that are open then are left to end with the process.
pub async fn serve(daemon: Arc<Daemon>, listener: UnixListener, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => drop(tokio::spawn(serve_connection(daemon.clone(), stream))),
            Err(error) => {
                // Out of descriptors: the listener stays readable, so wait for others to close.
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection(daemon: Arc<Daemon>, stream: UnixStream) {
    let service = service_fn(move |request| {
        let daemon = daemon.clone();
        async move { Ok::<_, Infallible>(serve_request(daemon, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .title_case_headers(true)
        .max_buf_size(64 << 10)
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection ended");
    }
}

async fn serve_request(daemon: Arc<Daemon>, mut request: Request<Incoming>) -> ApiResponse {
    let started = std::time::Instant::now();
    let traceparent = request
        .headers()
        .get("traceparent")
        .and_then(|value| value.to_str().ok())
        .filter(|value| trace_context::is_valid(value))
        .map_or_else(trace_context::generate, str::to_owned);
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let upgrade = request.headers().contains_key(header::UPGRADE) || method == http::Method::POST;
    let upgrade = upgrade.then(|| hyper::upgrade::on(&mut request));
    if let Some(clean) = without_double_slashes(uri.path()) {
        return moved(&clean, uri.query());
    }
    let handled = trace_context::scope(traceparent.clone(), async {
        let request = parse(request, upgrade)?;
        router::route(daemon, request).await
    });
    let span = tracing::info_span!("request", %traceparent, %method, path = uri.path());
    let mut response = handled.instrument(span).await.unwrap_or_else(|error| {
        if error.status.is_server_error() {
            tracing::error!(%method, path = uri.path(), message = %error.message, "request failed");
        }
        error.into()
    });
    let elapsed = started.elapsed();
    tracing::debug!(%method, path = uri.path(), status = response.status().as_u16(), ?elapsed, %traceparent, "request");
    add_headers(&mut response, &traceparent);
    response
}

/// Go's router sends clients to the plain form of a path; `None` when it is plain.
fn without_double_slashes(path: &str) -> Option<String> {
    if !path.contains("//") {
        return None;
    }
    let mut clean = String::with_capacity(path.len());
    for byte in path.chars() {
        if byte != '/' || !clean.ends_with('/') {
            clean.push(byte);
        }
    }
    Some(clean)
}

fn moved(path: &str, query: Option<&str>) -> ApiResponse {
    let mut response = empty(StatusCode::MOVED_PERMANENTLY);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    if let Ok(value) = HeaderValue::from_str(&format!("{path}{query}")) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

fn parse(
    request: Request<Incoming>,
    upgrade: Option<hyper::upgrade::OnUpgrade>,
) -> ApiResult<ApiRequest> {
    let (parts, body) = request.into_parts();
    let (version, path) = split_version(parts.uri.path())?;
    if path.len() > 1 && path.ends_with('/') {
        return Err(ApiError::not_found("page not found"));
    }
    Ok(ApiRequest {
        method: parts.method,
        path: Path::new(path),
        query: Query::parse(parts.uri.query()),
        headers: parts.headers,
        version,
        body,
        upgrade,
    })
}

/// `/v1.43/info` → 1.43 and `/info`; a path without a version is served as the newest.
fn split_version(path: &str) -> ApiResult<(ApiVersion, &str)> {
    let Some((prefix, rest)) = path
        .strip_prefix("/v")
        .and_then(|tail| tail.split_once('/'))
    else {
        return Ok((MAX_VERSION, path));
    };
    let (major, minor) = prefix.split_once('.').unwrap_or((prefix, "0"));
    let numbers = major.parse().ok().zip(minor.parse().ok());
    let parsed = numbers.map(|(major, minor)| ApiVersion(major, minor));
    let Some(version) = parsed else {
        return Ok((MAX_VERSION, path));
    };
    let ApiVersion(max_major, max_minor) = MAX_VERSION;
    let ApiVersion(min_major, min_minor) = MIN_VERSION;
    if version > MAX_VERSION {
        return Err(ApiError::bad_request(format!(
            "client version {prefix} is too new. Maximum supported API version is {max_major}.{max_minor}"
        )));
    }
    if version < MIN_VERSION {
        return Err(ApiError::bad_request(format!(
            "client version {prefix} is too old. Minimum supported API version is {min_major}.{min_minor}, \
             please upgrade your client to a newer version"
        ))
        .as_text());
    }
    Ok((version, &path[path.len() - rest.len() - 1..]))
}

fn add_headers(response: &mut ApiResponse, traceparent: &str) {
    let headers = response.headers_mut();
    headers.insert("Api-Version", HeaderValue::from_static("1.51"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers.insert(
        header::SERVER,
        HeaderValue::from_static(concat!("Longshore/", env!("CARGO_PKG_VERSION"), " (linux)")),
    );
    if let Ok(value) = HeaderValue::from_str(traceparent) {
        headers.insert("Traceparent", value);
    }
}

/// What a session reads its client's input from and writes its output to.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<C: AsyncRead + AsyncWrite + Send + Unpin> Connection for C {}

/// Takes the connection over when the client asks to upgrade (101, as Docker), then runs `session` on the raw stream. For a
/// client that does not ask, the session's output is the body of a plain answer, and the request's body is its input.
/// The session ends when it returns; dropping the stream closes the connection.
pub fn hijack<F, S>(
    request: ApiRequest,
    content_type: &'static str,
    session: S,
) -> ApiResult<ApiResponse>
where
    S: FnOnce(Box<dyn Connection>) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    if !request.headers.contains_key(header::UPGRADE) {
        return Ok(in_bodies(request, session));
    }
    take_over(request, |upgraded| session(Box::new(upgraded)))?;
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    Ok(response)
}

fn in_bodies<F, S>(request: ApiRequest, session: S) -> ApiResponse
where
    S: FnOnce(Box<dyn Connection>) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (theirs, ours) = tokio::io::duplex(64 << 10);
    let (output, mut input) = tokio::io::split(ours);
    tokio::spawn(async move {
        let mut body = StreamReader::new(request.into_stream());
        let _ = tokio::io::copy(&mut body, &mut input).await;
        let _ = input.shutdown().await;
    });
    let session = session(Box::new(theirs));
    tokio::spawn(trace_context::scope(trace_context::current(), session));
    stream(RAW, ReaderStream::new(output))
}

/// The same for a WebSocket (RFC 6455): `session` gets the raw stream after the handshake's answer.
pub fn hijack_websocket<F, S>(request: ApiRequest, session: S) -> ApiResult<ApiResponse>
where
    S: FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let key = request.headers.get(header::SEC_WEBSOCKET_KEY);
    let key = key.ok_or_else(|| ApiError::bad_request("missing Sec-WebSocket-Key"))?;
    let accept = derive_accept_key(key.as_bytes());
    let accept =
        HeaderValue::from_str(&accept).map_err(|error| ApiError::internal(error.to_string()))?;
    take_over(request, session)?;
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

fn take_over<F, S>(request: ApiRequest, session: S) -> ApiResult<()>
where
    S: FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let upgrade = request
        .upgrade
        .ok_or_else(|| ApiError::bad_request("this needs a connection that can be taken over"))?;
    let traceparent = trace_context::current();
    tokio::spawn(trace_context::scope(traceparent, async move {
        match upgrade.await {
            Ok(upgraded) => session(TokioIo::new(upgraded)).await,
            Err(error) => {
                tracing::debug!(%error, "client went before its connection was taken over")
            }
        }
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_split_off_and_bounded() {
        let table = [
            ("/v1.43/info", Ok((ApiVersion(1, 43), "/info"))),
            ("/info", Ok((MAX_VERSION, "/info"))),
            ("/volumes/x", Ok((MAX_VERSION, "/volumes/x"))),
            ("/version", Ok((MAX_VERSION, "/version"))),
            (
                "/v1.52/info",
                Err("client version 1.52 is too new. Maximum supported API version is 1.51"),
            ),
            (
                "/v1.23/info",
                Err(
                    "client version 1.23 is too old. Minimum supported API version is 1.24, \
                     please upgrade your client to a newer version",
                ),
            ),
        ];
        for (path, expected) in table {
            let got = split_version(path);
            assert_eq!(
                got.as_ref().map_err(|e| e.message.as_str()),
                expected.as_ref().map_err(|e| *e)
            );
        }
    }
}
