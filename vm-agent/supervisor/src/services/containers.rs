//! The containers service: records of what could run. Tasks are what does run.

use std::sync::Arc;

use futures::StreamExt;
use longshore_supervisor_api::events::{
    ContainerCreate, ContainerDelete, ContainerUpdate, container_create,
};
use longshore_supervisor_api::server::containers::Containers;
use longshore_supervisor_api::services::v1::*;
use tonic::{Request, Response, Status};

use super::Replies;
use crate::core::{Core, ensure_namespace, now, update_labels};
use crate::error::{Error, Result};
use crate::filter::{Filters, label};
use crate::request::{Scope, validate_identifier};
use crate::store::{self, Records, key};

pub struct ContainersService(pub Arc<Core>);

pub fn find(records: &impl Records, namespace: &str, id: &str) -> Result<Container> {
    records
        .get(store::CONTAINERS, &key(&[namespace, id]))?
        .ok_or_else(|| Error::NotFound(format!("container {id:?} in namespace {namespace:?}")))
}

fn validate(container: Option<Container>) -> Result<Container> {
    let container =
        container.ok_or_else(|| Error::InvalidArgument("container is required".into()))?;
    validate_identifier(&container.id)?;
    if container
        .runtime
        .as_ref()
        .is_none_or(|runtime| runtime.name.is_empty())
    {
        return Err(Error::InvalidArgument(
            "container.Runtime.Name must be set".into(),
        ));
    }
    if container.spec.is_none() {
        return Err(Error::InvalidArgument("container.Spec must be set".into()));
    }
    if !container.snapshot_key.is_empty() && container.snapshotter.is_empty() {
        let message = "container.SnapshotKey set without container.Snapshotter";
        return Err(Error::InvalidArgument(message.into()));
    }
    Ok(container)
}

fn apply_update(current: &mut Container, wanted: &Container, paths: &[String]) -> Result<()> {
    for path in paths {
        match path.as_str() {
            "spec" => current.spec = wanted.spec.clone(),
            "snapshotkey" | "snapshot_key" => current.snapshot_key = wanted.snapshot_key.clone(),
            "snapshotter" => current.snapshotter = wanted.snapshotter.clone(),
            "image" => current.image = wanted.image.clone(),
            "sandbox" => current.sandbox = wanted.sandbox.clone(),
            "extensions" => current.extensions = wanted.extensions.clone(),
            path if path.starts_with("extensions.") => {
                let name = &path["extensions.".len()..];
                if let Some(value) = wanted.extensions.get(name) {
                    current.extensions.insert(name.into(), value.clone());
                }
            }
            path if update_labels(&mut current.labels, &wanted.labels, path) => {}
            other => {
                let message = format!(
                    "cannot update {other:?} field on container {:?}",
                    current.id
                );
                return Err(Error::InvalidArgument(message));
            }
        }
    }
    Ok(())
}

impl ContainersService {
    fn filtered<T>(&self, request: Request<ListContainersRequest>) -> Result<Vec<T>>
    where
        T: From<Container>,
    {
        let scope = Scope::of(&request)?;
        let filters = Filters::parse(&request.into_inner().filters)?;
        let all: Vec<Container> = self
            .0
            .store
            .read()?
            .in_namespace(store::CONTAINERS, &scope.namespace)?;
        let matching = all.into_iter().filter(|container| {
            filters.matches(|path| match path {
                ["id"] => Some(container.id.clone()),
                ["image"] => Some(container.image.clone()),
                ["runtime", "name"] => container.runtime.as_ref().map(|r| r.name.clone()),
                ["snapshotter"] => Some(container.snapshotter.clone()),
                ["snapshotkey"] => Some(container.snapshot_key.clone()),
                ["labels", name @ ..] => label(&container.labels, name),
                _ => None,
            })
        });
        Ok(matching.map(T::from).collect())
    }
}

