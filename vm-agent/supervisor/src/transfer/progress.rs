//! Progress of a transfer, as containerd words it, to the client's progress stream.

use std::time::{Duration, Instant};

use longshore_supervisor_api::types::{Descriptor, transfer as api};
use prost_types::Any;
use tokio::sync::mpsc;
use tonic::Status;

use crate::streams::{ClientStream, any};

/// Where progress goes; nowhere when the client did not ask.
#[derive(Clone, Default)]
pub struct Progress(Option<mpsc::Sender<Result<Any, Status>>>);

impl Progress {
    pub fn to(stream: Option<ClientStream>) -> Self {
        Self(stream.map(|stream| stream.outgoing))
    }

    /// News that must arrive.
    pub async fn tell(&self, progress: api::Progress) {
        if let Some(sender) = &self.0 {
            let _ = sender.send(Ok(any(&progress))).await;
        }
    }

    pub async fn say(&self, event: &str, name: &str) {
        self.tell(api::Progress {
            event: event.into(),
            name: name.into(),
            ..Default::default()
        })
        .await;
    }

    pub fn item(&self, descriptor: &Descriptor, parents: &[String]) -> Item {
        Item {
            progress: self.clone(),
            name: item_name(descriptor),
            parents: parents.to_vec(),
            descriptor: descriptor.clone(),
            last: None,
        }
    }
}

/// The progress of one piece of content.
pub struct Item {
    progress: Progress,
    name: String,
    parents: Vec<String>,
    descriptor: Descriptor,
    last: Option<Instant>,
}

/// containerd's name of a piece: what it is, and its digest.
pub fn item_name(descriptor: &Descriptor) -> String {
    let media_type = descriptor.media_type.as_str();
    let kind = match media_type {
        _ if super::manifest::is_index(media_type) => "index",
        _ if super::manifest::is_manifest(media_type) => "manifest",
        _ if media_type.contains("config") || media_type.contains("container.image.v1") => "config",
        _ if media_type.contains("layer") || media_type.contains("rootfs") => "layer",
        _ => "unknown",
    };
    format!("{kind}-{}", descriptor.digest)
}

impl Item {
    fn message(&self, event: &str, done: i64) -> api::Progress {
        api::Progress {
            event: event.into(),
            name: self.name.clone(),
            parents: self.parents.clone(),
            progress: done,
            total: self.descriptor.size,
            desc: Some(self.descriptor.clone()),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub async fn set(&self, event: &str, done: i64) {
        self.progress.tell(self.message(event, done)).await;
    }

    /// An intermediate reading: at most ten a second, and dropped when the client is slow.
    pub fn advance(&mut self, event: &str, done: i64) {
        if self
            .last
            .is_some_and(|last| last.elapsed() < Duration::from_millis(100))
        {
            return;
        }
        self.last = Some(Instant::now());
        if let Some(sender) = &self.progress.0 {
            let _ = sender.try_send(Ok(any(&self.message(event, done))));
        }
    }
}
