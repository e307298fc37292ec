//! What a page sends piece by piece: files of any size, of which only a few pieces are here at once.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::Stream;
use longshore_host_api::ApiError;
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio::task::JoinHandle;

/// A page has no use for so many at once.
const MOST: usize = 16;
/// Pieces that wait for the engine.
const WAITING: usize = 4;

/// Every upload of the page that has not ended; `A` is what an answer is made of.
pub struct Uploads<A> {
    open: Mutex<HashMap<u32, Arc<Upload<A>>>>,
    next: AtomicU32,
}

struct Upload<A> {
    input: Mutex<Option<mpsc::Sender<io::Result<Bytes>>>>,
    answer: AsyncMutex<JoinHandle<A>>,
}

impl<A> Default for Uploads<A> {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            next: AtomicU32::default(),
        }
    }
}

/// The pieces of an upload, for whoever sends them on.
pub fn pieces() -> (
    mpsc::Sender<io::Result<Bytes>>,
    impl Stream<Item = io::Result<Bytes>> + Send + Sync + use<>,
) {
    let (input, output) = mpsc::channel(WAITING);
    let stream = futures::stream::unfold(output, |mut output| async move {
        output.recv().await.map(|piece| (piece, output))
    });
    (input, stream)
}

impl<A> Uploads<A> {
    /// Keeps an upload until it is ended or dropped; gives its number.
    pub fn add(
        &self,
        input: mpsc::Sender<io::Result<Bytes>>,
        answer: JoinHandle<A>,
    ) -> Result<u32, ApiError> {
        let mut open = self.lock();
        if open.len() >= MOST {
            answer.abort();
            return Err(
                ApiError::conflict("the window sends too many files at once")
                    .with_hint("wait for one of them"),
            );
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let upload = Upload {
            input: Mutex::new(Some(input)),
            answer: AsyncMutex::new(answer),
        };
        open.insert(id, Arc::new(upload));
        Ok(id)
    }

    /// Takes the next piece, as soon as there is room for it. `false`: no more is wanted, the answer is there.
    pub async fn write(&self, id: u32, piece: &[u8]) -> Result<bool, ApiError> {
        let upload = self.get(id)?;
        let input = upload.input().clone();
        let input = input.ok_or_else(closed)?;
        Ok(input.send(Ok(Bytes::copy_from_slice(piece))).await.is_ok())
    }

    /// All has been sent: the answer.
    pub async fn end(&self, id: u32) -> Result<A, ApiError> {
        let upload = self.get(id)?;
        drop(upload.input().take());
        let answer = (&mut *upload.answer.lock().await).await;
        self.lock().remove(&id);
        answer.map_err(|_| closed())
    }

    /// Breaks an upload off; one that has ended is no error.
    pub fn drop_one(&self, id: u32) {
        if let Some(upload) = self.lock().remove(&id) {
            upload.stop();
        }
    }

    /// Breaks all of them off: their page is gone.
    pub fn drop_all(&self) {
        for (_, upload) in self.lock().drain() {
            upload.stop();
        }
    }

    fn get(&self, id: u32) -> Result<Arc<Upload<A>>, ApiError> {
        self.lock().get(&id).cloned().ok_or_else(closed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Arc<Upload<A>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A> Upload<A> {
    fn input(&self) -> std::sync::MutexGuard<'_, Option<mpsc::Sender<io::Result<Bytes>>>> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has been sent must not look like all of it.
    fn stop(&self) {
        if let Some(input) = self.input().take() {
            let _ = input.try_send(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if let Ok(answer) = self.answer.try_lock() {
            answer.abort();
        }
    }
}

fn closed() -> ApiError {
    ApiError::conflict("this upload has ended")
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    async fn count(stream: impl Stream<Item = io::Result<Bytes>>) -> Result<usize, io::Error> {
        let mut stream = std::pin::pin!(stream);
        let mut sum = 0;
        while let Some(piece) = stream.next().await {
            sum += piece?.len();
        }
        Ok(sum)
    }

    #[tokio::test]
    async fn pieces_arrive_and_the_answer_comes_back() {
        let uploads = Uploads::default();
        let (input, stream) = pieces();
        let id = uploads.add(input, tokio::spawn(count(stream))).unwrap();
        for _ in 0..20 {
            assert!(uploads.write(id, &[0; 100]).await.unwrap());
        }
        assert_eq!(uploads.end(id).await.unwrap().unwrap(), 2000);
        assert!(uploads.write(id, b"late").await.is_err());
    }

    #[tokio::test]
    async fn an_early_answer_ends_the_sending() {
        let uploads = Uploads::default();
        let (input, stream) = pieces();
        let refusing = tokio::spawn(async move {
            drop(stream);
            "refused"
        });
        let id = uploads.add(input, refusing).unwrap();
        while uploads.write(id, b"more").await.unwrap() {
            tokio::task::yield_now().await;
        }
        assert_eq!(uploads.end(id).await.unwrap(), "refused");
    }

    #[tokio::test]
    async fn a_broken_upload_never_looks_whole() {
        let uploads = Uploads::default();
        let (input, stream) = pieces();
        let (told, heard) = tokio::sync::oneshot::channel();
        let id = uploads
            .add(
                input,
                tokio::spawn(async move { told.send(count(stream).await.is_ok()) }),
            )
            .unwrap();
        uploads.write(id, b"half").await.unwrap();
        uploads.drop_one(id);
        // Aborted before it could tell, or told of the failure.
        assert!(!heard.await.unwrap_or(false));
    }
}
