//! `POST /containers/{id}/wait`: answers at once with its headers, and with the exit code when there is one.

use crate::error::{ApiError, ApiResult};
use crate::http_message::{self, ApiRequest, ApiResponse};
use crate::state::Daemon;
use bytes::Bytes;
use serde_json::json;
use std::sync::Arc;

pub async fn serve(daemon: Arc<Daemon>, request: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    let condition = request
        .query
        .non_empty("condition")
        .unwrap_or("not-running")
        .to_owned();
    if !matches!(condition.as_str(), "not-running" | "next-exit" | "removed") {
        return Err(ApiError::bad_request(format!(
            "invalid condition: \"{condition}\""
        )));
    }
    let entry = daemon.containers.entry(&id)?;
    // Taken before the headers go out: the client starts the container as soon as it has them.
    let mut exits = entry.exits.subscribe();
    let (before, _) = *exits.borrow_and_update();
    let mut removed = entry.removed.subscribe();
    let mut states = entry.watch();
    let answer = async_stream::stream! {
        let _entry = entry.clone();
        let code = match condition.as_str() {
            "next-exit" => match exits.wait_for(|(count, _)| *count > before).await {
                Ok(seen) => seen.1,
                Err(_) => return,
            },
            "removed" => {
                if removed.wait_for(|gone| *gone).await.is_err() {
                    return;
                }
                entry.now().state.exit_code
            }
            // A container that was never started counts as not running, as under Docker.
            _ => match states.wait_for(|container| !container.running).await {
                Ok(container) => container.state.exit_code,
                Err(_) => return,
            },
        };
        yield Ok(Bytes::from(json!({ "StatusCode": code }).to_string() + "\n"));
    };
    Ok(http_message::stream("application/json", answer))
}
