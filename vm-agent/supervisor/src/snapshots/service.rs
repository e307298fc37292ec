//! The snapshots service.

use std::sync::Arc;

use longshore_supervisor_api::server::snapshots::Snapshots;
use longshore_supervisor_api::services::v1::snapshots::*;
use longshore_supervisor_api::types::Mount;
use tonic::{Request, Response, Status};

use super::{Prepared, SNAPSHOTTER, Snapshot, changes, find, parents};
use crate::core::{Core, now, update_labels};
use crate::error::{Error, Result, blocking};
use crate::filter::{Filters, label};
use crate::request::Scope;
use crate::services::{Replies, in_pages};
use crate::store::{self, Records, key};

pub struct SnapshotsService(pub Arc<Core>);

/// The empty name is the default, as in containerd's configuration.
fn check(snapshotter: &str) -> Result<()> {
    if snapshotter.is_empty() || snapshotter == SNAPSHOTTER {
        return Ok(());
    }
    Err(Error::NotFound(format!(
        "snapshotter not loaded: {snapshotter}"
    )))
}

/// The mounts of an existing snapshot.
pub fn mounts(core: &Core, namespace: &str, name: &str) -> Result<Vec<Mount>> {
    let records = core.store.read()?;
    let snapshot = find(&records, namespace, name)?;
    if snapshot.info().kind == Kind::Committed as i32 {
        return Err(Error::FailedPrecondition(format!(
            "snapshot {name:?} is committed"
        )));
    }
    Ok(core
        .snapshots
        .mounts(&snapshot, &parents(&records, namespace, &snapshot)?))
}

fn kind_name(kind: i32) -> &'static str {
    match Kind::try_from(kind) {
        Ok(Kind::View) => "view",
        Ok(Kind::Active) => "active",
        Ok(Kind::Committed) => "committed",
        _ => "unknown",
    }
}

/// Disk usage; that of a committed snapshot does not change, so it is kept.
pub fn usage(core: &Core, namespace: &str, name: &str) -> Result<super::Usage> {
    let snapshot = find(&core.store.read()?, namespace, name)?;
    if let Some(usage) = snapshot.usage {
        return Ok(usage);
    }
    let usage = core.snapshots.measure(snapshot.id)?;
    if snapshot.info().kind == Kind::Committed as i32 {
        core.store.write_blocking(|tx| {
            let mut current = find(tx, namespace, name)?;
            current.usage = Some(usage);
            tx.put(store::SNAPSHOTS, &key(&[namespace, name]), &current)
        })?;
    }
    Ok(usage)
}

#[tonic::async_trait]
impl Snapshots for SnapshotsService {
    async fn prepare(
        &self,
        request: Request<PrepareSnapshotRequest>,
    ) -> Result<Response<PrepareSnapshotResponse>, Status> {
        let scope = Scope::of(&request)?;
        let PrepareSnapshotRequest {
            snapshotter,
            key,
            parent,
            labels,
        } = request.into_inner();
        check(&snapshotter)?;
        let mounts = changes::prepare(
            &self.0,
            &scope,
            Prepared {
                key,
                parent,
                labels,
            },
        )
        .await?;
        Ok(Response::new(PrepareSnapshotResponse { mounts }))
    }

    async fn view(
        &self,
        request: Request<ViewSnapshotRequest>,
    ) -> Result<Response<ViewSnapshotResponse>, Status> {
        let scope = Scope::of(&request)?;
        let ViewSnapshotRequest {
            snapshotter,
            key,
            parent,
            labels,
        } = request.into_inner();
        check(&snapshotter)?;
        let mounts = changes::view(
            &self.0,
            &scope,
            Prepared {
                key,
                parent,
                labels,
            },
        )
        .await?;
        Ok(Response::new(ViewSnapshotResponse { mounts }))
    }

    async fn mounts(
        &self,
        request: Request<MountsRequest>,
    ) -> Result<Response<MountsResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        check(&request.snapshotter)?;
        let mounts = mounts(&self.0, &scope.namespace, &request.key)?;
        Ok(Response::new(MountsResponse { mounts }))
    }

    async fn commit(
        &self,
        request: Request<CommitSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let CommitSnapshotRequest {
            snapshotter,
            name,
            key,
            labels,
            ..
        } = request.into_inner();
        check(&snapshotter)?;
        changes::commit(&self.0, &scope, name, key, labels).await?;
        Ok(Response::new(()))
    }

    async fn remove(
        &self,
        request: Request<RemoveSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        check(&request.snapshotter)?;
        changes::remove(&self.0, &scope, request.key).await?;
        Ok(Response::new(()))
    }

    async fn stat(
        &self,
        request: Request<StatSnapshotRequest>,
    ) -> Result<Response<StatSnapshotResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        check(&request.snapshotter)?;
        let snapshot = find(&self.0.store.read()?, &scope.namespace, &request.key)?;
        Ok(Response::new(StatSnapshotResponse {
            info: snapshot.info,
        }))
    }

    async fn update(
        &self,
        request: Request<UpdateSnapshotRequest>,
    ) -> Result<Response<UpdateSnapshotResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        check(&request.snapshotter)?;
        let wanted = request.info.unwrap_or_default();
        let paths = request
            .update_mask
            .map(|mask| mask.paths)
            .filter(|paths| !paths.is_empty());
        let paths = paths.unwrap_or_else(|| vec!["labels".into()]);
        let info = self
            .0
            .store
            .write(move |tx| {
                let mut snapshot = find(tx, &scope.namespace, &wanted.name)?;
                let mut info = snapshot.info().clone();
                for path in &paths {
                    if !update_labels(&mut info.labels, &wanted.labels, path) {
                        let message = format!("cannot update {path:?} field on snapshot");
                        return Err(Error::InvalidArgument(message));
                    }
                }
                info.updated_at = now();
                snapshot.info = Some(info.clone());
                tx.put(
                    store::SNAPSHOTS,
                    &key(&[&scope.namespace, &info.name]),
                    &snapshot,
                )?;
                Ok(info)
            })
            .await?;
        Ok(Response::new(UpdateSnapshotResponse { info: Some(info) }))
    }

    type ListStream = Replies<ListSnapshotsResponse>;

    async fn list(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        check(&request.snapshotter)?;
        let filters = Filters::parse(&request.filters)?;
        let all: Vec<Snapshot> = self
            .0
            .store
            .read()?
            .in_namespace(store::SNAPSHOTS, &scope.namespace)?;
        let mut infos: Vec<Info> = all
            .into_iter()
            .filter_map(|snapshot| snapshot.info)
            .collect();
        infos.retain(|info| {
            filters.matches(|path| match path {
                ["name"] => Some(info.name.clone()),
                ["parent"] if !info.parent.is_empty() => Some(info.parent.clone()),
                ["kind"] => Some(kind_name(info.kind).into()),
                ["labels", name @ ..] => label(&info.labels, name),
                _ => None,
            })
        });
        Ok(Response::new(in_pages(infos, |info| {
            ListSnapshotsResponse { info }
        })))
    }

    async fn usage(
        &self,
        request: Request<UsageRequest>,
    ) -> Result<Response<UsageResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        check(&request.snapshotter)?;
        let core = self.0.clone();
        let usage = blocking(move || usage(&core, &scope.namespace, &request.key)).await?;
        Ok(Response::new(UsageResponse {
            size: usage.size,
            inodes: usage.inodes,
        }))
    }

    async fn cleanup(&self, request: Request<CleanupRequest>) -> Result<Response<()>, Status> {
        check(&request.into_inner().snapshotter)?;
        self.0.collect().await?;
        Ok(Response::new(()))
    }
}
