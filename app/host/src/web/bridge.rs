//! WebSockets: what a browser cannot have over plain requests.
//!
//! A browser opens six connections to one server, so that whatever streams has a socket of its own; and it cannot upgrade a
//! connection as Docker's terminals want it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use longshore_host_api::ApiError;
use longshore_host_api::types::{StreamHead, StreamRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::docker;
use crate::api::{self, Body};
use crate::service::Service;

/// The longest message of a browser: a pasted text, a request.
const MAX_MESSAGE: usize = 1 << 20;
/// Bytes of a terminal that travel in one message.
const PIECE: usize = 64 * 1024;

type Socket = WebSocketStream<TokioIo<Upgraded>>;
type Sink = SplitSink<Socket, Message>;
type Source = SplitStream<Socket>;

/// What a WebSocket carries.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    Stream,
    Exec(String),
    Attach(String),
}

impl Kind {
    pub fn of(inner: &str) -> Option<Self> {
        let id = |text: &str| docker::is_name(text).then(|| text.to_owned());
        match inner.strip_prefix('/')?.split_once('/') {
            None if inner == "/stream" => Some(Kind::Stream),
            Some(("exec", name)) => id(name).map(Kind::Exec),
            Some(("attach", name)) => id(name).map(Kind::Attach),
            _ => None,
        }
    }

