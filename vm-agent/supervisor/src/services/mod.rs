//! The services that are little more than records: one file each.

pub mod containers;
pub mod diff;
pub mod images;
pub mod introspection;
pub mod leases;
pub mod namespaces;
pub mod streaming;
pub mod version;

use tonic::Status;

/// The stream type of every service that answers with many messages.
pub type Replies<T> = futures::stream::BoxStream<'static, Result<T, Status>>;

/// Splits a list into messages of a bounded number of items.
pub fn in_pages<T: Send + 'static, M: Send + 'static>(
    items: Vec<T>,
    message: impl Fn(Vec<T>) -> M + Send + 'static,
) -> Replies<M> {
    use futures::StreamExt;
    futures::stream::iter(items)
        .chunks(100)
        .map(move |page| Ok(message(page)))
        .boxed()
}
