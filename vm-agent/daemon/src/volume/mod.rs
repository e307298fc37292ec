//! Volumes of the Docker API.

use crate::error::ApiResult;
use crate::http_message::ApiRequest;
use crate::router::Routed;
use crate::state::{Daemon, Parts};
use std::sync::Arc;

pub struct Volumes;

impl Volumes {
    pub async fn open(_parts: &Parts) -> ApiResult<Self> {
        Ok(Volumes)
    }
}

pub fn route(_daemon: Arc<Daemon>, request: ApiRequest) -> Routed {
    Routed::NotMine(request)
}
