//! Changes of snapshots: prepare, commit, remove; each is one transaction beside a rename.

use std::path::Path;
use std::sync::Arc;

use longshore_supervisor_api::events::{SnapshotCommit, SnapshotPrepare, SnapshotRemove};
use longshore_supervisor_api::services::v1::snapshots::{Info, Kind};
use longshore_supervisor_api::types::Mount;

use super::{SNAPSHOTTER, Snapshot, find, parents};
use crate::core::{Core, Labels, add_to_lease, ensure_namespace, now};
use crate::error::{Error, IoStep, Result, blocking};
use crate::request::Scope;
use crate::store::{self, Records, Write, key};

/// What a client asks `Prepare` or `View` for.
pub struct Prepared {
    pub key: String,
    pub parent: String,
    pub labels: Labels,
}

pub async fn prepare(core: &Arc<Core>, scope: &Scope, wanted: Prepared) -> Result<Vec<Mount>> {
    create(core, scope, wanted, Kind::Active).await
}

pub async fn view(core: &Arc<Core>, scope: &Scope, wanted: Prepared) -> Result<Vec<Mount>> {
    create(core, scope, wanted, Kind::View).await
}

async fn create(
    core: &Arc<Core>,
    scope: &Scope,
    wanted: Prepared,
    kind: Kind,
) -> Result<Vec<Mount>> {
    let (core, scope) = (core.clone(), scope.clone());
    blocking(move || {
        if wanted.key.is_empty() {
            return Err(Error::InvalidArgument(
                "snapshot key may not be empty".into(),
            ));
        }
        let folder = core.snapshots.new_folder(kind == Kind::Active)?;
        let created = core
            .store
            .write_blocking(|tx| create_in(tx, &core, &scope, &wanted, kind, &folder));
        match created {
            Ok(mounts) => {
                let event = SnapshotPrepare {
                    key: wanted.key,
                    parent: wanted.parent,
                    snapshotter: SNAPSHOTTER.into(),
                };
                core.events
                    .publish(&scope.namespace, "/snapshot/prepare", &event);
                Ok(mounts)
            }
            Err(error) => {
                let _ = std::fs::remove_dir_all(&folder);
                Err(error)
            }
        }
    })
    .await
}

fn create_in(
    tx: &Write,
    core: &Core,
    scope: &Scope,
    wanted: &Prepared,
    kind: Kind,
    folder: &Path,
) -> Result<Vec<Mount>> {
    let row = key(&[&scope.namespace, &wanted.key]);
    if tx.raw(store::SNAPSHOTS, &row)?.is_some() {
        return Err(Error::AlreadyExists(format!("snapshot {:?}", wanted.key)));
    }
    // A client that unpacks says here what it is going to commit.
    if let Some(target) = wanted.labels.get("containerd.io/snapshot.ref") {
        let target_row = key(&[&scope.namespace, target]);
        if tx.raw(store::SNAPSHOTS, &target_row)?.is_some() {
            return Err(Error::AlreadyExists(format!("target snapshot {target:?}")));
        }
    }
    ensure_namespace(tx, &scope.namespace)?;
    add_to_lease(tx, scope, &format!("snapshots/{SNAPSHOTTER}"), &wanted.key)?;
    let snapshot = Snapshot {
        info: Some(Info {
            name: wanted.key.clone(),
            parent: wanted.parent.clone(),
            kind: kind as i32,
            created_at: now(),
            updated_at: now(),
            labels: wanted.labels.clone(),
        }),
        id: tx.next("snapshot")?,
        usage: None,
    };
    let below = parents(tx, &scope.namespace, &snapshot)?;
    if let Some(parent) = below.first() {
        if find(tx, &scope.namespace, &wanted.parent)?.info().kind != Kind::Committed as i32 {
            return Err(Error::InvalidArgument(format!(
                "parent {:?} is not committed snapshot",
                wanted.parent
            )));
        }
        // The merged root shows the upper folder's owner and mode.
        copy_attributes(&core.snapshots.fs(*parent), &folder.join("fs"))?;
    }
    tx.put(store::SNAPSHOTS, &row, &snapshot)?;
    // Its new name is not flushed here, at every container's creation: whoever acknowledges the container flushes a record
    // of its own after this, and ext4 writes names out in their order.
    core.snapshots.adopt(folder, snapshot.id)?;
    Ok(core.snapshots.mounts(&snapshot, &below))
}

/// Gives a folder the owner, mode, times and extended attributes of another.
pub fn copy_attributes(from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let step = || format!("copying attributes to {}", to.display());
    let metadata = std::fs::symlink_metadata(from).step(step)?;
    let permissions = std::fs::Permissions::from_mode(metadata.mode() & 0o7777);
    std::os::unix::fs::lchown(to, Some(metadata.uid()), Some(metadata.gid())).step(step)?;
    std::fs::set_permissions(to, permissions).step(step)?;
    Ok(())
}

pub async fn commit(
    core: &Arc<Core>,
    scope: &Scope,
    name: String,
    active: String,
    labels: Labels,
) -> Result<()> {
    let (scope, bus) = (scope.clone(), core.clone());
    core.store
        .write(move |tx| {
            let namespace = &scope.namespace;
            if tx
                .raw(store::SNAPSHOTS, &key(&[namespace, &name]))?
                .is_some()
            {
                return Err(Error::AlreadyExists(format!("snapshot {name:?}")));
            }
            let mut snapshot = find(tx, namespace, &active)?;
            let parent = snapshot.info().parent.clone();
            if snapshot.info().kind != Kind::Active as i32 {
                return Err(Error::FailedPrecondition(format!(
                    "snapshot {active:?} is not active"
                )));
            }
            snapshot.info = Some(Info {
                name: name.clone(),
                parent,
                kind: Kind::Committed as i32,
                created_at: now(),
                updated_at: now(),
                labels,
            });
            add_to_lease(tx, &scope, &format!("snapshots/{SNAPSHOTTER}"), &name)?;
            tx.put(store::SNAPSHOTS, &key(&[namespace, &name]), &snapshot)?;
            tx.delete(store::SNAPSHOTS, &key(&[namespace, &active]))?;
            let event = SnapshotCommit {
                key: active,
                name,
                snapshotter: SNAPSHOTTER.into(),
            };
            Ok((scope.namespace, event))
        })
        .await
        .map(|(namespace, event)| bus.events.publish(&namespace, "/snapshot/commit", &event))
}

pub async fn remove(core: &Arc<Core>, scope: &Scope, name: String) -> Result<()> {
    let (core, namespace) = (core.clone(), scope.namespace.clone());
    // Record and folder in one go: a client that goes in between would leave the folder.
    blocking(move || {
        let id = core.store.write_blocking(|tx| {
            let snapshot = find(tx, &namespace, &name)?;
            let children = tx.in_namespace::<Snapshot>(store::SNAPSHOTS, &namespace)?;
            if children.iter().any(|child| child.info().parent == name) {
                return Err(Error::FailedPrecondition(
                    "cannot remove snapshot with child".into(),
                ));
            }
            tx.delete(store::SNAPSHOTS, &key(&[&namespace, &name]))?;
            Ok(snapshot.id)
        })?;
        core.snapshots.remove_later(id);
        let event = SnapshotRemove {
            key: name,
            snapshotter: SNAPSHOTTER.into(),
        };
        core.events.publish(&namespace, "/snapshot/remove", &event);
        core.collect_soon();
        Ok(())
    })
    .await
}
