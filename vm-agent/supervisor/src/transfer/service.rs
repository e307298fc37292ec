//! The transfer service's one call.

use std::sync::Arc;

use longshore_supervisor_api::server::transfer::Transfer;
use longshore_supervisor_api::services::v1::TransferRequest;
use tonic::{Request, Response, Status};

use crate::core::Core;
use crate::error::Error;

pub struct TransferService(pub Arc<Core>);

#[tonic::async_trait]
impl Transfer for TransferService {
    async fn transfer(&self, _: Request<TransferRequest>) -> Result<Response<()>, Status> {
        Err(Error::Unimplemented("transfer".into()).into())
    }
}
