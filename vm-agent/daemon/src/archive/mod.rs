//! The archive part of the Docker API.

use crate::http_message::ApiRequest;
use crate::router::Routed;
use crate::state::Daemon;
use std::sync::Arc;

pub fn route(_daemon: Arc<Daemon>, request: ApiRequest) -> Routed {
    Routed::NotMine(request)
}
