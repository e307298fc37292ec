//! The event bus: what happened, to whoever subscribes, in order.
//!
//! While nobody listens (the daemon is being restarted), events wait in a bounded journal and go to
//! the next subscriber, so that no exit is lost. A subscriber that does not keep up is cut off with an error
//! instead of losing events silently: it subscribes again and looks at the current state.

pub mod service;
pub mod shim_events;

use std::collections::VecDeque;
use std::sync::Mutex;

use longshore_supervisor_api::types::Envelope;
use prost::Message;
use prost_types::Any;
use tokio::sync::mpsc;

use crate::core::now;
use crate::error::Result;
use crate::filter::Filters;
use crate::streams::any;

/// Events kept for the next subscriber while there is none.
const JOURNAL: usize = 1024;
/// Events a subscriber may be behind.
const BACKLOG: usize = 4096;

#[derive(Default)]
pub struct EventBus(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    subscribers: Vec<Subscriber>,
    unheard: VecDeque<Envelope>,
}

struct Subscriber {
    filters: Filters,
    sender: mpsc::Sender<Envelope>,
}

impl EventBus {
    pub fn publish<M: Message + prost::Name>(&self, namespace: &str, topic: &str, event: &M) {
        self.publish_any(namespace, topic, Some(any(event)));
    }

    pub fn publish_any(&self, namespace: &str, topic: &str, event: Option<Any>) {
        self.forward(Envelope {
            timestamp: now(),
            namespace: namespace.into(),
            topic: topic.into(),
            event,
        });
    }

    /// Passes on an event that has its envelope already.
    pub fn forward(&self, envelope: Envelope) {
        let mut inner = self.0.lock().expect("no panic under this lock");
        inner
            .subscribers
            .retain(|subscriber| !subscriber.sender.is_closed());
        if inner.subscribers.is_empty() {
            if inner.unheard.len() == JOURNAL {
                inner.unheard.pop_front();
            }
            inner.unheard.push_back(envelope);
            return;
        }
        inner.subscribers.retain(|subscriber| {
            !subscriber.wants(&envelope) || subscriber.sender.try_send(envelope.clone()).is_ok()
        });
    }

    pub fn subscribe<S: AsRef<str>>(&self, filters: &[S]) -> Result<mpsc::Receiver<Envelope>> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let subscriber = Subscriber {
            filters: Filters::parse(filters)?,
            sender,
        };
        let mut inner = self.0.lock().expect("no panic under this lock");
        inner.subscribers.retain(|other| !other.sender.is_closed());
        if inner.subscribers.is_empty() {
            // What this subscriber does not want stays for one that does.
            inner.unheard.retain(|envelope| {
                !subscriber.wants(envelope) || subscriber.sender.try_send(envelope.clone()).is_err()
            });
        }
        inner.subscribers.push(subscriber);
        Ok(receiver)
    }
}

impl Subscriber {
    fn wants(&self, envelope: &Envelope) -> bool {
        self.filters.matches(|path| match path {
            ["namespace"] => Some(envelope.namespace.clone()),
            ["topic"] => Some(envelope.topic.clone()),
            ["event", field @ ..] => event_field(envelope.event.as_ref()?, field),
            _ => None,
        })
    }
}

/// The identity fields that containerd's events share: by number, since every task event starts
/// with `container_id` and every other event with its key.
fn event_field(event: &Any, field: &[&str]) -> Option<String> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct First {
        #[prost(string, tag = "1")]
        text: String,
    }
    let is_task = event.type_url.contains(".Task");
    let wanted: &[&str] = if is_task {
        &["container_id"]
    } else {
        &["id", "name", "key", "digest"]
    };
    let [field] = field else { return None };
    if !wanted.contains(field) {
        return None;
    }
    First::decode(&event.value[..]).ok().map(|first| first.text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_supervisor_api::events::TaskExit;

    fn exit(bus: &EventBus, container: &str) {
        let event = TaskExit {
            container_id: container.into(),
            ..TaskExit::default()
        };
        bus.publish("moby", "/tasks/exit", &event);
    }

    #[test]
    fn filters_and_waits_for_a_subscriber() {
        let bus = EventBus::default();
        exit(&bus, "early");
        bus.publish_any("other", "/images/create", None);
        let mut tasks = bus
            .subscribe(&["topic==/tasks/exit,namespace==moby"])
            .unwrap();
        exit(&bus, "late");
        bus.publish_any("moby", "/images/create", None);
        assert_eq!(tasks.try_recv().unwrap().topic, "/tasks/exit");
        assert_eq!(tasks.try_recv().unwrap().topic, "/tasks/exit");
        assert!(tasks.try_recv().is_err());

        let mut one = bus.subscribe(&["event.container_id==x"]).unwrap();
        exit(&bus, "y");
        exit(&bus, "x");
        assert!(one.try_recv().is_ok());
        assert!(one.try_recv().is_err());
    }

    #[test]
    fn cuts_off_a_subscriber_that_does_not_keep_up() {
        let bus = EventBus::default();
        let mut slow = bus.subscribe::<&str>(&[]).unwrap();
        for _ in 0..=BACKLOG {
            exit(&bus, "x");
        }
        let mut received = 0;
        while slow.try_recv().is_ok() {
            received += 1;
        }
        assert_eq!(received, BACKLOG);
        assert_eq!(
            slow.try_recv(),
            Err(mpsc::error::TryRecvError::Disconnected)
        );
    }
}
