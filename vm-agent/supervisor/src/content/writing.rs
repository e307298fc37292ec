//! One `Write` call of the content service: stat, write and commit messages, each answered.

use std::sync::Arc;

use longshore_supervisor_api::services::v1::{
    WriteAction, WriteContentRequest, WriteContentResponse,
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{Finished, Ingest};
use crate::core::{Core, Labels};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::request::Scope;

type Reply = std::result::Result<WriteContentResponse, Status>;

pub async fn serve(
    core: Arc<Core>,
    scope: Scope,
    mut incoming: Streaming<WriteContentRequest>,
    replies: mpsc::Sender<Reply>,
) {
    let (requests, worker_requests) = mpsc::channel(4);
    let worker_core = core.clone();
    let worker_scope = scope.clone();
    let worker_replies = replies.clone();
    // The writer lives on one blocking thread: hashing and file writes never hold up other calls.
    let worker = tokio::task::spawn_blocking(move || {
        run(
            &worker_core,
            &worker_scope,
            worker_requests,
            &worker_replies,
        )
    });
    while let Ok(Some(request)) = incoming.message().await {
        if requests.send(request).await.is_err() {
            break;
        }
    }
    drop(requests);
    let outcome = match worker.await {
        Ok(Ok(Some(commit))) => finish(&core, &scope, commit).await.map(Some),
        Ok(Ok(None)) => Ok(None),
        Ok(Err(error)) => Err(error),
        Err(panic) => Err(Error::Other(format!("a worker panicked: {panic}"))),
    };
    match outcome {
        Ok(Some(reply)) => drop(replies.send(Ok(reply)).await),
        Ok(None) => {}
        Err(error) => drop(replies.send(Err(error.into())).await),
    }
}

/// A verified ingest with what its last answer says.
struct Commit {
    finished: Finished,
    labels: Labels,
    reply: WriteContentResponse,
}

async fn finish(core: &Arc<Core>, scope: &Scope, commit: Commit) -> Result<WriteContentResponse> {
    let digest = commit.finished.digest.clone();
    if core
        .commit_content(scope, commit.finished, commit.labels)
        .await?
    {
        Ok(commit.reply)
    } else {
        Err(Error::AlreadyExists(format!("content {digest}")))
    }
}

fn run(
    core: &Arc<Core>,
    scope: &Scope,
    mut requests: mpsc::Receiver<WriteContentRequest>,
    replies: &mpsc::Sender<Reply>,
) -> Result<Option<Commit>> {
    let Some(mut request) = requests.blocking_recv() else {
        return Ok(None);
    };
    if request.r#ref.is_empty() {
        return Err(Error::InvalidArgument(
            "first message must have a reference".into(),
        ));
    }
    refuse_known(core, scope, &request.expected)?;
    let mut ingest = core
        .content
        .ingest(&scope.namespace, &request.r#ref, request.total)?;
    let (mut total, mut expected) = (ingest.total(), request.expected.clone());
    loop {
        total = if request.total > 0 {
            request.total
        } else {
            total
        };
        if !request.expected.is_empty() {
            expected.clone_from(&request.expected);
        }
        let action = WriteAction::try_from(request.action)
            .map_err(|_| Error::InvalidArgument(format!("action {}", request.action)))?;
        if action != WriteAction::Stat {
            write(&mut ingest, &request)?;
        }
        let mut reply = WriteContentResponse {
            action: request.action,
            started_at: Some(ingest.started_at().into()),
            updated_at: crate::core::now(),
            offset: ingest.offset(),
            total,
            digest: String::new(),
        };
        if action == WriteAction::Commit {
            let wanted = match expected.as_str() {
                "" => None,
                digest => Some(digest.parse::<Digest>()?),
            };
            ingest.sync()?;
            let finished = ingest.finish(total, wanted.as_ref())?;
            reply.digest = finished.digest.to_string();
            return Ok(Some(Commit {
                finished,
                labels: request.labels,
                reply,
            }));
        }
        if action == WriteAction::Stat {
            reply.digest = ingest.digest().to_string();
        }
        if replies.blocking_send(Ok(reply)).is_err() {
            return Ok(None);
        }
        request = match requests.blocking_recv() {
            Some(next) => next,
            None => return Ok(None),
        };
    }
}

/// Content that is there already need not be sent; it is added to the lease all the same.
fn refuse_known(core: &Core, scope: &Scope, expected: &str) -> Result<()> {
    if expected.is_empty() {
        return Ok(());
    }
    let digest: Digest = expected.parse()?;
    if core
        .content_info(&scope.namespace, digest.as_str())
        .is_err()
    {
        return Ok(());
    }
    core.store
        .write_blocking(|tx| crate::core::add_to_lease(tx, scope, "content", expected))?;
    Err(Error::AlreadyExists(format!("content {digest}")))
}

fn write(ingest: &mut Ingest<'_>, request: &WriteContentRequest) -> Result<()> {
    let at = ingest.offset();
    if request.offset > 0 && request.offset != at {
        return Err(Error::OutOfRange(format!(
            "write @{} must occur at current offset {at}",
            request.offset
        )));
    }
    if request.offset == 0 && at > 0 {
        ingest.restart()?;
    }
    if request.data.is_empty() {
        Ok(())
    } else {
        ingest.write(&request.data)
    }
}
