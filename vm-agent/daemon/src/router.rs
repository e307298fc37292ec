//! Which handler serves a request: each part of the API matches its own paths and passes on the rest.

use crate::error::{ApiError, ApiResult};
use crate::http_message::{ApiRequest, ApiResponse};
use crate::state::Daemon;
use crate::{archive, build, container, exec, image, network, store_check, system, volume};
use futures::future::BoxFuture;
use std::sync::Arc;
use tracing::Instrument;

/// What a part's `route` says of a request.
// A request is passed on by value a few times and never stored: a box would only cost an allocation.
#[allow(clippy::large_enum_variant)]
pub enum Routed {
    Handled(BoxFuture<'static, ApiResult<ApiResponse>>),
    NotMine(ApiRequest),
}

/// A handler that is dropped in the middle when its client goes: reads, streams, waits.
pub fn handle<F>(handler: F) -> Routed
where
    F: Future<Output = ApiResult<ApiResponse>> + Send + 'static,
{
    Routed::Handled(Box::pin(handler))
}

/// A handler that runs to its end even when its client goes: whatever changes state.
pub fn complete<F>(handler: F) -> Routed
where
    F: Future<Output = ApiResult<ApiResponse>> + Send + 'static,
{
    let traced = crate::trace_context::scope(crate::trace_context::current(), handler);
    handle(async move {
        let task = tokio::spawn(traced.instrument(tracing::Span::current()));
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a handler panicked");
            Err(ApiError::internal(
                "the daemon failed inside; its log has more",
            ))
        })
    })
}

type Part = fn(Arc<Daemon>, ApiRequest) -> Routed;

/// `archive` and `exec` come before `container`, whose paths they share.
const PARTS: [Part; 10] = [
    system::route,
    archive::route,
    archive::route_files,
    exec::route,
    container::route,
    image::route,
    network::route,
    volume::route,
    build::route,
    store_check::route,
];

pub async fn route(daemon: Arc<Daemon>, mut request: ApiRequest) -> ApiResult<ApiResponse> {
    for part in PARTS {
        match part(daemon.clone(), request) {
            Routed::Handled(handler) => return handler.await,
            Routed::NotMine(back) => request = back,
        }
    }
    Err(ApiError::not_found("page not found"))
}
