//! The version service.

use longshore_supervisor_api::server::version::Version;
use longshore_supervisor_api::services::v1::VersionResponse;
use tonic::{Request, Response, Status};

pub struct VersionService;

#[tonic::async_trait]
impl Version for VersionService {
    async fn version(&self, _: Request<()>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            revision: option_env!("LONGSHORE_REVISION").unwrap_or_default().into(),
        }))
    }
}
