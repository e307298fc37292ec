//! The same API for browsers and tests: HTTP and WebSocket on loopback, closed until somebody asks for it through `host.sock`.
//!
//! ```text
//! GET /?token=T                 one time: sets the session's cookie, goes to /s/SESSION/
//! GET /s/SESSION/               the pages
//!     /s/SESSION/api/…          what `host.sock` serves, but for what only the user's own shell may do
//!     /s/SESSION/docker/…       the Docker API, through the forwarded socket
//!     /s/SESSION/stream         WebSocket: one request of the two above, its answer as it comes
//!     /s/SESSION/exec/ID        WebSocket: a terminal of an exec that was created before
//!     /s/SESSION/attach/ID      WebSocket: a container's own terminal
//! ```
//! A browser sends cookies of 127.0.0.1 to every port of it, a container's published ones too: so the cookie belongs to a
//! path that nobody else knows, and the path alone opens nothing.

mod bridge;
pub mod docker;
mod files;
mod session;

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use longshore_host_api::{ApiError, pages};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::accept::accept;
use crate::api::{self, Body, Caller};
use crate::service::Service;
use session::Sessions;

/// Connections at once; a browser holds six and one for each stream.
const MAX_CONNECTIONS: usize = 256;
/// A client has so long to send the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(20);

/// The loopback listener, if it is open.
#[derive(Default)]
pub struct Web {
    open: Mutex<Option<Open>>,
}

struct Open {
    door: Arc<Door>,
    end: CancellationToken,
}

/// What every request is checked against.
struct Door {
    address: SocketAddr,
    sessions: Sessions,
}

impl Web {
    /// Opens the listener, if it is not open yet, and gives an address that works once.
    pub fn open(&self, service: &Arc<Service>) -> Result<String, ApiError> {
        files::check_present()?;
        let mut slot = self.lock();
        if let Some(open) = slot.as_ref() {
            return open.door.invitation();
        }
        let (listener, address) =
            listen().map_err(|e| ApiError::internal(format!("cannot listen on 127.0.0.1: {e}")))?;
        let door = Arc::new(Door {
            address,
            sessions: Sessions::default(),
        });
        let end = service.end().child_token();
        tracing::info!(%address, "serving browsers");
        tokio::spawn(serve(listener, door.clone(), service.clone(), end.clone()));
        let invitation = door.invitation();
        *slot = Some(Open { door, end });
        invitation
    }

