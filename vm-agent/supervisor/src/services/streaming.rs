//! The streaming service: registers streams that other requests name by id.

use std::sync::Arc;

use futures::StreamExt;
use longshore_supervisor_api::server::streaming::Streaming;
use longshore_supervisor_api::services::v1::StreamInit;
use prost_types::Any;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Replies;
use crate::core::Core;
use crate::error::Error;
use crate::request::Scope;
use crate::streams::{ClientStream, from_any};

pub struct StreamingService(pub Arc<Core>);

#[tonic::async_trait]
impl Streaming for StreamingService {
    type StreamStream = Replies<Any>;

    async fn stream(
        &self,
        request: Request<tonic::Streaming<Any>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let scope = Scope::of(&request)?;
        let mut incoming = request.into_inner();
        let first = incoming.message().await?;
        let first =
            first.ok_or_else(|| Error::InvalidArgument("stream ended before its id".into()))?;
        let init: StreamInit = from_any(&first)?;
        let (outgoing, replies) = mpsc::channel(16);
        // The client waits for this before it uses the stream.
        let ready = Any {
            type_url: "google.protobuf.Empty".into(),
            value: Vec::new(),
        };
        let _ = outgoing.send(Ok(ready)).await;
        let stream = ClientStream { incoming, outgoing };
        self.0
            .streams
            .register(&scope.namespace, &init.id, stream)?;
        Ok(Response::new(ReceiverStream::new(replies).boxed()))
    }
}
