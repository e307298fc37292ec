//! The pages' backend: each command hands a request on to the host service, which does for it what it would do for a browser.

use futures::StreamExt;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use longshore_host_api::types::{StreamHead, StreamRequest, TerminalKind, UploadRequest};
use longshore_host_api::{ApiError, Client, ErrorCode};
use serde::Serialize;
use tauri::State;
use tauri::ipc::{InvokeBody, Request, Response};

use crate::streams::Streams;
use crate::uploads::{self, Uploads as AnyUploads};

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
    Ok(Response::new(whole(client.page(request).await?).await?))
}

/// The body of an answer that says yes.
async fn whole(response: http::Response<Incoming>) -> Result<Vec<u8>, Refusal> {
    let body = succeeded(response).await?.into_body();
    Ok(collect(body).await?)
}

/// An answer that says yes, its body unread; what another says.
pub async fn succeeded(
    response: http::Response<Incoming>,
) -> Result<http::Response<Incoming>, Refusal> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = collect(response.into_body()).await?;
    Err(Refusal {
        status: status.as_u16(),
        text: String::from_utf8_lossy(&body).into_owned(),
    })
}

async fn collect(body: Incoming) -> Result<Vec<u8>, ApiError> {
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    Ok(body.map_err(|e| broken_off(&*e))?.to_bytes().to_vec())
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
    let (Some(id), InvokeBody::Raw(data)) = (number(&request, "stream"), request.body()) else {
        return Err(ApiError::invalid("the input is not understood").into());
    };
    Ok(streams.write(id, data).await?)
}

#[tauri::command]
pub fn close(id: u32, streams: State<'_, Streams>) {
    streams.close(id);
}

pub type Uploads = AnyUploads<Result<Vec<u8>, Refusal>>;

/// A request with a body of any size, which the page then sends piece by piece; gives its number.
#[tauri::command]
pub async fn open_upload(
    request: UploadRequest,
    client: State<'_, Client>,
    uploads: State<'_, Uploads>,
) -> Result<u32, Refusal> {
    let (input, pieces) = uploads::pieces();
    let client = client.inner().clone();
    let sending = async move { whole(client.page_upload(request, pieces).await?).await };
    Ok(uploads.add(input, tokio::spawn(sending))?)
}

/// The next piece: raw bytes, with the upload's number in the header `upload`. `false` when no more is wanted.
#[tauri::command]
pub async fn write_upload(
    request: Request<'_>,
    uploads: State<'_, Uploads>,
) -> Result<bool, Refusal> {
    let (Some(id), InvokeBody::Raw(data)) = (number(&request, "upload"), request.body()) else {
        return Err(ApiError::invalid("the input is not understood").into());
    };
    Ok(uploads.write(id, data).await?)
}

/// All has been sent: the answer.
#[tauri::command]
pub async fn end_upload(id: u32, uploads: State<'_, Uploads>) -> Result<Response, Refusal> {
    Ok(Response::new(uploads.end(id).await??))
}

#[tauri::command]
pub fn drop_upload(id: u32, uploads: State<'_, Uploads>) {
    uploads.drop_one(id);
}

fn number(request: &Request<'_>, header: &str) -> Option<u32> {
    request.headers().get(header)?.to_str().ok()?.parse().ok()
}

pub fn broken_off(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(
        ErrorCode::NoService,
        format!("the service's answer broke off: {error}"),
    )
}
