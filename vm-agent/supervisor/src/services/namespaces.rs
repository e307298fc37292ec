//! The namespaces service.

use std::sync::Arc;

use longshore_supervisor_api::events::{NamespaceCreate, NamespaceDelete, NamespaceUpdate};
use longshore_supervisor_api::server::namespaces::Namespaces;
use longshore_supervisor_api::services::v1::*;
use tonic::{Request, Response, Status};

use crate::core::{Core, update_labels};
use crate::error::Error;
use crate::filter::{Filters, label};
use crate::request::validate_identifier;
use crate::store::{self, Records, key};

pub struct NamespacesService(pub Arc<Core>);

fn absent(name: &str) -> Error {
    Error::NotFound(format!("namespace {name:?}"))
}

fn required<T>(message: Option<T>, what: &str) -> Result<T, Error> {
    message.ok_or_else(|| Error::InvalidArgument(format!("{what} is required")))
}

#[tonic::async_trait]
impl Namespaces for NamespacesService {
    async fn get(
        &self,
        request: Request<GetNamespaceRequest>,
    ) -> Result<Response<GetNamespaceResponse>, Status> {
        let name = request.into_inner().name;
        let namespace: Namespace = self
            .0
            .store
            .read()?
            .get(store::NAMESPACES, &name)?
            .ok_or_else(|| absent(&name))?;
        Ok(Response::new(GetNamespaceResponse {
            namespace: Some(namespace),
        }))
    }

    async fn list(
        &self,
        request: Request<ListNamespacesRequest>,
    ) -> Result<Response<ListNamespacesResponse>, Status> {
        let filter = request.into_inner().filter;
        let filters = Filters::parse(if filter.is_empty() {
            &[]
        } else {
            std::slice::from_ref(&filter)
        })?;
        let all: Vec<(String, Namespace)> = self.0.store.read()?.list(store::NAMESPACES, "")?;
        let namespaces = all
            .into_iter()
            .map(|(_, namespace)| namespace)
            .filter(|namespace| {
                filters.matches(|path| match path {
                    ["name"] => Some(namespace.name.clone()),
                    ["labels", name @ ..] => label(&namespace.labels, name),
                    _ => None,
                })
            });
        Ok(Response::new(ListNamespacesResponse {
            namespaces: namespaces.collect(),
        }))
    }

    async fn create(
        &self,
        request: Request<CreateNamespaceRequest>,
    ) -> Result<Response<CreateNamespaceResponse>, Status> {
        let namespace = required(request.into_inner().namespace, "namespace")?;
        validate_identifier(&namespace.name)?;
        let record = namespace.clone();
        self.0
            .store
            .write(move |tx| {
                if tx.raw(store::NAMESPACES, &record.name)?.is_some() {
                    return Err(Error::AlreadyExists(format!("namespace {:?}", record.name)));
                }
                tx.put(store::NAMESPACES, &record.name, &record)
            })
            .await?;
        let event = NamespaceCreate {
            name: namespace.name.clone(),
            labels: namespace.labels.clone(),
        };
        self.0
            .events
            .publish(&namespace.name, "/namespaces/create", &event);
        Ok(Response::new(CreateNamespaceResponse {
            namespace: Some(namespace),
        }))
    }

    async fn update(
        &self,
        request: Request<UpdateNamespaceRequest>,
    ) -> Result<Response<UpdateNamespaceResponse>, Status> {
        let request = request.into_inner();
        let wanted = required(request.namespace, "namespace")?;
        let paths = request
            .update_mask
            .map_or_else(|| vec!["labels".into()], |mask| mask.paths);
        let namespace = self
            .0
            .store
            .write(move |tx| {
                let mut current: Namespace = tx
                    .get(store::NAMESPACES, &wanted.name)?
                    .ok_or_else(|| absent(&wanted.name))?;
                for path in &paths {
                    if !update_labels(&mut current.labels, &wanted.labels, path) {
                        return Err(Error::InvalidArgument(format!("cannot update {path:?}")));
                    }
                }
                tx.put(store::NAMESPACES, &current.name, &current)?;
                Ok(current)
            })
            .await?;
        let event = NamespaceUpdate {
            name: namespace.name.clone(),
            labels: namespace.labels.clone(),
        };
        self.0
            .events
            .publish(&namespace.name, "/namespaces/update", &event);
        Ok(Response::new(UpdateNamespaceResponse {
            namespace: Some(namespace),
        }))
    }

    async fn delete(
        &self,
        request: Request<DeleteNamespaceRequest>,
    ) -> Result<Response<()>, Status> {
        let name = request.into_inner().name;
        let deleted = name.clone();
        self.0
            .store
            .write(move |tx| {
                let prefix = key(&[&name, ""]);
                for table in [
                    store::IMAGES,
                    store::CONTAINERS,
                    store::CONTENT,
                    store::SNAPSHOTS,
                ] {
                    if !tx.keys(table, &prefix)?.is_empty() {
                        let message = format!("namespace {name:?} must be empty");
                        return Err(Error::FailedPrecondition(message));
                    }
                }
                if tx.delete(store::NAMESPACES, &name)? {
                    Ok(())
                } else {
                    Err(absent(&name))
                }
            })
            .await?;
        let event = NamespaceDelete {
            name: deleted.clone(),
        };
        self.0
            .events
            .publish(&deleted, "/namespaces/delete", &event);
        Ok(Response::new(()))
    }
}
