//! Containers of the Docker API.

use crate::error::{ApiError, ApiResult};
use crate::http_message::ApiRequest;
use crate::router::Routed;
use crate::state::{Daemon, Parts};
use std::path::PathBuf;
use std::sync::Arc;

/// What the lists and the other parts see of a container; never changes, a new one takes its place.
#[derive(Debug, Clone)]
pub struct Container {
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// The image's id (digest) and the name it was asked for by.
    pub image_id: String,
    pub image: String,
    pub running: bool,
    pub pid: u32,
}

pub struct Containers;

impl Containers {
    pub async fn open(_parts: &Parts) -> ApiResult<Self> {
        Ok(Containers)
    }

    /// By id, name or unambiguous prefix; 404 `No such container: X`.
    pub fn get(&self, name: &str) -> ApiResult<Arc<Container>> {
        Err(ApiError::not_found(format!("No such container: {name}")))
    }

    /// A snapshot for lists; takes no lock that a request holds.
    pub fn list(&self) -> Vec<Arc<Container>> {
        Vec::new()
    }

    /// Where the container's root file system can be read and written now: through the process when it runs,
    /// else mounted for as long as the value lives.
    pub async fn rootfs(&self, _id: &str) -> ApiResult<Rootfs> {
        Err(ApiError::not_implemented("rootfs"))
    }
}

/// A container's root file system at `path`; unmounted when dropped, where it was mounted for this.
pub struct Rootfs {
    pub path: PathBuf,
}

pub fn route(_daemon: Arc<Daemon>, request: ApiRequest) -> Routed {
    Routed::NotMine(request)
}
