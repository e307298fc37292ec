//! `docker cp` both ways and `docker export`: archives from and into a container's file system; and a look at its files.

mod api;
mod files;
mod pack;
mod place;
mod unpack;

pub use api::{read_text, receive, route, unpack_into};
pub use files::route as route_files;
pub use pack::ChunkWriter;
