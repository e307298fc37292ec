//! The newest containers in the tray, kept true by the engine's events, and what a click asks of one.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use longshore_host_api::types::{State, StreamRequest};
use longshore_host_api::{ApiError, Client};
use tauri::{AppHandle, Manager};

use crate::backend::broken_off;
use crate::engine::Engine;
use crate::tray_menu::{Container, MOST, Verb, lines};
use crate::{news, tray, window};

/// A menu changes no more often than this: containers start and end by the dozen.
const SETTLE: Duration = Duration::from_millis(300);
/// An engine that gives no events is asked again, not all the time.
const PAUSE: Duration = Duration::from_secs(5);
/// A handful of containers takes a few KiB, and as much again for each port and label.
const MAX_ANSWER: usize = 8 << 20;
/// Those that change what the menu shows.
const EVENTS: &str = r#"{"type":["container"],"event":["create","start","die","destroy","rename","pause","unpause"]}"#;

/// Keeps the tray's containers true while the engine runs.
pub fn follow(app: &AppHandle) {
    let app = app.clone();
    let mut states = app.state::<Engine>().subscribe();
    tauri::async_runtime::spawn(async move {
        let runs = |state: &Option<State>| *state == Some(State::Running);
        while states.wait_for(runs).await.is_ok() {
            tokio::select! {
                () = keep_shown(&app) => {}
                _ = states.wait_for(|state| !runs(state)) => {}
            }
            tray::show_containers(&app, None);
        }
    });
}

async fn keep_shown(app: &AppHandle) {
    let client = app.state::<Client>().inner().clone();
    loop {
        // The engine may be stopping, which its state tells next.
        let _ = show_until_lost(app, &client).await;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn show_until_lost(app: &AppHandle, client: &Client) -> Result<(), ApiError> {
    let events = ask(client, "GET", events_path()).await?;
    let mut events = events.into_body().into_data_stream();
    loop {
        // The events are open before the list is read, so that nothing falls between them.
        tray::show_containers(app, Some(lines(newest(client).await?)));
        // What the events say is in the list: that there was one is enough.
        let Some(event) = events.next().await else {
            return Ok(());
        };
        event.map_err(|e| broken_off(&e))?;
        tokio::time::sleep(SETTLE).await;
        while let Some(Some(Ok(_))) = events.next().now_or_never() {}
    }
}

fn events_path() -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("filters", EVENTS)
        .finish();
    format!("/docker/events?{query}")
}

async fn newest(client: &Client) -> Result<Vec<Container>, ApiError> {
    let path = format!("/docker/containers/json?limit={MOST}");
    let body = ask(client, "GET", path).await?.into_body();
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let body = body.map_err(|e| broken_off(&*e))?.to_bytes();
    serde_json::from_slice(&body)
        .map_err(|e| ApiError::internal(format!("the list of containers is not understood: {e}")))
}

/// Does what a click on a container's line asks for.
pub fn act(app: &AppHandle, verb: Verb, id: &str) {
    let action = match verb {
        Verb::Open => return window::show_container(app, id),
        Verb::Start => "start",
        Verb::Stop => "stop",
    };
    let client = app.state::<Client>().inner().clone();
    let path = format!("/docker/containers/{id}/{action}");
    tauri::async_runtime::spawn(async move {
        if let Err(error) = ask(&client, "POST", path).await {
            let title = match verb {
                Verb::Stop => "The container could not be stopped",
                _ => "The container could not be started",
            };
            news::tell(title, &error.message);
        }
    });
}

/// An answer that says yes, its body unread.
async fn ask(
    client: &Client,
    method: &str,
    path: String,
) -> Result<http::Response<Incoming>, ApiError> {
    let request = StreamRequest {
        method: method.to_owned(),
        path,
        body: None,
        registry_auth: None,
    };
    let response = client.page(request).await?;
    if response.status().is_success() {
        return Ok(response);
    }
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await;
    let body = body.map_err(|e| broken_off(&*e))?.to_bytes();
    Err(ApiError::internal(reason(&body)))
}

/// What the engine says of a failure: `{"message": …}`.
fn reason(body: &[u8]) -> String {
    serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|said| Some(said.get("message")?.as_str()?.to_owned()))
        .unwrap_or_else(|| String::from_utf8_lossy(body).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_are_asked_for_in_a_valid_address() {
        let address: http::Uri = events_path().parse().unwrap();
        assert!(
            address
                .query()
                .unwrap()
                .starts_with("filters=%7B%22type%22")
        );
        assert!(serde_json::from_str::<serde_json::Value>(EVENTS).is_ok());
    }

    #[test]
    fn a_failure_says_what_the_engine_said() {
        assert_eq!(
            reason(br#"{"message":"no such container"}"#),
            "no such container"
        );
        assert_eq!(reason(b"bad gateway"), "bad gateway");
    }
}
