//! A container's own snapshot at the supervisor: its writable layer.

use super::Containers;
use crate::config::SNAPSHOTTER;
use crate::error::{ApiError, ApiResult};
use crate::supervisor::api::snapshots;
use crate::supervisor::api::types::Mount;
use tonic::Code;

/// Makes the writable layer of `id` on `parent`; its key is the container's id.
pub async fn prepare(containers: &Containers, id: &str, parent: &str) -> ApiResult<Vec<Mount>> {
    let request = snapshots::PrepareSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: id.to_owned(),
        parent: parent.to_owned(),
        // Not under a lease of the request: it is a root of garbage collection by itself.
        labels: [("containerd.io/gc.root".to_owned(), "container".to_owned())].into(),
    };
    let made = containers.supervisor.retry(|supervisor| {
        let request = request.clone();
        async move { supervisor.snapshots().prepare(request).await }
    });
    match made.await {
        Ok(prepared) => Ok(prepared.mounts),
        // A first try before the supervisor died.
        Err(status) if status.code() == Code::AlreadyExists => mounts(containers, id).await,
        Err(status) => Err(ApiError::from(status).context("preparing the container's file system")),
    }
}

pub async fn mounts(containers: &Containers, id: &str) -> ApiResult<Vec<Mount>> {
    let request = snapshots::MountsRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: id.to_owned(),
    };
    let found = containers.supervisor.retry(|supervisor| {
        let request = request.clone();
        async move { supervisor.snapshots().mounts(request).await }
    });
    Ok(found
        .await
        .map_err(|status| ApiError::from(status).context("the container's file system"))?
        .mounts)
}

/// Bytes in the container's own layer.
pub async fn usage(containers: &Containers, key: &str) -> ApiResult<i64> {
    let request = snapshots::UsageRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: key.to_owned(),
    };
    Ok(containers
        .supervisor
        .snapshots()
        .usage(request)
        .await?
        .into_inner()
        .size)
}

pub async fn remove(containers: &Containers, id: &str) -> ApiResult<()> {
    let request = snapshots::RemoveSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: id.to_owned(),
    };
    let removed = containers.supervisor.take_away(move |supervisor| {
        let request = request.clone();
        async move { supervisor.snapshots().remove(request).await }
    });
    Ok(removed.await?)
}

/// Bytes of the layer `name` and all that it stands on; 0 when unknown.
pub async fn chain_usage(containers: &Containers, name: &str) -> i64 {
    let (mut total, mut next) = (0, name.to_owned());
    while !next.is_empty() {
        total += usage(containers, &next).await.unwrap_or_default();
        let stat = snapshots::StatSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: next.clone(),
        };
        let found = containers.supervisor.snapshots().stat(stat).await;
        next = found
            .ok()
            .and_then(|info| info.into_inner().info)
            .map_or_else(String::new, |info| info.parent);
    }
    total
}
