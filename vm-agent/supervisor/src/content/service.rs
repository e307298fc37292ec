//! The content service.

use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use futures::StreamExt;
use longshore_supervisor_api::server::content::Content;
use longshore_supervisor_api::services::v1 as api;
use longshore_supervisor_api::services::v1::*;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::IngestStatus;
use crate::core::{Core, now, update_labels};
use crate::digest::Digest;
use crate::error::{Error, IoStep, Result, blocking};
use crate::filter::{Filters, label};
use crate::gc::remove_blob_if_unheld;
use crate::request::Scope;
use crate::services::{Replies, in_pages};
use crate::store::{self, Records, key};

pub struct ContentService(pub Arc<Core>);

/// Bytes per message of a read.
const CHUNK: usize = 256 * 1024;

fn status_message(status: IngestStatus) -> api::Status {
    api::Status {
        started_at: Some(status.started_at.into()),
        updated_at: Some(status.updated_at.into()),
        r#ref: status.reference,
        offset: status.offset,
        total: status.total,
        expected: String::new(),
    }
}

fn parse(digest: &str) -> Result<Digest, Error> {
    Ok(digest.parse()?)
}

#[tonic::async_trait]
impl Content for ContentService {
    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let scope = Scope::of(&request)?;
        let digest = parse(&request.into_inner().digest)?;
        let info = self.0.content_info(&scope.namespace, digest.as_str())?;
        Ok(Response::new(InfoResponse { info: Some(info) }))
    }

    async fn update(
        &self,
        request: Request<UpdateRequest>,
    ) -> Result<Response<UpdateResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        let wanted = request
            .info
            .ok_or_else(|| Error::InvalidArgument("info is required".into()))?;
        let paths = request
            .update_mask
            .map(|mask| mask.paths)
            .filter(|paths| !paths.is_empty());
        let paths = paths.unwrap_or_else(|| vec!["labels".into()]);
        let info = self
            .0
            .store
            .write(move |tx| {
                let row = key(&[&scope.namespace, &wanted.digest]);
                let mut info: Info = tx
                    .get(store::CONTENT, &row)?
                    .ok_or_else(|| Error::NotFound(format!("content digest {}", wanted.digest)))?;
                for path in &paths {
                    if !update_labels(&mut info.labels, &wanted.labels, path) {
                        let message = format!("cannot update {path:?} field on content info");
                        return Err(Error::InvalidArgument(message));
                    }
                }
                info.updated_at = now();
                tx.put(store::CONTENT, &row, &info)?;
                Ok(info)
            })
            .await?;
        Ok(Response::new(UpdateResponse { info: Some(info) }))
    }

    type ListStream = Replies<ListContentResponse>;

    async fn list(
        &self,
        request: Request<ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let scope = Scope::of(&request)?;
        let filters = Filters::parse(&request.into_inner().filters)?;
        let mut infos: Vec<Info> = self
            .0
            .store
            .read()?
            .in_namespace(store::CONTENT, &scope.namespace)?;
        infos.retain(|info| {
            filters.matches(|path| match path {
                ["digest"] => Some(info.digest.clone()),
                ["size"] => Some(info.size.to_string()),
                ["labels", name @ ..] => label(&info.labels, name),
                _ => None,
            })
        });
        Ok(Response::new(in_pages(infos, |info| ListContentResponse {
            info,
        })))
    }

    async fn delete(&self, request: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let digest = parse(&request.into_inner().digest)?;
        let core = self.0.clone();
        blocking(move || {
            core.content_info(&scope.namespace, digest.as_str())?;
            let row = key(&[&scope.namespace, digest.as_str()]);
            core.store
                .write_blocking(|tx| tx.delete(store::CONTENT, &row))?;
            remove_blob_if_unheld(&core, &digest)?;
            let event = longshore_supervisor_api::events::ContentDelete {
                digest: digest.to_string(),
            };
            core.events
                .publish(&scope.namespace, "/content/delete", &event);
            Ok(())
        })
        .await?;
        Ok(Response::new(()))
    }

    type ReadStream = Replies<ReadContentResponse>;

    async fn read(
        &self,
        request: Request<ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let scope = Scope::of(&request)?;
        let ReadContentRequest {
            digest,
            offset,
            size,
        } = request.into_inner();
        let digest = parse(&digest)?;
        let info = self.0.content_info(&scope.namespace, digest.as_str())?;
        if offset < 0 || offset > info.size {
            let message = format!("read past object length {} bytes", info.size);
            return Err(Error::OutOfRange(message).into());
        }
        let end = if size > 0 {
            info.size.min(offset.saturating_add(size))
        } else {
            info.size
        };
        let mut file = self.0.content.open_blob(&digest)?;
        let (sender, receiver) = mpsc::channel(2);
        tokio::task::spawn_blocking(move || {
            let mut read = || -> Result<()> {
                let step = || format!("reading content {digest}");
                file.seek(SeekFrom::Start(offset as u64)).step(step)?;
                let mut at = offset;
                while at < end {
                    let mut data = vec![0; CHUNK.min((end - at) as usize)];
                    file.read_exact(&mut data).step(step)?;
                    let length = data.len() as i64;
                    if sender
                        .blocking_send(Ok(ReadContentResponse { offset: at, data }))
                        .is_err()
                    {
                        return Ok(());
                    }
                    at += length;
                }
                Ok(())
            };
            if let Err(error) = read() {
                let _ = sender.blocking_send(Err(error.into()));
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let scope = Scope::of(&request)?;
        let status = self
            .0
            .content
            .ingest_status(&scope.namespace, &request.into_inner().r#ref)?;
        Ok(Response::new(StatusResponse {
            status: Some(status_message(status)),
        }))
    }

    async fn list_statuses(
        &self,
        request: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        let scope = Scope::of(&request)?;
        let filters = Filters::parse(&request.into_inner().filters)?;
        let statuses = self.0.content.ingest_statuses(&scope.namespace)?;
        let statuses = statuses.into_iter().filter(|status| {
            filters.matches(|path| (path == ["ref"]).then(|| status.reference.clone()))
        });
        let statuses = statuses.map(status_message).collect();
        Ok(Response::new(ListStatusesResponse { statuses }))
    }

    type WriteStream = Replies<WriteContentResponse>;

    async fn write(
        &self,
        request: Request<tonic::Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let scope = Scope::of(&request)?;
        let incoming = request.into_inner();
        let (replies, receiver) = mpsc::channel(4);
        tokio::spawn(super::writing::serve(
            self.0.clone(),
            scope,
            incoming,
            replies,
        ));
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        self.0
            .content
            .abort(&scope.namespace, &request.into_inner().r#ref)?;
        Ok(Response::new(()))
    }
}
