//! The ttrpc events service, to which shims publish.

use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::protobuf::well_known_types::empty::Empty;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::Events;
use longshore_supervisor_api::types::Envelope;
use prost_types::{Any, Timestamp};
use ttrpc::r#async::TtrpcContext;

use crate::core::Core;
use crate::request::validate_identifier;

pub struct ShimEvents(pub Arc<Core>);

#[async_trait]
impl Events for ShimEvents {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        let envelope = request.envelope.into_option().unwrap_or_default();
        let invalid = |message: String| {
            ttrpc::Error::RpcStatus(ttrpc::get_status(ttrpc::Code::INVALID_ARGUMENT, message))
        };
        validate_identifier(&envelope.namespace).map_err(|e| invalid(e.to_string()))?;
        super::service::validate_topic(&envelope.topic).map_err(|e| invalid(e.to_string()))?;
        tracing::debug!(envelope.namespace, envelope.topic, "event of a shim");
        self.0.events.forward(Envelope {
            timestamp: envelope.timestamp.as_ref().map(|at| Timestamp {
                seconds: at.seconds,
                nanos: at.nanos,
            }),
            namespace: envelope.namespace,
            topic: envelope.topic,
            event: envelope.event.into_option().map(|event| Any {
                type_url: event.type_url,
                value: event.value,
            }),
        });
        Ok(Empty::new())
    }
}