    /// Closes the listener, its connections and its sessions.
    pub fn close(&self) {
        if let Some(open) = self.lock().take() {
            open.end.cancel();
            tracing::info!(address = %open.door.address, "no longer serving browsers");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listen() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((TcpListener::from_std(listener)?, address))
}

impl Door {
    fn invitation(&self) -> Result<String, ApiError> {
        let token = self.sessions.invite()?;
        Ok(format!("http://{}/?token={token}", self.address))
    }

    /// A page of another site cannot name our host and port here, not even after rebinding its own name to 127.0.0.1.
    fn is_host(&self, request: &Request<Incoming>) -> bool {
        text(request, &header::HOST) == Some(&self.address.to_string())
    }

    fn is_origin(&self, request: &Request<Incoming>) -> bool {
        text(request, &header::ORIGIN) == Some(&format!("http://{}", self.address))
    }
}

fn text<'a>(request: &'a Request<Incoming>, name: &header::HeaderName) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

async fn serve(
    listener: TcpListener,
    door: Arc<Door>,
    service: Arc<Service>,
    end: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    accept(listener, slots, end.clone(), "a browser", |client| {
        let (door, service, end) = (door.clone(), service.clone(), end.clone());
        async move {
            tokio::select! {
                () = connection(client, door, service, &end) => {}
                () = end.cancelled() => {}
            }
        }
    })
    .await;
}

async fn connection(
    client: TcpStream,
    door: Arc<Door>,
    service: Arc<Service>,
    end: &CancellationToken,
) {
    let _ = client.set_nodelay(true);
    let handler = service_fn(|request| {
        let (door, service, end) = (door.clone(), service.clone(), end.clone());
        async move {
            let accepts = text(&request, &header::ACCEPT);
            let by_hand = accepts.is_some_and(|a| a.starts_with("text/html"));
            let answer = route(request, &door, &service, end).await;
            let mut response = answer.unwrap_or_else(|e| match by_hand {
                true => page_of(&e),
                false => api::error(&e),
            });
            harden(&mut response, &door);
            Ok::<_, Infallible>(response)
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .serve_connection(TokioIo::new(client), handler)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a browser's connection ended");
    }
}

async fn route(
    request: Request<Incoming>,
    door: &Door,
    service: &Arc<Service>,
    end: CancellationToken,
) -> Result<Response<Body>, ApiError> {
    if !door.is_host(&request) {
        return Err(forbidden("this is not the host that was asked for"));
    }
    let path = request.uri().path().to_owned();
    if path == "/" {
        return enter(&request, door);
    }
    let (session, inner) = session::split(&path).ok_or_else(signed_out)?;
    if !door
        .sessions
        .knows(session, request.headers().get_all(header::COOKIE))
    {
        return Err(signed_out());
    }
    let upgrade = request.headers().contains_key(header::UPGRADE);
    let reads = matches!(*request.method(), Method::GET | Method::HEAD) && !upgrade;
    // Browsers may leave the header out where the page reads from its own site, and only there.
    let foreign = request.headers().contains_key(header::ORIGIN) || !reads;
    if foreign && !door.is_origin(&request) {
        return Err(forbidden("a page of another site has asked"));
    }
    dispatch(request, inner, service, end).await
}

async fn dispatch(
    request: Request<Incoming>,
    inner: String,
    service: &Arc<Service>,
    end: CancellationToken,
) -> Result<Response<Body>, ApiError> {
    match bridge::Kind::of(&inner) {
        Some(kind) => bridge::upgrade(request, kind, service.clone(), end),
        None if is_served(&inner) => {
            let request = request.map(|body| body.map_err(io::Error::other).boxed());
            forward(request, &inner, service).await
        }
        None if *request.method() == Method::GET => files::serve(&inner).await,
        None => Err(api::not_found()),
    }
}

/// What a page asks through the window, which hands it on over the local socket: a page may do there what it may in a browser.
pub async fn page(
    request: Request<Body>,
    inner: &str,
    service: &Arc<Service>,
) -> Result<Response<Body>, ApiError> {
    match bridge::Kind::of(inner) {
        Some(kind) => {
            let docker = service.home().docker_socket();
            let terminal = kind.open(&docker).await?;
            api::carry(request, "longshore-terminal", terminal)
        }
        None if is_served(inner) => forward(request, inner, service).await,
        None => Err(api::not_found()),
    }
}

/// The two APIs; everything else is a page.
fn is_served(inner: &str) -> bool {
    inner.starts_with("/api/") || inner.starts_with("/docker/")
}

/// Hands a request to the API it is for. `inner` is its path below the session.
async fn forward(
    mut request: Request<Body>,
    inner: &str,
    service: &Arc<Service>,
) -> Result<Response<Body>, ApiError> {
    let (path, to_docker) = match inner.strip_prefix("/docker") {
        Some(path) => (path, true),
        None => (inner.strip_prefix("/api").unwrap_or(inner), false),
    };
    let query = request.uri().query().map(|q| format!("?{q}"));
    let target = format!("{path}{}", query.unwrap_or_default());
    *request.uri_mut() = target
        .parse()
        .map_err(|_| ApiError::invalid("the address is not understood"))?;
    if to_docker {
        docker::sign(&mut request).await?;
        docker::forward(request, &service.home().docker_socket()).await
    } else {
        api::route(request, service, Caller::Browser).await
    }
}

/// The one-time token becomes a cookie that only this session's path gets.
fn enter(request: &Request<Incoming>, door: &Door) -> Result<Response<Body>, ApiError> {
    let token = request
        .uri()
        .query()
        .and_then(|q| q.split('&').find_map(|p| p.strip_prefix("token=")))
        .filter(|_| *request.method() == Method::GET)
        .ok_or_else(signed_out)?;
    let session = door.sessions.redeem(token).ok_or_else(signed_out)?;
    // No redirect: a browser that came from another site's link would not send a strict cookie along with it.
    let page = format!(
        "<!doctype html><title>Longshore</title><meta http-equiv=\"refresh\" content=\"0;url={}\">",
        session.path()
    );
    let mut response = Response::new(body(page.into()));
    let cookie =
        HeaderValue::from_str(&session.cookie()).map_err(|e| ApiError::internal(e.to_string()))?;
    let headers = response.headers_mut();
    headers.insert(header::SET_COOKIE, cookie);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    Ok(response)
}

fn signed_out() -> ApiError {
    forbidden("this address is used up or not yours").with_hint("open a new one with: longshore ui")
}

fn forbidden(why: &str) -> ApiError {
    ApiError::new(longshore_host_api::ErrorCode::Forbidden, why)
}

/// An error for who has typed an address or followed a link.
fn page_of(error: &ApiError) -> Response<Body> {
    let escaped = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    };
    let page = format!(
        "<!doctype html><meta charset=utf-8><meta name=color-scheme content=\"light dark\"><title>Longshore</title>\
         <body style=\"font: 15px system-ui; margin: 20vh auto; max-width: 30em\"><h1>Longshore</h1><p>{}</p><p>{}</p>",
        escaped(&error.message),
        escaped(error.hint.as_deref().unwrap_or_default())
    );
    let mut response = api::error(error);
    *response.body_mut() = body(page.into());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    response
}

/// Headers of every answer: the pages' policy, nobody frames us, nothing tells others our address.
fn harden(response: &mut Response<Body>, door: &Door) {
    let policy = pages::policy(&format!("'self' ws://{}", door.address));
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in [
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

/// A body of bytes that are all here.
fn body(bytes: Bytes) -> Body {
    http_body_util::Full::new(bytes)
        .map_err(|never: Infallible| match never {})
        .boxed()
}

#[cfg(all(test, unix))]
mod tests;
