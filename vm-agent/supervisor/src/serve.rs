//! Puts the services on their sockets.

use std::sync::Arc;

use containerd_shim_protos::shim_async::create_events;
use longshore_supervisor_api::server;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::content::service::ContentService;
use crate::core::Core;
use crate::error::{Error, IoStep, Result};
use crate::events::service::EventsService;
use crate::events::shim_events::ShimEvents;
use crate::listen::Listeners;
use crate::services::containers::ContainersService;
use crate::services::diff::DiffService;
use crate::services::images::ImagesService;
use crate::services::introspection::IntrospectionService;
use crate::services::leases::LeasesService;
use crate::services::namespaces::NamespacesService;
use crate::services::streaming::StreamingService;
use crate::services::version::VersionService;
use crate::snapshots::service::SnapshotsService;
use crate::tasks::Tasks;
use crate::tasks::service::TasksService;
use crate::transfer::service::TransferService;

/// The largest message, as containerd has it.
const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;

/// Serves until the process is told to stop.
pub async fn serve(core: Arc<Core>, listeners: Listeners) -> Result<()> {
    // Shims first: they may be waiting to publish, and tasks are asked about at once.
    let mut shim_events = ttrpc::r#async::Server::new()
        .add_listener(
            listeners
                .ttrpc
                .try_into()
                .step(|| "using the ttrpc socket".into())?,
        )
        .register_service(create_events(Arc::new(ShimEvents(core.clone()))));
    shim_events
        .start()
        .await
        .map_err(|e| Error::Other(format!("serving ttrpc: {e}")))?;

    let running = Tasks::new(core.clone());
    running.restore().await;
    core.collect_soon();

    let grpc = UnixListener::from_std(listeners.grpc).step(|| "using the gRPC socket".into())?;
    macro_rules! limited {
        ($service:expr) => {
            $service
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT)
        };
    }
    use server::{containers, content, diff, events, images, introspection, leases, namespaces};
    use server::{snapshots, streaming, tasks, transfer, version};
    let router = Server::builder()
        .initial_stream_window_size(Some(4 * 1024 * 1024))
        .initial_connection_window_size(Some(8 * 1024 * 1024))
        .add_service(version::VersionServer::new(VersionService))
        .add_service(introspection::IntrospectionServer::new(
            IntrospectionService(core.clone()),
        ))
        .add_service(namespaces::NamespacesServer::new(NamespacesService(
            core.clone(),
        )))
        .add_service(leases::LeasesServer::new(LeasesService(core.clone())))
        .add_service(limited!(content::ContentServer::new(ContentService(
            core.clone()
        ))))
        .add_service(limited!(images::ImagesServer::new(ImagesService(
            core.clone()
        ))))
        .add_service(limited!(snapshots::SnapshotsServer::new(SnapshotsService(
            core.clone()
        ))))
        .add_service(limited!(diff::DiffServer::new(DiffService(core.clone()))))
        .add_service(limited!(containers::ContainersServer::new(
            ContainersService(core.clone())
        )))
        .add_service(events::EventsServer::new(EventsService(core.clone())))
        .add_service(limited!(streaming::StreamingServer::new(StreamingService(
            core.clone()
        ))))
        .add_service(limited!(transfer::TransferServer::new(TransferService(
            core.clone()
        ))))
        .add_service(limited!(tasks::TasksServer::new(TasksService {
            core,
            tasks: running
        })));
    tracing::info!("serving");
    router
        .serve_with_incoming(UnixListenerStream::new(grpc))
        .await
        .map_err(|e| Error::Other(format!("serving gRPC: {e}")))
}
