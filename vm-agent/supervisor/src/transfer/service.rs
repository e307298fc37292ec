//! The transfer service's one call: what goes where decides what it is.

use std::sync::Arc;

use longshore_supervisor_api::server::transfer::Transfer;
use longshore_supervisor_api::services::v1::{Image, TransferRequest};
use longshore_supervisor_api::types::transfer::{
    ImageExportStream, ImageImportStream, ImageStore, OciRegistry,
};
use prost_types::Any;
use tonic::{Request, Response, Status};
use tracing::Instrument;

use super::progress::Progress;
use super::{export, import, pull, push};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::request::Scope;
use crate::services::images;
use crate::streams::from_any;

pub struct TransferService(pub Arc<Core>);

enum Kind {
    Registry,
    Store,
    ImportStream,
    ExportStream,
    Other,
}

fn kind(any: &Any) -> Kind {
    match any.type_url.rsplit('/').next() {
        Some("containerd.types.transfer.OCIRegistry") => Kind::Registry,
        Some("containerd.types.transfer.ImageStore") => Kind::Store,
        Some("containerd.types.transfer.ImageImportStream") => Kind::ImportStream,
        Some("containerd.types.transfer.ImageExportStream") => Kind::ExportStream,
        _ => Kind::Other,
    }
}

#[tonic::async_trait]
impl Transfer for TransferService {
    async fn transfer(&self, request: Request<TransferRequest>) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        let missing = || Error::InvalidArgument("transfer needs a source and a destination".into());
        let source = request.source.ok_or_else(missing)?;
        let destination = request.destination.ok_or_else(missing)?;
        let progress = match request.options.unwrap_or_default().progress_stream.as_str() {
            "" => Progress::default(),
            id => Progress::to(Some(self.0.streams.take(&scope.namespace, id)?)),
        };
        let span = match &scope.traceparent {
            Some(traceparent) => tracing::info_span!("transfer", traceparent),
            None => tracing::info_span!("transfer"),
        };
        transfer(self.0.clone(), scope, source, destination, progress)
            .instrument(span)
            .await?;
        Ok(Response::new(()))
    }
}

async fn transfer(
    core: Arc<Core>,
    scope: Scope,
    source: Any,
    destination: Any,
    progress: Progress,
) -> Result<()> {
    match (kind(&source), kind(&destination)) {
        (Kind::Registry, Kind::Store) => {
            pull::pull(
                core,
                scope,
                registry(&source)?,
                from_any(&destination)?,
                progress,
            )
            .await
        }
        (Kind::ImportStream, Kind::Store) => {
            let source: ImageImportStream = from_any(&source)?;
            import::import(core, scope, source, from_any(&destination)?, progress).await
        }
        (Kind::Store, Kind::Registry) => {
            push::push(
                core,
                scope,
                from_any(&source)?,
                registry(&destination)?,
                progress,
            )
            .await
        }
        (Kind::Store, Kind::ExportStream) => {
            let target: ImageExportStream = from_any(&destination)?;
            export::export(core, scope, from_any(&source)?, target, progress).await
        }
        (Kind::Store, Kind::Store) => {
            tag(&core, &scope, from_any(&source)?, from_any(&destination)?).await
        }
        _ => Err(Error::Unimplemented(format!(
            "transfer from {} to {}",
            source.type_url, destination.type_url
        ))),
    }
}

/// prost spells the message `OciRegistry`; its name on the wire is `OCIRegistry`.
fn registry(any: &Any) -> Result<OciRegistry> {
    prost::Message::decode(&any.value[..])
        .map_err(|e| Error::InvalidArgument(format!("decoding OCIRegistry: {e}")))
}

/// Gives an image one more name.
async fn tag(core: &Arc<Core>, scope: &Scope, from: ImageStore, to: ImageStore) -> Result<()> {
    let namespace = scope.namespace.clone();
    let (image, is_new) = core
        .store
        .write(move |tx| {
            let source = images::find(tx, &namespace, &from.name)?;
            let mut image = Image {
                name: to.name,
                labels: to.labels,
                ..source
            };
            let is_new = images::put(tx, &namespace, &mut image)?;
            Ok((image, is_new))
        })
        .await?;
    if is_new {
        images::publish_create(core, &scope.namespace, &image);
    } else {
        images::publish_update(core, &scope.namespace, &image);
    }
    Ok(())
}
