//! A start or stop under way, as any number of clients may watch it.

use std::time::Instant;

use futures::Stream;
use longshore_host_api::ApiError;
use longshore_host_api::types::{Progress, Status};
use tokio::sync::watch;

/// The side that reports progress.
#[derive(Clone)]
pub struct Reporter {
    events: watch::Sender<Vec<Progress>>,
    began: Instant,
}

/// The side that watches; sees everything from the beginning on.
#[derive(Clone)]
pub struct Operation {
    events: watch::Receiver<Vec<Progress>>,
}

pub fn new() -> (Reporter, Operation) {
    let (sender, receiver) = watch::channel(Vec::new());
    (
        Reporter {
            events: sender,
            began: Instant::now(),
        },
        Operation { events: receiver },
    )
}

impl Reporter {
    fn push(&self, event: Progress) {
        self.events.send_modify(|events| events.push(event));
    }

    fn elapsed_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    pub fn stage(&self, name: &str, text: &str) {
        tracing::info!(stage = name, elapsed_ms = self.elapsed_ms(), "{text}");
        self.push(Progress::Stage {
            name: name.to_owned(),
            text: text.to_owned(),
            elapsed_ms: self.elapsed_ms(),
        });
    }

    pub fn notice(&self, text: impl Into<String>) {
        let text = text.into();
        tracing::info!("{text}");
        self.push(Progress::Notice { text });
    }

    pub fn done(self, already: bool, status: Status) {
        let elapsed_ms = self.elapsed_ms();
        self.push(Progress::Done {
            already,
            status: Box::new(status),
            elapsed_ms,
        });
    }

    pub fn failed(self, error: ApiError) {
        tracing::error!(stage = error.stage, "{error}");
        self.push(Progress::Failed { error });
    }
}

impl Operation {
    /// True once the last event has been reported.
    pub fn is_over(&self) -> bool {
        is_last(self.events.borrow().last())
    }

    /// The events from the first to the last.
    pub fn stream(self) -> impl Stream<Item = Progress> + Send + 'static {
        futures::stream::unfold((self.events, 0), |(mut events, seen)| async move {
            loop {
                let next = events.borrow_and_update().get(seen).cloned();
                match next {
                    Some(event) => return Some((event, (events, seen + 1))),
                    None if is_last(events.borrow().last()) => return None,
                    None => events.changed().await.ok()?,
                }
            }
        })
    }
}

fn is_last(event: Option<&Progress>) -> bool {
    matches!(event, Some(Progress::Done { .. } | Progress::Failed { .. }))
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_late_watcher_sees_everything_and_the_end() {
        let (reporter, operation) = new();
        reporter.stage("one", "One");
        let early = tokio::spawn(operation.clone().stream().count());
        reporter.stage("two", "Two");
        assert!(!operation.is_over());
        reporter.failed(ApiError::internal("x"));
        assert!(operation.is_over());
        assert_eq!(operation.stream().count().await, 3);
        assert_eq!(early.await.unwrap(), 3);
    }
}
