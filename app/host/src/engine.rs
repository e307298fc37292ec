//! Is there a Docker engine at the other end? `GET /version` tells.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
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

/// Asks the engine at the other end of `stream`.
pub async fn version<S>(stream: S, patience: Duration) -> Result<Version, EngineError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::time::timeout(patience, ask(stream))
        .await
        .map_err(|_| EngineError::Silent(patience))?
}

async fn ask<S>(stream: S) -> Result<Version, EngineError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = http::Request::get("/version")
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
