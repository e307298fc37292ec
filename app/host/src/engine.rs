//! Questions to the engine over HTTP: is one there (`GET /version`), and is its store whole (`GET /longshore/store`)?

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("cannot speak HTTP with the engine: {0}")]
    Http(#[from] hyper::Error),
    #[error("the engine answered {0}")]
    Status(http::StatusCode),
    #[error("the engine's answer is not understood: {0}")]
    Answer(String),
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
}

/// What the engine says of itself (Engine API, `SystemVersion`).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    pub version: String,
    pub api_version: String,
}

/// What the engine found in its store, every blob read and hashed (`store_check.rs` in the daemon).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Store {
    pub blobs: u64,
    pub bytes: u64,
    pub snapshots: u64,
    pub images: u64,
    pub containers: u64,
    pub volumes: u64,
    /// A line each.
    pub problems: Vec<String>,
}

/// Asks the engine at the other end of `stream`.
pub async fn version<S>(stream: S, patience: Duration) -> Result<Version, EngineError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    within(patience, ask(stream, "/version")).await
}

pub async fn store<S>(stream: S, patience: Duration) -> Result<Store, EngineError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    within(patience, ask(stream, "/longshore/store")).await
}

/// Any answer of the engine to a GET, as it is.
pub async fn value<S>(
    stream: S,
    path: &str,
    patience: Duration,
) -> Result<serde_json::Value, EngineError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    within(patience, ask(stream, path)).await
}

async fn within<T>(
    patience: Duration,
    asked: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    tokio::time::timeout(patience, asked)
        .await
        .map_err(|_| EngineError::Silent(patience))?
}

async fn ask<S, T>(stream: S, path: &str) -> Result<T, EngineError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: DeserializeOwned,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = http::Request::get(path)
        .header(http::header::HOST, "docker")
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| EngineError::Answer(e.to_string()))?;
    let response = sender.send_request(request).await?;
    if !response.status().is_success() {
        return Err(EngineError::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), 1 << 20)
        .collect()
        .await
        .map_err(|e| EngineError::Answer(e.to_string()))?;
    connection.abort();
    serde_json::from_slice(&body.to_bytes())
        .map_err(|e| EngineError::Answer(io::Error::from(e).to_string()))
}
