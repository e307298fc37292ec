//! The client: one connection for each request, as the service is on the same machine.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use longshore_local_socket as local_socket;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::doctor::Report;
use crate::error::{ApiError, ErrorCode};
use crate::home::Home;
use crate::program;
use crate::spawn;
use crate::types::{
    DataMove, EngineState, LogSource, Progress, SettingsChange, SettingsChanged, ShareRequest,
    StartRequest, Status, StreamRequest, TerminalKind, UiAddress, UploadRequest, Welcome,
};

/// Larger answers are not part of this API.
const MAX_ANSWER: usize = 16 << 20;
/// The longest line of a stream of events.
const MAX_LINE: usize = 1 << 20;
/// Whoever waits longer for the beginning of an answer looks whether the service still answers at all, which takes it no time.
const PATIENCE: Duration = Duration::from_secs(10);

/// A service, reached through its socket.
#[derive(Clone, Debug)]
pub struct Client {
    home: Home,
    may_spawn: bool,
}

/// Raw bytes after an upgrade.
pub type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

impl Client {
    /// A client that starts the service when it does not run.
    pub fn new(home: Home) -> Self {
        Self {
            home,
            may_spawn: true,
        }
    }

    /// A client that only looks: without a service, requests fail with [`ErrorCode::NoService`].
    pub fn without_spawn(home: Home) -> Self {
        Self {
            home,
            may_spawn: false,
        }
    }

    pub fn home(&self) -> &Home {
        &self.home
    }

    pub async fn status(&self) -> Result<Status, ApiError> {
        self.json(Method::GET, "/v1/status", &()).await
    }

    /// The engine's state, now and whenever it changes.
    pub async fn watch(
        &self,
    ) -> Result<impl Stream<Item = Result<EngineState, ApiError>> + use<>, ApiError> {
        Ok(lines(self.send(Method::GET, "/v1/watch", &()).await?))
    }

    /// Starts the VM; a service whose program was replaced since makes way for the new one before.
    pub async fn start(
        &self,
        request: &StartRequest,
    ) -> Result<impl Stream<Item = Result<Progress, ApiError>> + use<>, ApiError> {
        self.renew().await?;
        Ok(lines(self.send(Method::POST, "/v1/start", request).await?))
    }

    pub async fn stop(
        &self,
    ) -> Result<impl Stream<Item = Result<Progress, ApiError>> + use<>, ApiError> {
        Ok(lines(self.send(Method::POST, "/v1/stop", &()).await?))
    }

    /// Moves the data disk into another folder; the engine is stopped for it, and started again.
    pub async fn move_data(
        &self,
        folder: PathBuf,
    ) -> Result<impl Stream<Item = Result<Progress, ApiError>> + use<>, ApiError> {
        let request = DataMove { folder };
        Ok(lines(self.send(Method::POST, "/v1/data", &request).await?))
    }

    /// What the user has set, over the defaults.
    pub async fn settings(&self) -> Result<Map<String, Value>, ApiError> {
        self.json(Method::GET, "/v1/settings", &()).await
    }

    pub async fn change_settings(
        &self,
        assignments: Vec<String>,
    ) -> Result<SettingsChanged, ApiError> {
        self.json(
            Method::POST,
            "/v1/settings",
            &SettingsChange { assignments },
        )
        .await
    }

    pub async fn add_share(&self, path: String) -> Result<SettingsChanged, ApiError> {
        self.json(Method::POST, "/v1/shares", &ShareRequest { path })
            .await
    }

    pub async fn remove_share(&self, path: String) -> Result<SettingsChanged, ApiError> {
        self.json(Method::DELETE, "/v1/shares", &ShareRequest { path })
            .await
    }

    pub async fn doctor(&self) -> Result<Report, ApiError> {
        self.json(Method::GET, "/v1/doctor", &()).await
    }

    /// Whether all that the store holds is whole; takes as long as the disk takes to read it.
    pub async fn doctor_store(&self) -> Result<Report, ApiError> {
        self.json(Method::GET, "/v1/doctor/store", &()).await
    }

    /// What a diagnosis needs, secrets removed: tar, compressed with gzip.
    pub async fn diagnostics(&self) -> Result<Bytes, ApiError> {
        collect(self.send(Method::GET, "/v1/diagnostics", &()).await?).await
    }

    /// Runs a first container, which needs no registry; one that is there is started.
    pub async fn welcome(&self) -> Result<Welcome, ApiError> {
        self.json(Method::POST, "/v1/welcome", &()).await
    }

    /// Ends the service; the VM goes on.
    pub async fn shutdown(&self) -> Result<(), ApiError> {
        self.json(Method::POST, "/v1/shutdown", &()).await
    }

