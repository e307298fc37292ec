//! The events service.

use std::sync::Arc;

use futures::StreamExt;
use longshore_supervisor_api::server::events::Events;
use longshore_supervisor_api::services::v1::{ForwardRequest, PublishRequest, SubscribeRequest};
use longshore_supervisor_api::types::Envelope;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::core::Core;
use crate::error::Error;
use crate::request::{Scope, validate_identifier};
use crate::services::Replies;

pub struct EventsService(pub Arc<Core>);

#[tonic::async_trait]
impl Events for EventsService {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        validate_topic(&request.topic)?;
        self.0
            .events
            .publish_any(&scope.namespace, &request.topic, request.event);
        Ok(Response::new(()))
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Result<Response<()>, Status> {
        let envelope = request
            .into_inner()
            .envelope
            .ok_or_else(|| Error::InvalidArgument("envelope is required".into()))?;
        validate_topic(&envelope.topic)?;
        validate_identifier(&envelope.namespace)?;
        self.0.events.forward(envelope);
        Ok(Response::new(()))
    }

    type SubscribeStream = Replies<Envelope>;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let receiver = self.0.events.subscribe(&request.into_inner().filters)?;
        let cut_off = futures::stream::once(async {
            Err(Status::resource_exhausted(
                "subscriber did not keep up with the events",
            ))
        });
        Ok(Response::new(
            ReceiverStream::new(receiver).map(Ok).chain(cut_off).boxed(),
        ))
    }
}

pub fn validate_topic(topic: &str) -> Result<(), Error> {
    let ok = topic
        .strip_prefix('/')
        .is_some_and(|rest| rest.split('/').all(|p| !p.is_empty()));
    if ok && topic.len() <= 256 {
        Ok(())
    } else {
        Err(Error::InvalidArgument(format!(
            "topic {topic:?} must start with '/'"
        )))
    }
}
