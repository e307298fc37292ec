//! The service's API: which request does what.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use longshore_host_api::types::{
    DataMove, LogSource, SettingsChange, SettingsChanged, ShareRequest, StartRequest, UiAddress,
};
use longshore_host_api::{ApiError, ErrorCode};
use longshore_local_socket::Listener;
use longshore_protocol::logs::LogSource as GuestSource;
use longshore_protocol::ports;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::operation::Operation;
use crate::service::{self, Service};
use crate::{channel, diagnose, doctor, layers, logs, splice, store_check, usage, web, welcome};

pub type Body = BoxBody<Bytes, io::Error>;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A program of the user, through the local socket.
    Local,
    /// A page, which may show what containers say: it opens nothing of the host to them.
    Browser,
}

/// The largest request of this API.
const MAX_REQUEST: usize = 1 << 20;

/// Serves the API until told to end.
pub async fn serve(mut listener: Listener, service: Arc<Service>, end: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = end.cancelled() => return,
        };
        match accepted {
            Ok(client) => {
                tokio::spawn(connection(client, service.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client");
                // Out of descriptors: only time helps, and a loop at full speed would not.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection<S>(client: S, service: Arc<Service>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handler = service_fn(move |request| {
        let service = service.clone();
        async move {
            let request = request.map(|body: Incoming| body.map_err(io::Error::other).boxed());
            let answer = route(request, &service, Caller::Local).await;
            let response = answer.unwrap_or_else(|e| error(&e));
            Ok::<_, Infallible>(response)
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(client), handler)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an API connection ended");
    }
}

/// Answers one request.
pub async fn route(
    request: Request<Body>,
    service: &Arc<Service>,
    caller: Caller,
) -> Result<Response<Body>, ApiError> {
    let path = request.uri().path().to_owned();
    if let Some(inner) = path
        .strip_prefix("/page")
        .filter(|_| caller == Caller::Local)
    {
        // Boxed, as what a page may ask leads here again.
        return Box::pin(web::page(request, inner, service)).await;
    }
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["v1", "status"]) => json(&service.status().await),
        (&Method::POST, ["v1", "start"]) => {
            let wanted: StartRequest = read(request).await?;
            let shares = wanted.shares.iter().map(|s| format!("shares+={s}"));
            permit(caller, &shares.collect::<Vec<_>>())?;
            events(service.start(wanted).await?)
        }
        (&Method::POST, ["v1", "stop"]) => events(service.stop()),
        (&Method::POST, ["v1", "data"]) => {
            let wanted: DataMove = read(request).await?;
            events(service.move_data(&wanted.folder)?)
        }
        (&Method::GET, ["v1", "settings"]) => json(&service::as_map(&service.settings().await)),
        (&Method::POST, ["v1", "settings"]) => {
            let change: SettingsChange = read(request).await?;
            permit(caller, &change.assignments)?;
            json(&service.change_settings(&change.assignments).await?)
        }
        (&Method::GET, ["v1", "machine"]) => json(&service.machine()),
        (&Method::GET, ["v1", "watch"]) => Ok(streamed(service.watch().map(|state| {
            let mut line = serde_json::to_vec(&state)?;
            line.push(b'\n');
            Ok(Bytes::from(line))
        }))),
        (&Method::POST, ["v1", "shares"]) if caller == Caller::Local => {
            json(&share(request, service, "+=").await?)
        }
        (&Method::DELETE, ["v1", "shares"]) => json(&share(request, service, "-=").await?),
        (&Method::GET, ["v1", "logs", source]) => {
            let source = LogSource::parse(source).ok_or_else(not_found)?;
            let follow = request
                .uri()
                .query()
                .is_some_and(|q| q.split('&').any(|p| p == "follow=true"));
            log(source, follow, service).await
        }
        (&Method::GET, ["v1", "trace", id]) => layers::trace(id, service).await,
        (&Method::GET, ["v1", "requests"]) => json(&layers::requests(service).await?),
        (&Method::GET, ["v1", "layers"]) => json(&layers::layers(service).await?),
        (&Method::POST, ["v1", "services", name, "kill"]) => {
            json(&layers::kill(name, service).await?)
        }
        (&Method::POST, ["v1", "ui"]) if caller == Caller::Local => json(&UiAddress {
            url: service.web().open(service)?,
        }),
        (&Method::DELETE, ["v1", "ui"]) if caller == Caller::Local => {
            service.web().close();
            json(&())
        }
        (&Method::POST, ["v1", "shell"]) if caller == Caller::Local => {
            shell(request, service).await
        }
        (&Method::GET, ["v1", "usage"]) => {
            json(&usage::of_containers(request.uri().query(), service).await?)
        }
        (&Method::POST, ["v1", "welcome"]) => json(&welcome::run(service).await?),
        (&Method::GET, ["v1", "doctor"]) => json(&doctor::examine(service).await),
        (&Method::GET, ["v1", "doctor", "store"]) => json(&store_check::examine(service).await),
        (&Method::GET, ["v1", "diagnostics"]) => Ok(archive(diagnose::bundle(service).await?)),
        (&Method::POST, ["v1", "shutdown"]) if caller == Caller::Local => {
            service.shut_down();
            json(&())
        }
        _ => Err(not_found()),
    }
}

