//! The pages' backend: each command hands a request on to the host service, which does for it what it would do for a browser.

use futures::StreamExt;
use http_body_util::{BodyExt, Limited};
use longshore_host_api::types::{StreamHead, StreamRequest, TerminalKind};
use longshore_host_api::{ApiError, Client, ErrorCode};
use serde::Serialize;
use tauri::State;
use tauri::ipc::{InvokeBody, Request, Response};

use crate::streams::Streams;

/// No list of an engine in use is so long.
const MAX_ANSWER: usize = 64 << 20;

/// An answer with an error status, or none at all.
#[derive(Serialize)]
pub struct Refusal {
    status: u16,
    text: String,
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self {
            status: error.code.http_status(),
            text: serde_json::to_string(&error).unwrap_or_default(),
        }
    }
}

/// One request and its whole answer.
#[tauri::command]
pub async fn ask(request: StreamRequest, client: State<'_, Client>) -> Result<Response, Refusal> {
    let response = client.page(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|e| broken_off(&*e))?
        .to_bytes();
    if status.is_success() {
        return Ok(Response::new(body.to_vec()));
    }
    Err(Refusal {
        status: status.as_u16(),
        text: String::from_utf8_lossy(&body).into_owned(),
    })
}

#[derive(Serialize)]
pub struct Opened {
    id: u32,
    head: StreamHead,
}

/// One request; its answer is read piece by piece.
#[tauri::command]
pub async fn open_stream(
    request: StreamRequest,
    client: State<'_, Client>,
    streams: State<'_, Streams>,
) -> Result<Opened, Refusal> {
    let response = client.page(request).await?;
    let head = StreamHead {
        status: response.status().as_u16(),
        content_type: response
            .headers()
            .get("content-type")
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned),
    };
    let pieces = response
        .into_body()
        .into_data_stream()
        .map(|piece| piece.map_err(|e| broken_off(&e)));
    let id = streams.add_answer(pieces)?;
    Ok(Opened { id, head })
}

#[tauri::command]
pub async fn open_terminal(
    kind: TerminalKind,
    name: String,
    client: State<'_, Client>,
    streams: State<'_, Streams>,
) -> Result<u32, Refusal> {
    Ok(streams.add_terminal(client.page_terminal(kind, &name).await?)?)
}

/// The next piece of a stream; empty at its end.
#[tauri::command]
pub async fn read(id: u32, streams: State<'_, Streams>) -> Result<Response, Refusal> {
    Ok(Response::new(streams.read(id).await?))
}

/// Input of a terminal: raw bytes, with the stream's number in the header `stream`.
#[tauri::command]
pub async fn write(request: Request<'_>, streams: State<'_, Streams>) -> Result<(), Refusal> {
    let id = request.headers().get("stream");
    let id = id.and_then(|v| v.to_str().ok()?.parse().ok());
    let (Some(id), InvokeBody::Raw(data)) = (id, request.body()) else {
        return Err(ApiError::invalid("the input is not understood").into());
    };
    Ok(streams.write(id, data).await?)
}

#[tauri::command]
pub fn close(id: u32, streams: State<'_, Streams>) {
    streams.close(id);
}

fn broken_off(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(
        ErrorCode::NoService,
        format!("the service's answer broke off: {error}"),
    )
}