    /// Ends a service that an update has replaced, so that the next request starts the new one. While there is a VM the old one stays:
    /// Docker's clients have connections through it.
    async fn renew(&self) -> Result<(), ApiError> {
        let busy = self.home.vm_may_run() || self.home.data_move_file().exists();
        if busy || !self.may_spawn {
            return Ok(());
        }
        // Nobody starts the new one meanwhile: whoever answers is the one that was replaced.
        let Ok(_lock) = spawn::lock(self.home.spawn_lock()).await else {
            return Ok(());
        };
        if !program::is_replaced(&self.home) {
            return Ok(());
        }
        let Ok(mut connection) = local_socket::connect(&self.home.host_socket()).await else {
            return Ok(());
        };
        match Self::without_spawn(self.home.clone()).shutdown().await {
            Ok(()) => {}
            Err(error) if error.code == ErrorCode::NoAnswer => return Err(error),
            // Gone already, or one that does not know the request.
            Err(_) => return Ok(()),
        }
        // It sends nothing on this one, which breaks when it has gone, and its sockets with it.
        let _ = timeout(PATIENCE, connection.read_u8()).await;
        Ok(())
    }

    /// Opens the pages for a browser.
    pub async fn open_ui(&self) -> Result<UiAddress, ApiError> {
        self.json(Method::POST, "/v1/ui", &()).await
    }

    pub async fn close_ui(&self) -> Result<(), ApiError> {
        self.json(Method::DELETE, "/v1/ui", &()).await
    }

    /// The bytes of a log, as they come.
    pub async fn logs(
        &self,
        source: LogSource,
        follow: bool,
    ) -> Result<impl Stream<Item = Result<Bytes, ApiError>> + use<>, ApiError> {
        let path = format!("/v1/logs/{}?follow={follow}", source.as_str());
        Ok(data(self.send(Method::GET, &path, &()).await?))
    }

    /// The spans of one request, from every process of the guest: JSON lines.
    pub async fn trace(
        &self,
        id: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, ApiError>> + use<>, ApiError> {
        if id.is_empty() || !id.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(ApiError::invalid(format!(
                "{id:?} is not a trace id: 32 hexadecimal digits"
            )));
        }
        Ok(data(
            self.send(Method::GET, &format!("/v1/trace/{id}"), &())
                .await?,
        ))
    }

    /// A stream to a shell in the guest, in the frames of the agent's shell protocol.
    pub async fn shell(&self) -> Result<Upgraded, ApiError> {
        self.upgrade("/v1/shell", "longshore-shell").await
    }

    /// What a page asks, `/api/…` or `/docker/…`: the service does for it what it would do for a browser's.
    pub async fn page(&self, request: StreamRequest) -> Result<Response<Incoming>, ApiError> {
        let mut outward = Request::builder()
            .method(request.method.as_str())
            .uri(page_path(&request.path)?)
            .header(http::header::HOST, "longshore")
            .header(http::header::CONTENT_TYPE, "application/json");
        if let Some(auth) = &request.registry_auth {
            outward = outward.header("x-registry-auth", auth);
        }
        let body = Full::new(Bytes::from(request.body.unwrap_or_default()));
        self.exchange(outward.body(body).map_err(bad)?).await
    }

    /// The same with a body of any size: what of it has come is sent on, and no more is held.
    pub async fn page_upload(
        &self,
        request: UploadRequest,
        body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<Response<Incoming>, ApiError> {
        let outward = Request::builder()
            .method(request.method.as_str())
            .uri(page_path(&request.path)?)
            .header(http::header::HOST, "longshore")
            .header(http::header::CONTENT_TYPE, &request.content_type)
            .header(http::header::CONTENT_LENGTH, request.size);
        let body = StreamBody::new(Box::pin(body).map(|piece| piece.map(Frame::data)));
        self.exchange(outward.body(body).map_err(bad)?).await
    }

    /// A terminal for a page: of an exec that was created before, or a container's own.
    pub async fn page_terminal(&self, kind: TerminalKind, id: &str) -> Result<Upgraded, ApiError> {
        let kind = match kind {
            TerminalKind::Exec => "exec",
            TerminalKind::Attach => "attach",
        };
        self.upgrade(&format!("/page/{kind}/{id}"), "longshore-terminal")
            .await
    }

    async fn upgrade(&self, path: &str, protocol: &str) -> Result<Upgraded, ApiError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(http::header::HOST, "longshore")
            .header(http::header::CONNECTION, "Upgrade")
            .header(http::header::UPGRADE, protocol)
            .body(Full::default())
            .map_err(|e| ApiError::invalid(format!("the address is not understood: {e}")))?;
        let response = self.exchange(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(error_of(response).await);
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(broken)?;
        Ok(TokioIo::new(upgraded))
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let response = self.send(method, path, body).await?;
        let body = collect(response).await?;
        serde_json::from_slice(&body).map_err(|e| {
            ApiError::internal(format!(
                "the service's answer to {path} is not understood: {e}"
            ))
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Response<Incoming>, ApiError> {
        let body = serde_json::to_vec(body).map_err(|e| ApiError::internal(e.to_string()))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "longshore")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| ApiError::internal(e.to_string()))?;
        let safe = request.method().is_safe();
        let mut answer = self.ask(request.clone()).await;
        // A service that was killed takes connections until the system has closed all that it had.
        if matches!(answer, Err(NoAnswer::Gone(_))) && safe && self.may_spawn {
            answer = self.ask(request).await;
        }
        let response = answer?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(error_of(response).await)
        }
    }

    async fn exchange<B>(&self, request: Request<B>) -> Result<Response<Incoming>, ApiError>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Ok(self.ask(request).await?)
    }

