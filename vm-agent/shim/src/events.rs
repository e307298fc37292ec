//! Publishes task events to the supervisor: in order, again and again until it has taken them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use containerd_shim_protos::events::task as messages;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::topics;
use tokio::sync::watch;

/// A supervisor that is away for long must not make the shim grow without end.
const MAX_QUEUE: usize = 4096;
const CALL_TIME: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A task event's topic and type.
pub trait TaskEvent: Message {
    const TOPIC: &'static str;
    const TYPE: &'static str;
}

macro_rules! task_events {
    ($($message:ident $topic:ident;)*) => {$(
        impl TaskEvent for messages::$message {
            const TOPIC: &'static str = topics::$topic;
            const TYPE: &'static str = concat!("containerd.events.", stringify!($message));
        }
    )*};
}

task_events! {
    TaskCreate TASK_CREATE_EVENT_TOPIC;
    TaskStart TASK_START_EVENT_TOPIC;
    TaskOOM TASK_OOM_EVENT_TOPIC;
    TaskExit TASK_EXIT_EVENT_TOPIC;
    TaskDelete TASK_DELETE_EVENT_TOPIC;
    TaskExecAdded TASK_EXEC_ADDED_EVENT_TOPIC;
    TaskExecStarted TASK_EXEC_STARTED_EVENT_TOPIC;
    TaskPaused TASK_PAUSED_EVENT_TOPIC;
    TaskResumed TASK_RESUMED_EVENT_TOPIC;
}

/// The queue's writing end.
#[derive(Debug, Clone)]
pub struct Publisher {
    namespace: Arc<str>,
    queue: Arc<Mutex<VecDeque<Envelope>>>,
    changed: Arc<watch::Sender<()>>,
}

impl Publisher {
    pub fn new(namespace: &str) -> Publisher {
        Publisher {
            namespace: namespace.into(),
            queue: Arc::default(),
            changed: Arc::new(watch::Sender::new(())),
        }
    }

    /// Queues an event.
    pub fn publish<E: TaskEvent>(&self, event: &E) {
        let mut envelope = Envelope::new();
        envelope.timestamp = MessageField::some(timestamp(SystemTime::now()));
        envelope.namespace = self.namespace.to_string();
        envelope.topic = E::TOPIC.to_owned();
        let any = envelope.event.mut_or_insert_default();
        any.type_url = E::TYPE.to_owned();
        // Writing to memory fails only for messages over 2 GiB.
        any.value = event.write_to_bytes().unwrap_or_default();
        let mut queue = self.queue();
        if queue.len() >= MAX_QUEUE {
            eprintln!("events: the queue is full, the oldest event is dropped");
            queue.pop_front();
        }
        queue.push_back(envelope);
        drop(queue);
        self.changed.send_replace(());
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Envelope>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until everything is sent.
    pub async fn drained(&self) {
        let mut changed = self.changed.subscribe();
        while !self.queue().is_empty() {
            // The sender lives in `self`.
            drop(changed.changed().await);
        }
    }

    /// Sends for ever to the ttrpc socket at `address`. An event leaves the queue when the
    /// supervisor has answered, so one may come twice, none is lost.
    pub async fn run(self, address: String) {
        let address = match address.contains("://") {
            true => address,
            false => format!("unix://{address}"),
        };
        let mut changed = self.changed.subscribe();
        let mut client = None;
        let mut pause = FIRST_PAUSE;
        loop {
            changed.borrow_and_update();
            let Some(envelope) = self.queue().front().cloned() else {
                drop(changed.changed().await);
                continue;
            };
            if client.is_none() {
                client = Client::connect(&address).await.ok().map(EventsClient::new);
            }
            let sent = match &client {
                Some(client) => forward(client, envelope).await,
                None => false,
            };
            if sent {
                pause = FIRST_PAUSE;
                self.queue().pop_front();
                self.changed.send_replace(());
            } else {
                client = None;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// False when the event has to be sent again.
async fn forward(client: &EventsClient, envelope: Envelope) -> bool {
    let mut request = ForwardRequest::new();
    let topic = envelope.topic.clone();
    request.envelope = MessageField::some(envelope);
    let context = ttrpc::context::with_duration(CALL_TIME);
    match client.forward(context, &request).await {
        Ok(_) => true,
        // The supervisor's own refusal: it would refuse it again. A deadline is not one.
        Err(ttrpc::Error::RpcStatus(status))
            if status.code() != ttrpc::Code::DEADLINE_EXCEEDED
                && status.code() != ttrpc::Code::UNAVAILABLE =>
        {
            eprintln!("events: {topic} was refused: {}", status.message());
            true
        }
        Err(_) => false,
    }
}

/// A time as a message.
pub fn timestamp(time: SystemTime) -> Timestamp {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let mut timestamp = Timestamp::new();
    timestamp.seconds = since.as_secs() as i64;
    timestamp.nanos = since.subsec_nanos() as i32;
    timestamp
}
