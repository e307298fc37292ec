//! A request's long body, read to its end whatever becomes of the request.
//!
//! A connection that is closed while input lies unread is reset, and the client, which is still sending, never sees the answer
//! that says why. So what a handler leaves is read and thrown away.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body_util::{BodyDataStream, BodyExt};
use hyper::body::Incoming;

/// A client that has its answer stops soon.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Upload {
    /// Empty after its end.
    body: Option<BodyDataStream<Incoming>>,
}

impl Upload {
    pub fn new(body: Incoming) -> Self {
        let body = Some(body.into_data_stream());
        Self { body }
    }
}

impl Stream for Upload {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let next = std::task::ready!(body.poll_next_unpin(context));
        if !matches!(next, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(next.map(|bytes| bytes.map_err(io::Error::other)))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let (Some(mut body), Ok(runtime)) =
            (self.body.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        runtime.spawn(tokio::time::timeout(PATIENCE, async move {
            while let Some(Ok(_)) = body.next().await {}
        }));
    }
}
