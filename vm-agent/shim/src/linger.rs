//! Log writers of deleted processes, kept while their readers read the rest.

use std::sync::Arc;
use std::time::Duration;

use longshore_container_log::LogTask;
use tokio::sync::watch;

/// A reader has so long to take what it has not read at the end.
const LINGER: Duration = Duration::from_secs(10);

/// Counts what is still being read.
#[derive(Debug, Clone)]
pub struct Linger {
    open: Arc<watch::Sender<usize>>,
}

impl Linger {
    pub fn new() -> Linger {
        Linger {
            open: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Lets readers finish, in the background.
    pub fn keep(&self, log: LogTask) {
        self.open.send_modify(|open| *open += 1);
        let open = self.open.clone();
        tokio::spawn(async move {
            log.finish(LINGER).await;
            open.send_modify(|open| *open -= 1);
        });
    }

    /// Waits until no reader is left.
    pub async fn done(&self) {
        // The sender lives in `self`.
        drop(self.open.subscribe().wait_for(|open| *open == 0).await);
    }
}
