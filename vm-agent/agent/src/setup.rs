//! What the agent is while it runs: the guest set up once, and what its ports share.

use crate::news::News;
use crate::{clock, config, network, status};
use longshore_protocol::config::GuestConfig;
use std::io;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

pub struct Agent {
    pub news: News,
    /// True once network and clock are set up, well or not.
    set_up: watch::Receiver<bool>,
    problems: Mutex<Vec<String>>,
}

#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("watch the services' states: {0}")]
    Watch(#[source] io::Error),
}

impl Agent {
    /// Begins the set-up in the background: the channel answers meanwhile.
    pub async fn start() -> Result<Arc<Self>, SetupError> {
        let (done, set_up) = watch::channel(false);
        let agent = Arc::new(Self {
            news: News::start(),
            set_up,
            problems: Mutex::default(),
        });
        let config = config::load();
        let worker = agent.clone();
        tokio::spawn(async move {
            worker.set_up(&config).await;
            let _ = done.send(true);
        });
        Ok(agent)
    }

    async fn set_up(&self, config: &GuestConfig) {
        if let Err(error) = clock::at_boot(config.host_time_unix_ns) {
            self.problem(error.to_string());
        }
        match network::set_up(&config.network, &config.hostname).await {
            Ok(()) => status::stage("network"),
            Err(error) => self.problem(format!("network: {error}")),
        }
    }

    fn problem(&self, text: String) {
        tracing::error!("{text}");
        self.problems
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .push(text);
    }

    pub fn problems(&self) -> Vec<String> {
        self.problems
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    pub fn is_set_up(&self) -> bool {
        *self.set_up.borrow()
    }

    /// Waits until the set-up is done and every service has started or failed.
    pub async fn settled(&self) -> Result<(), SetupError> {
        // The sender is only dropped after it has sent.
        let _ = self.set_up.clone().wait_for(|done| *done).await;
        status::services_settled().await.map_err(SetupError::Watch)
    }
}
