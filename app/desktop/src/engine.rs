//! The engine as the tray shows it: its state as it changes, and what a click asks of it.

use std::sync::Mutex;
use std::time::Duration;

use futures::{Stream, StreamExt};
use longshore_host_api::types::{EngineState, Progress, StartRequest, State};
use longshore_host_api::{ApiError, Client};
use tauri::{AppHandle, Manager};
use tokio::sync::watch;

use crate::{news, tray};

/// A service that does not come up is asked for again, not all the time.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

/// What the engine was last seen to do; nothing while the service does not answer.
#[derive(Default)]
pub struct Engine {
    state: watch::Sender<Option<State>>,
    /// The warning that was told last.
    told: Mutex<Option<String>>,
}

impl Engine {
    pub fn state(&self) -> Option<State> {
        *self.state.borrow()
    }

    /// The states to come, and the one that is.
    pub fn subscribe(&self) -> watch::Receiver<Option<State>> {
        self.state.subscribe()
    }

    /// Gives what was there before.
    fn note(&self, state: Option<State>) -> Option<State> {
        self.state.send_replace(state)
    }

    fn is_new(&self, warning: &str) -> bool {
        let mut told = self.told.lock().expect("told of a warning");
        told.replace(warning.to_owned()).as_deref() != Some(warning)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Start,
    Stop,
    Restart,
}

/// Keeps the tray true, and tells of a failure that nobody is looking at.
pub fn follow(app: &AppHandle) {
    let app = app.clone();
    tauri::async_runtime::spawn(async move {
        let mut failures = 0;
        loop {
            if let Ok(states) = app.state::<Client>().watch().await {
                let mut states = std::pin::pin!(states);
                while let Some(Ok(now)) = states.next().await {
                    failures = 0;
                    see(&app, Some(&now));
                }
            }
            see(&app, None);
            tokio::time::sleep(PAUSES[failures]).await;
            failures = (failures + 1).min(PAUSES.len() - 1);
        }
    });
}

fn see(app: &AppHandle, now: Option<&EngineState>) {
    let before = app.state::<Engine>().note(now.map(|n| n.state));
    tray::show_state(app, now);
    let failed = now.filter(|n| n.state == State::Failed);
    if let Some(now) = failed
        && before.is_some_and(|before| before != State::Failed)
    {
        let why = now.detail.as_deref().unwrap_or("Its log says why");
        news::tell("Longshore's engine has failed", why);
    }
    if now.is_some_and(|now| now.state == State::Running) && before != Some(State::Running) {
        tell_warning(app);
    }
}

/// Tells, once each, of what is not as it should be though the engine runs.
fn tell_warning(app: &AppHandle) {
    let app = app.clone();
    tauri::async_runtime::spawn(async move {
        let Ok(status) = app.state::<Client>().status().await else {
            return;
        };
        if let Some(warning) = status.warning
            && app.state::<Engine>().is_new(&warning)
        {
            news::tell("Longshore's engine needs attention", &warning);
        }
    });
}

/// Does what a click in the tray asks for.
pub fn act(app: &AppHandle, action: Action) {
    let app = app.clone();
    tauri::async_runtime::spawn(async move {
        let client = app.state::<Client>().inner().clone();
        let done = async {
            if action != Action::Start {
                stop(&client).await?;
            }
            if action != Action::Stop {
                finish(client.start(&StartRequest::default()).await?).await?;
            }
            Ok::<_, ApiError>(())
        };
        if let Err(error) = done.await {
            let title = match action {
                Action::Stop => "Longshore's engine could not be stopped",
                _ => "Longshore's engine could not be started",
            };
            let hint = error.hint.as_deref().unwrap_or_default();
            news::tell(title, format!("{error}\n{hint}").trim());
        }
    });
}

/// Stops the engine, containers and all.
pub async fn stop(client: &Client) -> Result<(), ApiError> {
    finish(client.stop().await?).await
}

/// Waits for the end of a start or stop.
async fn finish(progress: impl Stream<Item = Result<Progress, ApiError>>) -> Result<(), ApiError> {
    let mut progress = std::pin::pin!(progress);
    while let Some(event) = progress.next().await {
        match event? {
            Progress::Failed { error } => return Err(error),
            Progress::Done { .. } => return Ok(()),
            Progress::Stage { .. } | Progress::Notice { .. } => {}
        }
    }
    Err(ApiError::internal("the service ended before its work did"))
}