    /// The beginning of an answer, however long it takes, but not from a service that has stopped to answer.
    async fn ask<B>(&self, request: Request<B>) -> Result<Response<Incoming>, NoAnswer>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = self.connect().await.map_err(NoAnswer::Unreached)?;
        let process = local_socket::server_process(&stream);
        let mut answer = pin!(ask(stream, request));
        let answer = match timeout(PATIENCE, &mut answer).await {
            Ok(answer) => answer,
            Err(_) => tokio::select! {
                answer = &mut answer => answer,
                () = self.is_silent() => return Err(NoAnswer::Silent(process)),
            },
        };
        answer.map_err(NoAnswer::Gone)
    }

    /// Ends when the service takes connections and does not answer even what needs no work.
    async fn is_silent(&self) {
        let probe = async {
            let stream = local_socket::connect(&self.home.host_socket()).await;
            let request = Request::head("/").header(http::header::HOST, "longshore");
            if let (Ok(stream), Ok(request)) = (stream, request.body(Full::<Bytes>::default())) {
                // Whatever comes of it: the service lives, or is gone, which whoever waits learns in its own way.
                let _ = ask(stream, request).await;
            }
        };
        if timeout(PATIENCE, probe).await.is_ok() {
            std::future::pending().await
        }
    }

    async fn connect(&self) -> Result<local_socket::Stream, ApiError> {
        let no_service = |why| ApiError::new(ErrorCode::NoService, why);
        if self.may_spawn {
            spawn::connect_or_spawn(&self.home)
                .await
                .map_err(|e| no_service(e.to_string()))
        } else {
            local_socket::connect(&self.home.host_socket())
                .await
                .map_err(|e| no_service(format!("the host service is not running: {e}")))
        }
    }
}

/// Why a request has no answer.
enum NoAnswer {
    Unreached(ApiError),
    Gone(hyper::Error),
    /// With the number of the process that should answer, where the system tells.
    Silent(Option<u32>),
}

impl From<NoAnswer> for ApiError {
    fn from(reason: NoAnswer) -> Self {
        match reason {
            NoAnswer::Unreached(error) => error,
            NoAnswer::Gone(error) => broken(error),
            NoAnswer::Silent(process) => ApiError::new(
                ErrorCode::NoAnswer,
                "the host service takes requests and does not answer",
            )
            .with_hint(format!(
                "end {} and try again: a running VM goes on",
                local_socket::named("longshore-host", process)
            )),
        }
    }
}

async fn ask<B>(
    stream: local_socket::Stream,
    request: Request<B>,
) -> hyper::Result<Response<Incoming>>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await
}

fn page_path(path: &str) -> Result<String, ApiError> {
    if !path.starts_with('/') {
        return Err(ApiError::invalid("the address is not understood"));
    }
    Ok(format!("/page{path}"))
}

fn bad(error: http::Error) -> ApiError {
    ApiError::invalid(format!("the request is not understood: {error}"))
}

fn broken(error: hyper::Error) -> ApiError {
    ApiError::new(
        ErrorCode::NoService,
        format!("the host service went away: {error}"),
    )
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, ApiError> {
    Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map(|body| body.to_bytes())
        .map_err(|e| {
            ApiError::new(
                ErrorCode::NoService,
                format!("the service's answer broke off: {e}"),
            )
        })
}

async fn error_of(response: Response<Incoming>) -> ApiError {
    let status = response.status();
    match collect(response).await {
        Ok(body) => serde_json::from_slice(&body)
            .unwrap_or_else(|_| ApiError::internal(format!("the service answered {status}"))),
        Err(error) => error,
    }
}

fn data(response: Response<Incoming>) -> impl Stream<Item = Result<Bytes, ApiError>> {
    response
        .into_body()
        .into_data_stream()
        .map(|chunk| chunk.map_err(broken))
}

/// Splits a body into JSON lines.
fn lines<T: DeserializeOwned>(
    response: Response<Incoming>,
) -> impl Stream<Item = Result<T, ApiError>> {
    let body = Box::pin(data(response));
    stream::try_unfold((body, Vec::new()), |(mut body, mut buffer)| async move {
        loop {
            if let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let event = serde_json::from_slice(&line).map_err(|e| {
                    ApiError::internal(format!("an event of the service is not understood: {e}"))
                })?;
                return Ok(Some((event, (body, buffer))));
            }
            match body.next().await {
                Some(chunk) => buffer.extend_from_slice(&chunk?),
                None => return Ok(None),
            }
            if buffer.len() > MAX_LINE {
                return Err(ApiError::internal("an event of the service is too long"));
            }
        }
    })
}
