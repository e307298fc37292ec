//! `docker cp` both ways and `docker export`: archives from and into a container's file system.

mod api;
mod pack;
mod place;
mod unpack;

pub use api::{read_text, receive, route, unpack_into};
