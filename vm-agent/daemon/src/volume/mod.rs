//! Volumes of the Docker API: folders under the data root that outlive containers.

mod api;
mod clone;
mod copy_tree;
mod copy_up;
mod mounting;
mod store;

pub use api::{disk_usage, route};
pub use store::{Volume, Volumes};