    /// The engine's side of a terminal.
    pub async fn open(&self, docker: &Path) -> Result<TokioIo<Upgraded>, ApiError> {
        match self {
            Kind::Exec(id) => {
                let body = Bytes::from_static(br#"{"Detach":false,"Tty":true}"#);
                docker::hijack(&format!("/exec/{id}/start"), body, docker).await
            }
            Kind::Attach(id) => {
                let path = format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1&stderr=1");
                docker::hijack(&path, Bytes::new(), docker).await
            }
            Kind::Stream => Err(api::not_found()),
        }
    }
}

/// Answers the handshake and serves the socket in a task of its own.
pub fn upgrade(
    mut request: Request<Incoming>,
    kind: Kind,
    service: Arc<Service>,
    end: CancellationToken,
) -> Result<Response<Body>, ApiError> {
    let accept = request
        .headers()
        .get(header::SEC_WEBSOCKET_KEY)
        .filter(|_| *request.method() == Method::GET)
        .map(|key| derive_accept_key(key.as_bytes()))
        .ok_or_else(|| ApiError::invalid("this address is for WebSockets"))?;
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let served = async {
            match upgraded.await {
                Ok(client) => serve(client, kind, service).await,
                Err(error) => tracing::debug!(%error, "a WebSocket could not be opened"),
            }
        };
        tokio::select! {
            () = served => {}
            () = end.cancelled() => {}
        }
    });
    let accept = HeaderValue::from_str(&accept).map_err(|e| ApiError::internal(e.to_string()))?;
    let mut response = Response::new(api::whole(Vec::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

async fn serve(client: Upgraded, kind: Kind, service: Arc<Service>) {
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let socket =
        WebSocketStream::from_raw_socket(TokioIo::new(client), Role::Server, Some(limits)).await;
    let (sink, source) = socket.split();
    let docker = service.home().docker_socket();
    let ended = match kind {
        Kind::Stream => stream(sink, source, &service).await,
        Kind::Exec(_) | Kind::Attach(_) => terminal(sink, source, kind.open(&docker).await).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a WebSocket ended");
    }
}

/// One request, as the first message tells it; its head comes back as text, its body as binary messages.
async fn stream(mut sink: Sink, mut source: Source, service: &Arc<Service>) -> Result<(), Error> {
    let Some(Message::Text(text)) = source.next().await.transpose()? else {
        return Ok(());
    };
    let answered = tokio::select! {
        answered = ask(&text, service) => answered,
        () = closed(&mut source) => return Ok(()),
    };
    let response = answered.unwrap_or_else(|e| api::error(&e));
    let head = StreamHead {
        status: response.status().as_u16(),
        content_type: response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned),
    };
    let head = serde_json::to_string(&head).unwrap_or_default();
    sink.send(Message::text(head)).await?;
    let mut body = response.into_body().into_data_stream();
    let forward = async {
        while let Some(bytes) = body.next().await {
            match bytes {
                Ok(bytes) => sink.send(Message::Binary(bytes)).await?,
                Err(error) => return close(&mut sink, CloseCode::Error, &error.to_string()).await,
            }
        }
        close(&mut sink, CloseCode::Normal, "").await
    };
    tokio::select! {
        sent = forward => sent,
        // The request's own connection ends with its body, which is dropped here.
        () = closed(&mut source) => Ok(()),
    }
}

async fn ask(text: &str, service: &Arc<Service>) -> Result<Response<Body>, ApiError> {
    let asked: StreamRequest = serde_json::from_str(text)
        .map_err(|e| ApiError::invalid(format!("the request is not understood: {e}")))?;
    let bad = |e: http::Error| ApiError::invalid(format!("the request is not understood: {e}"));
    let request = Request::builder()
        .method(asked.method.as_str())
        .uri(&asked.path)
        .header(header::CONTENT_TYPE, "application/json");
    let request = match &asked.registry_auth {
        Some(auth) => request.header("x-registry-auth", auth),
        None => request,
    };
    let body = asked.body.unwrap_or_default();
    let request = request.body(super::body(body.into())).map_err(bad)?;
    let path = request.uri().path().to_owned();
    if !asked.path.starts_with('/') || !super::is_served(&path) {
        return Err(api::not_found());
    }
    super::forward(request, &path, service).await
}

/// Returns when the browser has closed its side.
async fn closed(source: &mut Source) {
    while let Some(Ok(message)) = source.next().await {
        if message.is_close() {
            return;
        }
    }
}

/// Carries a terminal: binary and text messages are its input, its output is binary.
async fn terminal(
    mut sink: Sink,
    source: Source,
    opened: Result<TokioIo<Upgraded>, ApiError>,
) -> Result<(), Error> {
    let stream = match opened {
        Ok(stream) => stream,
        Err(error) => return close(&mut sink, CloseCode::Error, &error.message).await,
    };
    let (mut output, input) = tokio::io::split(stream);
    let outward = async {
        let mut buffer = vec![0; PIECE];
        loop {
            match output.read(&mut buffer).await {
                Ok(0) => return close(&mut sink, CloseCode::Normal, "").await,
                Ok(length) => {
                    let piece = Bytes::copy_from_slice(&buffer[..length]);
                    sink.send(Message::Binary(piece)).await?;
                }
                Err(error) => return close(&mut sink, CloseCode::Error, &error.to_string()).await,
            }
        }
    };
    tokio::select! {
        ended = outward => ended,
        _ = inward(source, input) => Ok(()),
    }
}

async fn inward(
    mut source: Source,
    mut input: impl tokio::io::AsyncWrite + Unpin,
) -> io::Result<()> {
    while let Some(Ok(message)) = source.next().await {
        match message {
            Message::Binary(bytes) => input.write_all(&bytes).await?,
            Message::Text(text) => input.write_all(text.as_bytes()).await?,
            Message::Close(_) => break,
            _ => {}
        }
    }
    docker::end_input(&mut input).await;
    Ok(())
}

/// A reason has at most 123 bytes (RFC 6455, 5.5).
async fn close(sink: &mut Sink, code: CloseCode, reason: &str) -> Result<(), Error> {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let frame = CloseFrame {
        code,
        reason: reason[..end].into(),
    };
    match sink.send(Message::Close(Some(frame))).await {
        Err(Error::ConnectionClosed) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_sockets() {
        let table = [
            ("/stream", Some(Kind::Stream)),
            ("/exec/abc", Some(Kind::Exec("abc".into()))),
            ("/attach/my-web.1", Some(Kind::Attach("my-web.1".into()))),
            ("/exec/", None),
            ("/exec/a/b", None),
            ("/exec/a%2fb", None),
            ("/streams", None),
            ("/", None),
            ("", None),
        ];
        for (path, want) in table {
            assert_eq!(Kind::of(path), want, "{path}");
        }
    }
}
