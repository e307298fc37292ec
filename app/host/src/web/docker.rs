//! Requests to the Docker API, through the forwarded socket like any client's.

use std::io;
use std::path::Path;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use longshore_host_api::{ApiError, ErrorCode};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use crate::api::Body;
use crate::credentials;

/// An answer that is taken whole is never larger.
const MAX_ANSWER: usize = 1 << 20;
/// The head of an answer of the guest is never larger.
const MAX_HEAD: usize = 64 * 1024;
/// What may pass from the browser to the daemon, and back.
const REQUEST_HEADERS: [HeaderName; 4] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::ACCEPT,
    REGISTRY_AUTH,
];
const ANSWER_HEADERS: [HeaderName; 3] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    HeaderName::from_static("x-docker-container-path-stat"),
];

const REGISTRY_AUTH: HeaderName = HeaderName::from_static("x-registry-auth");

/// Adds the user's sign-in to a pull or a push, as the docker command would; the page that asks never sees it.
pub async fn sign(request: &mut Request<Body>) -> Result<(), ApiError> {
    if request.headers().contains_key(REGISTRY_AUTH) || *request.method() != http::Method::POST {
        return Ok(());
    }
    let Some(image) = image_of(request.uri()) else {
        return Ok(());
    };
    if let Some(header) = credentials::header_for(&image).await? {
        let value = HeaderValue::from_str(&header);
        let mut value = value.map_err(|e| ApiError::internal(e.to_string()))?;
        value.set_sensitive(true);
        request.headers_mut().insert(REGISTRY_AUTH, value);
    }
    Ok(())
}

/// The image that a request pulls or pushes.
fn image_of(uri: &http::Uri) -> Option<String> {
    let path = uri.path();
    let found = match path {
        "/images/create" => {
            let mut pairs = uri.query()?.split('&');
            pairs.find_map(|pair| pair.strip_prefix("fromImage="))?
        }
        _ => path.strip_prefix("/images/")?.strip_suffix("/push")?,
    };
    decoded(found).filter(|name| !name.is_empty())
}

/// What a name may consist of (Docker's `RestrictedNameChars`): nothing that could lead elsewhere in an address.
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// `%XX` as the byte that it is.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

/// Carries one request. Both bodies stream; the guest's side is closed when the browser's goes.
pub async fn forward(request: Request<Body>, socket: &Path) -> Result<Response<Body>, ApiError> {
    let (head, body) = request.into_parts();
    let mut outward = Request::new(body);
    *outward.method_mut() = head.method;
    *outward.uri_mut() = head.uri;
    *outward.headers_mut() = pick(&head.headers, &REQUEST_HEADERS);
    let (response, alive) = send(outward, socket).await?;
    let (head, body) = response.into_parts();
    let guarded = body.map_err(io::Error::other).map_frame(move |frame| {
        // The connection lives as long as its answer is read.
        let _ = &alive;
        frame
    });
    let mut inward = Response::new(guarded.boxed());
    *inward.status_mut() = head.status;
    *inward.headers_mut() = pick(&head.headers, &ANSWER_HEADERS);
    // Who follows a link to it gets a file: nothing that a container holds is ever shown as a page of ours.
    let kept = HeaderValue::from_static("attachment");
    inward
        .headers_mut()
        .insert(header::CONTENT_DISPOSITION, kept);
    Ok(inward)
}

/// One request, and its answer as a whole.
pub async fn ask(request: Request<Body>, socket: &Path) -> Result<(StatusCode, Bytes), ApiError> {
    let (response, _alive) = send(request, socket).await?;
    let status = response.status();
    let answer = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|e| ApiError::internal(format!("read the engine's answer: {e}")))?;
    Ok((status, answer.to_bytes()))
}

/// An upgraded connection to the daemon: a POST of `body` to `path`, answered by raw bytes in both directions.
pub async fn hijack(
    path: &str,
    body: Bytes,
    socket: &Path,
) -> Result<TokioIo<hyper::upgrade::Upgraded>, ApiError> {
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "tcp")
        .body(super::body(body))
        .map_err(|e| ApiError::internal(e.to_string()))?;
    let (response, alive) = send(request, socket).await?;
    if !response.status().is_informational() && !response.status().is_success() {
        return Err(refusal(response).await);
    }
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(ApiError::internal("the engine did not open a terminal"));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(|e| gone(&e))?;
    alive.disarm();
    Ok(TokioIo::new(upgraded))
}

/// Ends a connection when it is dropped.
struct Alive(Option<CancellationToken>);

impl Alive {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        if let Some(token) = &self.0 {
            token.cancel();
        }
    }
}

async fn send(
    mut request: Request<Body>,
    socket: &Path,
) -> Result<(Response<hyper::body::Incoming>, Alive), ApiError> {
    let stream = longshore_local_socket::connect(socket)
        .await
        .map_err(|e| gone(&e))?;
    request
        .headers_mut()
        .insert(header::HOST, HeaderValue::from_static("docker"));
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| gone(&e))?;
    let cancel = CancellationToken::new();
    let alive = Alive(Some(cancel.clone()));
    tokio::spawn(async move {
        tokio::select! {
            _ = connection.with_upgrades() => {}
            () = cancel.cancelled() => {}
        }
    });
    let response = sender.send_request(request).await.map_err(|e| gone(&e))?;
    Ok((response, alive))
}

fn gone(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(
        ErrorCode::Unavailable,
        format!("the engine does not answer: {error}"),
    )
    .with_hint("look at: longshore status, longshore doctor")
}

/// The engine's own words: `{"message": …}`.
async fn refusal(response: Response<hyper::body::Incoming>) -> ApiError {
    #[derive(serde::Deserialize)]
    struct Refusal {
        message: String,
    }
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_HEAD);
    let bytes = body.collect().await.map(|b| b.to_bytes());
    match serde_json::from_slice::<Refusal>(&bytes.unwrap_or_default()) {
        Ok(refusal) => ApiError::conflict(refusal.message),
        Err(_) => ApiError::conflict(format!("the engine answered {status}")),
    }
}

fn pick(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    names
        .iter()
        .filter_map(|name| Some((name.clone(), headers.get(name)?.clone())))
        .collect()
}

/// Sends a close that half-closes the guest's side.
pub async fn end_input(stream: &mut (impl tokio::io::AsyncWrite + Unpin)) {
    let _ = stream.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_and_pushes_name_their_image() {
        for (uri, image) in [
            (
                "/images/create?fromImage=a%3A5000%2Fb&tag=1",
                Some("a:5000/b"),
            ),
            ("/images/a:5000/b/push?tag=1", Some("a:5000/b")),
            ("/images/ghcr.io%2Fx/push", Some("ghcr.io/x")),
            ("/images/create?fromSrc=-", None),
            ("/images/x/tag?repo=y", None),
            ("/containers/create", None),
        ] {
            assert_eq!(image_of(&uri.parse().unwrap()).as_deref(), image, "{uri}");
        }
    }
}
