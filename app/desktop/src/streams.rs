//! What a page reads piece by piece: answers and terminals. It asks for each piece, so that none piles up here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use longshore_host_api::ApiError;
use longshore_host_api::client::Upgraded;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, WriteHalf};
use tokio::sync::Mutex as AsyncMutex;
use tokio_util::sync::CancellationToken;

/// A page has no use for so many at once.
const MOST: usize = 256;
/// What has come is handed out together up to this size: each piece is a trip to the page.
const PIECE: usize = 256 * 1024;

/// Every open stream of the page.
#[derive(Default)]
pub struct Streams {
    open: Mutex<HashMap<u32, Arc<Open>>>,
    next: AtomicU32,
}

struct Open {
    output: AsyncMutex<Box<dyn AsyncRead + Send + Unpin>>,
    input: Option<AsyncMutex<WriteHalf<Upgraded>>>,
    /// Why the output has ended, if not in the ordinary way.
    failure: OnceLock<ApiError>,
    closed: CancellationToken,
}

impl Streams {
    /// Keeps an answer until it is closed; gives its number.
    pub fn add_answer(
        &self,
        pieces: impl Stream<Item = Result<Bytes, ApiError>> + Send + 'static,
    ) -> Result<u32, ApiError> {
        // An answer comes in pieces as small as a line of a log: what has come in the meantime is read at once.
        let (output, mut collected) = tokio::io::simplex(PIECE);
        let (id, stream) = self.add(Box::new(output), None)?;
        tokio::spawn(async move {
            let collect = async {
                let mut pieces = std::pin::pin!(pieces);
                while let Some(piece) = pieces.next().await {
                    match piece {
                        Ok(piece) => collected.write_all(&piece).await?,
                        Err(error) => {
                            let _ = stream.failure.set(error);
                            break;
                        }
                    }
                }
                collected.shutdown().await
            };
            tokio::select! {
                _ = collect => {}
                () = stream.closed.cancelled() => {}
            }
        });
        Ok(id)
    }

    pub fn add_terminal(&self, terminal: Upgraded) -> Result<u32, ApiError> {
        let (output, input) = tokio::io::split(terminal);
        Ok(self.add(Box::new(output), Some(input))?.0)
    }

    fn add(
        &self,
        output: Box<dyn AsyncRead + Send + Unpin>,
        input: Option<WriteHalf<Upgraded>>,
    ) -> Result<(u32, Arc<Open>), ApiError> {
        let mut open = self.lock();
        if open.len() >= MOST {
            return Err(ApiError::conflict("the window has too many open streams")
                .with_hint("close and open the window again"));
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let stream = Arc::new(Open {
            output: AsyncMutex::new(output),
            input: input.map(AsyncMutex::new),
            failure: OnceLock::new(),
            closed: CancellationToken::new(),
        });
        open.insert(id, stream.clone());
        Ok((id, stream))
    }

    /// What comes next; empty at the end. Whoever waits here is let go when the stream is closed.
    pub async fn read(&self, id: u32) -> Result<Vec<u8>, ApiError> {
        let stream = self.get(id)?;
        tokio::select! {
            piece = stream.next_piece() => piece,
            () = stream.closed.cancelled() => Ok(Vec::new()),
        }
    }

    /// Input of a terminal.
    pub async fn write(&self, id: u32, data: &[u8]) -> Result<(), ApiError> {
        let stream = self.get(id)?;
        let input = stream
            .input
            .as_ref()
            .ok_or_else(|| ApiError::invalid("this stream takes no input"))?;
        let mut input = input.lock().await;
        input.write_all(data).await.map_err(lost)?;
        input.flush().await.map_err(lost)
    }

    /// Ends a stream; one that has ended is no error.
    pub fn close(&self, id: u32) {
        if let Some(stream) = self.lock().remove(&id) {
            stream.closed.cancel();
        }
    }

    /// Ends all of them: their page is gone.
    pub fn close_all(&self) {
        for (_, stream) in self.lock().drain() {
            stream.closed.cancel();
        }
    }

    fn get(&self, id: u32) -> Result<Arc<Open>, ApiError> {
        self.lock()
            .get(&id)
            .cloned()
            .ok_or_else(|| ApiError::conflict("this stream was closed"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Arc<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    async fn next_piece(&self) -> Result<Vec<u8>, ApiError> {
        let mut piece = Vec::with_capacity(PIECE);
        self.output
            .lock()
            .await
            .read_buf(&mut piece)
            .await
            .map_err(lost)?;
        match self.failure.get() {
            Some(error) if piece.is_empty() => Err(error.clone()),
            _ => Ok(piece),
        }
    }
}

fn lost(error: std::io::Error) -> ApiError {
    ApiError::internal(format!("the connection was lost: {error}"))
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn piece(text: &str) -> Result<Bytes, ApiError> {
        Ok(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[tokio::test]
    async fn small_pieces_are_read_together_up_to_the_end() {
        let streams = Streams::default();
        let lines = (0..1000).map(|i| piece(&format!("{i}\n")));
        let id = streams.add_answer(stream::iter(lines)).unwrap();
        let (mut text, mut reads) = (Vec::new(), 0);
        loop {
            let piece = streams.read(id).await.unwrap();
            if piece.is_empty() {
                break;
            }
            reads += 1;
            text.extend(piece);
        }
        assert!(text.ends_with(b"\n999\n"));
        assert!(reads < 100, "{reads} reads");
    }

    #[tokio::test]
    async fn what_came_before_a_failure_is_read_first() {
        let streams = Streams::default();
        let broken = stream::iter([piece("half"), Err(ApiError::internal("broken off"))]);
        let id = streams.add_answer(broken).unwrap();
        let mut text = Vec::new();
        let error = loop {
            match streams.read(id).await {
                Ok(piece) => text.extend(piece),
                Err(error) => break error,
            }
        };
        assert_eq!(
            (&text[..], error.message.as_str()),
            (&b"half"[..], "broken off")
        );
    }

    #[tokio::test]
    async fn closing_lets_go_of_the_reader_and_of_the_source() {
        let streams = Streams::default();
        let (source, held) = tokio::sync::mpsc::channel::<Result<Bytes, ApiError>>(1);
        let silent = stream::unfold(held, |mut held| async move {
            held.recv().await.map(|item| (item, held))
        });
        let id = streams.add_answer(silent).unwrap();
        let (read, ()) = tokio::join!(streams.read(id), async { streams.close(id) });
        assert!(read.unwrap().is_empty());
        source.closed().await;
        assert!(streams.read(id).await.is_err());
    }
}