/// Only the user's own shell opens folders of this machine to containers, and its ports to others.
fn permit(caller: Caller, assignments: &[String]) -> Result<(), ApiError> {
    let widens = |assignment: &&String| {
        let (key, value) = assignment.split_once('=').unwrap_or((assignment, ""));
        match key.trim() {
            "shares" | "shares+" => true,
            // Left empty it becomes the default, which is to share.
            "share_home" => !matches!(value.trim(), "false" | "no" | "off" | "0"),
            "publish_address" => !value.trim().is_empty() && !is_loopback(value),
            _ => false,
        }
    };
    match assignments.iter().find(widens) {
        Some(assignment) if caller == Caller::Browser => Err(ApiError::new(
            ErrorCode::Forbidden,
            "this setting opens your machine to containers or to others, so that it is changed in a terminal",
        )
        .with_hint(format!("longshore settings set '{assignment}'"))),
        _ => Ok(()),
    }
}

fn is_loopback(text: &str) -> bool {
    text.trim()
        .parse::<std::net::IpAddr>()
        .is_ok_and(|address| address.is_loopback())
}

pub fn not_found() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "the host service has no such request")
}

async fn share(
    request: Request<Body>,
    service: &Service,
    operator: &str,
) -> Result<SettingsChanged, ApiError> {
    let share: ShareRequest = read(request).await?;
    service
        .change_settings(&[format!("shares{operator}{}", share.path)])
        .await
}

async fn log(
    source: LogSource,
    follow: bool,
    service: &Service,
) -> Result<Response<Body>, ApiError> {
    let home = service.home();
    let guest = |source| {
        let channel = home.channel_socket();
        async move { logs::guest(&channel, source, follow).await.map(streamed) }
    };
    match source {
        LogSource::Host => Ok(streamed(logs::file(home.host_log(), follow).await?)),
        LogSource::Console => Ok(streamed(logs::file(home.console_log(), follow).await?)),
        LogSource::Daemon => guest(GuestSource::Daemon).await,
        LogSource::Supervisor => guest(GuestSource::Supervisor).await,
        LogSource::Agent => guest(GuestSource::Agent).await,
    }
}

/// The bytes after the upgrade are the agent's shell frames.
async fn shell(request: Request<Body>, service: &Service) -> Result<Response<Body>, ApiError> {
    let guest = channel::dial(&service.home().channel_socket(), ports::SHELL)
        .await
        .map_err(|e| {
            ApiError::conflict(format!("cannot open a shell in the VM: {e}"))
                .with_hint("start the VM with: longshore start")
        })?;
    carry(request, "longshore-shell", guest)
}

/// Answers with an upgrade; this service only carries the bytes that follow.
pub fn carry(
    mut request: Request<Body>,
    protocol: &'static str,
    guest: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Response<Body>, ApiError> {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(client) => {
                let client = TokioIo::new(client);
                if let Err(error) = splice::splice(client, guest, std::future::pending()).await {
                    tracing::debug!(%error, protocol, "an upgraded connection ended");
                }
            }
            Err(error) => tracing::warn!(%error, protocol, "a connection could not be upgraded"),
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(http::header::CONNECTION, "Upgrade")
        .header(http::header::UPGRADE, protocol)
        .body(whole(Vec::new()))
        .map_err(|e| ApiError::internal(e.to_string()))
}

async fn read<T: DeserializeOwned>(request: Request<Body>) -> Result<T, ApiError> {
    let body = Limited::new(request.into_body(), MAX_REQUEST)
        .collect()
        .await
        .map_err(|e| ApiError::invalid(format!("cannot read the request: {e}")))?
        .to_bytes();
    serde_json::from_slice(&body)
        .map_err(|e| ApiError::invalid(format!("the request is not understood: {e}")))
}

pub fn whole(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes))
        .map_err(|never: Infallible| match never {})
        .boxed()
}

fn json(value: &impl Serialize) -> Result<Response<Body>, ApiError> {
    let bytes = serde_json::to_vec(value).map_err(|e| ApiError::internal(e.to_string()))?;
    Ok(of_json(bytes))
}

fn archive(bytes: Vec<u8>) -> Response<Body> {
    let length = HeaderValue::from(bytes.len());
    let mut response = Response::new(whole(bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/gzip"));
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    response
}

fn of_json(bytes: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(whole(bytes));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

pub fn error(error: &ApiError) -> Response<Body> {
    let bytes = serde_json::to_vec(error).unwrap_or_default();
    let mut response = of_json(bytes);
    *response.status_mut() =
        StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// One JSON value a line.
fn events(operation: Operation) -> Result<Response<Body>, ApiError> {
    Ok(streamed(operation.stream().map(|event| {
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        Ok(Bytes::from(line))
    })))
}

fn streamed(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Response<Body> {
    // A body has to be shareable between threads, which these streams are not.
    let stream = sync_wrapper(stream);
    Response::new(BodyExt::boxed(StreamBody::new(stream.map_ok(Frame::data))))
}

/// Moves a stream into a task of its own, so that what is left of it here is a channel.
fn sync_wrapper(
    stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        loop {
            let item = tokio::select! {
                item = stream.next() => item,
                () = sender.closed() => return,
            };
            let Some(item) = item else { return };
            if sender.send(item).await.is_err() {
                return;
            }
        }
    });
    futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_cannot_open_the_machine() {
        for (assignment, allowed) in [
            ("cpus=2", true),
            ("shares-=/data", true),
            ("shares+=/", false),
            ("shares=/", false),
            (" shares =/", false),
            ("share_home=true", false),
            ("share_home=", false),
            ("share_home=false", true),
            ("publish_address=0.0.0.0", false),
            ("publish_address=127.0.0.1", true),
            ("publish_address=", true),
        ] {
            let assignments = [assignment.to_owned()];
            let browser = permit(Caller::Browser, &assignments);
            assert_eq!(browser.is_ok(), allowed, "{assignment}");
            assert!(permit(Caller::Local, &assignments).is_ok());
        }
    }
}