#[tonic::async_trait]
impl Containers for ContainersService {
    async fn get(
        &self,
        request: Request<GetContainerRequest>,
    ) -> Result<Response<GetContainerResponse>, Status> {
        let scope = Scope::of(&request)?;
        let id = request.into_inner().id;
        let container = find(&self.0.store.read()?, &scope.namespace, &id)?;
        Ok(Response::new(GetContainerResponse {
            container: Some(container),
        }))
    }

    async fn list(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        let containers = self.filtered(request)?;
        Ok(Response::new(ListContainersResponse { containers }))
    }

    type ListStreamStream = Replies<ListContainerMessage>;

    async fn list_stream(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<Self::ListStreamStream>, Status> {
        let containers: Vec<Container> = self.filtered(request)?;
        let messages = containers.into_iter().map(|container| {
            Ok(ListContainerMessage {
                container: Some(container),
            })
        });
        Ok(Response::new(futures::stream::iter(messages).boxed()))
    }

    async fn create(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Result<Response<CreateContainerResponse>, Status> {
        let scope = Scope::of(&request)?;
        let mut container = validate(request.into_inner().container)?;
        (container.created_at, container.updated_at) = (now(), now());
        let (namespace, record) = (scope.namespace.clone(), container.clone());
        self.0
            .store
            .write(move |tx| {
                ensure_namespace(tx, &namespace)?;
                let row = key(&[&namespace, &record.id]);
                if tx.raw(store::CONTAINERS, &row)?.is_some() {
                    return Err(Error::AlreadyExists(format!("container {:?}", record.id)));
                }
                tx.put(store::CONTAINERS, &row, &record)
            })
            .await?;
        let event = ContainerCreate {
            id: container.id.clone(),
            image: container.image.clone(),
            runtime: container
                .runtime
                .as_ref()
                .map(|runtime| container_create::Runtime {
                    name: runtime.name.clone(),
                    options: runtime.options.clone(),
                }),
        };
        self.0
            .events
            .publish(&scope.namespace, "/containers/create", &event);
        Ok(Response::new(CreateContainerResponse {
            container: Some(container),
        }))
    }

    async fn update(
        &self,
        request: Request<UpdateContainerRequest>,
    ) -> Result<Response<UpdateContainerResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        let wanted = request
            .container
            .ok_or_else(|| Error::InvalidArgument("container is required".into()))?;
        let paths = request
            .update_mask
            .map(|mask| mask.paths)
            .filter(|paths| !paths.is_empty());
        let paths = paths.unwrap_or_else(|| {
            [
                "labels",
                "spec",
                "extensions",
                "image",
                "snapshotkey",
                "sandbox",
            ]
            .map(String::from)
            .to_vec()
        });
        let namespace = scope.namespace.clone();
        let container = self
            .0
            .store
            .write(move |tx| {
                let mut current = find(tx, &namespace, &wanted.id)?;
                apply_update(&mut current, &wanted, &paths)?;
                current.updated_at = now();
                let current = validate(Some(current))?;
                tx.put(
                    store::CONTAINERS,
                    &key(&[&namespace, &current.id]),
                    &current,
                )?;
                Ok(current)
            })
            .await?;
        let event = ContainerUpdate {
            id: container.id.clone(),
            image: container.image.clone(),
            labels: container.labels.clone(),
            snapshot_key: container.snapshot_key.clone(),
        };
        self.0
            .events
            .publish(&scope.namespace, "/containers/update", &event);
        Ok(Response::new(UpdateContainerResponse {
            container: Some(container),
        }))
    }

    async fn delete(
        &self,
        request: Request<DeleteContainerRequest>,
    ) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let id = request.into_inner().id;
        let (namespace, name) = (scope.namespace.clone(), id.clone());
        self.0
            .store
            .write(move |tx| {
                find(tx, &namespace, &name)?;
                tx.delete(store::CONTAINERS, &key(&[&namespace, &name]))
            })
            .await?;
        self.0.events.publish(
            &scope.namespace,
            "/containers/delete",
            &ContainerDelete { id },
        );
        self.0.collect_soon();
        Ok(Response::new(()))
    }
}
