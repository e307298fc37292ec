//! The leases service: what a client is busy with must not be collected.

use std::sync::Arc;

use longshore_supervisor_api::server::leases::Leases;
use longshore_supervisor_api::services::v1::*;
use tonic::{Request, Response, Status};

use crate::core::{Core, ensure_namespace, now};
use crate::error::{Error, Result};
use crate::filter::{Filters, label};
use crate::request::Scope;
use crate::store::{self, Records, Write, key};

pub struct LeasesService(pub Arc<Core>);

fn absent(id: &str) -> Error {
    Error::NotFound(format!("lease {id:?}"))
}

fn check(tx: &impl Records, namespace: &str, id: &str) -> Result<()> {
    tx.raw(store::LEASES, &key(&[namespace, id]))?
        .map(|_| ())
        .ok_or_else(|| absent(id))
}

/// Removes a lease with its list of resources; the resources themselves are the collector's.
pub fn remove(tx: &Write, namespace: &str, id: &str) -> Result<()> {
    if !tx.delete(store::LEASES, &key(&[namespace, id]))? {
        return Err(absent(id));
    }
    for row in tx.keys(store::LEASE_RESOURCES, &key(&[namespace, id, ""]))? {
        tx.delete(store::LEASE_RESOURCES, &row)?;
    }
    Ok(())
}

pub fn resources(tx: &impl Records, namespace: &str, id: &str) -> Result<Vec<Resource>> {
    let prefix = key(&[namespace, id, ""]);
    let rows = tx.keys(store::LEASE_RESOURCES, &prefix)?;
    let parse = |row: &String| {
        let (kind, id) = row[prefix.len()..].split_once('\0')?;
        Some(Resource {
            id: id.into(),
            r#type: kind.into(),
        })
    };
    Ok(rows.iter().filter_map(parse).collect())
}

#[tonic::async_trait]
impl Leases for LeasesService {
    async fn create(
        &self,
        request: Request<CreateRequest>,
    ) -> Result<Response<CreateResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        if request.id.is_empty() {
            return Err(Error::InvalidArgument("lease id must not be empty".into()).into());
        }
        let lease = Lease {
            id: request.id,
            created_at: now(),
            labels: request.labels,
        };
        let record = lease.clone();
        self.0
            .store
            .write(move |tx| {
                ensure_namespace(tx, &scope.namespace)?;
                let row = key(&[&scope.namespace, &record.id]);
                if tx.raw(store::LEASES, &row)?.is_some() {
                    return Err(Error::AlreadyExists(format!("lease {:?}", record.id)));
                }
                tx.put(store::LEASES, &row, &record)
            })
            .await?;
        Ok(Response::new(CreateResponse { lease: Some(lease) }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        self.0
            .store
            .write(move |tx| remove(tx, &scope.namespace, &request.id))
            .await?;
        if request.sync {
            self.0.collect().await?;
        } else {
            self.0.collect_soon();
        }
        Ok(Response::new(()))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let scope = Scope::of(&request)?;
        let filters = Filters::parse(&request.into_inner().filters)?;
        let mut leases: Vec<Lease> = self
            .0
            .store
            .read()?
            .in_namespace(store::LEASES, &scope.namespace)?;
        leases.retain(|lease| {
            filters.matches(|path| match path {
                ["id"] => Some(lease.id.clone()),
                ["labels", name @ ..] => label(&lease.labels, name),
                _ => None,
            })
        });
        Ok(Response::new(ListResponse { leases }))
    }

    async fn add_resource(
        &self,
        request: Request<AddResourceRequest>,
    ) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let AddResourceRequest { id, resource } = request.into_inner();
        let resource = resource.unwrap_or_default();
        if resource.id.is_empty() || resource.r#type.is_empty() {
            return Err(Error::InvalidArgument("resource needs an id and a type".into()).into());
        }
        self.0
            .store
            .write(move |tx| {
                check(tx, &scope.namespace, &id)?;
                let row = key(&[&scope.namespace, &id, &resource.r#type, &resource.id]);
                tx.put(store::LEASE_RESOURCES, &row, &())
            })
            .await?;
        Ok(Response::new(()))
    }

    async fn delete_resource(
        &self,
        request: Request<DeleteResourceRequest>,
    ) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let DeleteResourceRequest { id, resource } = request.into_inner();
        let resource = resource.unwrap_or_default();
        self.0
            .store
            .write(move |tx| {
                check(tx, &scope.namespace, &id)?;
                let row = key(&[&scope.namespace, &id, &resource.r#type, &resource.id]);
                tx.delete(store::LEASE_RESOURCES, &row).map(|_| ())
            })
            .await?;
        Ok(Response::new(()))
    }

    async fn list_resources(
        &self,
        request: Request<ListResourcesRequest>,
    ) -> Result<Response<ListResourcesResponse>, Status> {
        let scope = Scope::of(&request)?;
        let id = request.into_inner().id;
        let records = self.0.store.read()?;
        check(&records, &scope.namespace, &id)?;
        let resources = resources(&records, &scope.namespace, &id)?;
        Ok(Response::new(ListResourcesResponse { resources }))
    }
}
