//! Running one transfer of the supervisor's transfer service: its request, its progress, its credentials.

use longshore_supervisor_api::to_any;
use prost_types::Any;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::pull::{Lines, RegistryAuth};
use super::stream::{self, TransferStream};
use super::{Images, Reference};
use crate::error::ApiResult;
use crate::supervisor::api::types::transfer::{
    AuthRequest, OciRegistry, Progress, RegistryResolver,
};
use crate::supervisor::api::{TransferOptions, TransferRequest};

/// A registry as one side of a transfer; answers its questions for credentials until dropped.
pub(super) struct RegistrySide {
    pub registry: Any,
    answering: Option<JoinHandle<()>>,
}

impl Drop for RegistrySide {
    fn drop(&mut self) {
        if let Some(task) = &self.answering {
            task.abort();
        }
    }
}

async fn answer_auth(mut stream: TransferStream, auth: RegistryAuth) {
    while let Some(request) = stream.receive::<AuthRequest>().await {
        tracing::debug!(host = request.host, "the registry asks for credentials");
        if !stream.send(&auth.response()).await {
            return;
        }
    }
}

impl Images {
    pub(super) async fn registry_side(
        &self,
        reference: &Reference,
        auth: RegistryAuth,
    ) -> ApiResult<RegistrySide> {
        let credentials = match auth.is_empty() {
            true => None,
            false => Some(stream::open(&self.supervisor, "auth").await?),
        };
        let auth_stream = credentials.as_ref().map(|stream| stream.id.clone());
        let resolver = RegistryResolver {
            auth_stream: auth_stream.unwrap_or_default(),
            host_dir: self.hosts_folder(&reference.domain)?.display().to_string(),
            ..RegistryResolver::default()
        };
        let registry = to_any(&OciRegistry {
            reference: reference.to_string(),
            resolver: Some(resolver),
        });
        let answering = credentials.map(|stream| tokio::spawn(answer_auth(stream, auth)));
        Ok(RegistrySide {
            registry,
            answering,
        })
    }

    /// Runs a transfer to its end; `tell` turns each event into the lines that are sent on, all before this returns.
    pub(super) async fn transfer(
        &self,
        source: Any,
        destination: Any,
        lines: Option<&Lines>,
        mut tell: impl FnMut(Progress) -> Vec<Value> + Send,
    ) -> ApiResult<()> {
        let mut progress = stream::open(&self.supervisor, "progress").await?;
        let request = TransferRequest {
            source: Some(source),
            destination: Some(destination),
            options: Some(TransferOptions {
                progress_stream: progress.id.clone(),
            }),
        };
        let mut client = self.supervisor.transfer();
        let mut transfer = std::pin::pin!(client.transfer(request));
        let mut result = None;
        loop {
            tokio::select! {
                // What was told before the end is shown before it.
                biased;
                event = progress.receive::<Progress>() => {
                    let Some(event) = event else { break };
                    tracing::trace!(event = event.event, name = event.name, "transfer");
                    for line in tell(event) {
                        if let Some(lines) = lines {
                            let _ = lines.send(Ok(line)).await;
                        }
                    }
                }
                done = &mut transfer, if result.is_none() => result = Some(done),
            }
        }
        match result {
            Some(done) => done?,
            None => transfer.await?,
        };
        Ok(())
    }
}
