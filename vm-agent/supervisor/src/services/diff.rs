//! The diff service: layers onto mounts, and mounts into layers.

use std::sync::Arc;

use longshore_supervisor_api::server::diff::Diff;
use longshore_supervisor_api::services::v1::*;
use tonic::{Request, Response, Status};

use crate::core::Core;
use crate::error::Error;

pub struct DiffService(pub Arc<Core>);

#[tonic::async_trait]
impl Diff for DiffService {
    async fn apply(&self, _: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        Err(Error::Unimplemented("diff".into()).into())
    }
    async fn diff(&self, _: Request<DiffRequest>) -> Result<Response<DiffResponse>, Status> {
        Err(Error::Unimplemented("diff".into()).into())
    }
}
