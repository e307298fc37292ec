//! The calls to one shim, in the order of their numbers.

use std::pin::pin;
use std::sync::Arc;

use tokio::net::UnixStream;
use tokio::sync::{Mutex, Notify};
use tokio_util::io::InspectWriter;
use ttrpc::r#async::Client;
use ttrpc::r#async::transport::Socket;

/// A ttrpc connection whose requests reach the wire in the order of their stream numbers.
///
/// containerd's ttrpc server refuses a request with a lower number than the last one ("StreamID
/// cannot be re-used and must increment"). The library's client takes the number in one step,
/// queues the message in another, and waits for room in the queue between the two; so several
/// threads, or many requests, can pass each other. Here one request at a time is between its
/// number and the wire; any number may wait for their answers.
pub struct Calls {
    client: Client,
    turn: Mutex<()>,
    /// Something was written.
    written: Arc<Notify>,
}

impl Calls {
    pub fn new(stream: UnixStream) -> Calls {
        let written = Arc::new(Notify::new());
        let told = written.clone();
        let stream = InspectWriter::new(stream, move |_: &[u8]| told.notify_one());
        Calls {
            client: Client::new(Socket::new(stream)),
            turn: Mutex::new(()),
            written,
        }
    }

    /// Sends a request and waits for its answer.
    pub async fn request(&self, call: ttrpc::Request) -> ttrpc::Result<ttrpc::Response> {
        let mut request = pin!(self.client.request(call));
        let turn = self.turn.lock().await;
        // The news may be that of the message before; then this one is first in the queue.
        tokio::select! {
            biased;
            answer = &mut request => return answer,
            () = self.written.notified() => {}
        }
        drop(turn);
        request.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncReadExt;
    use tokio::sync::Barrier;
    use tokio::task::JoinSet;

    use super::*;

    const ROUNDS: u32 = 300;
    const AT_ONCE: u32 = 16;

    /// What a shim of containerd checks of each message: the number in its header (ttrpc's
    /// protocol, "Message header").
    async fn numbers_of(mut stream: UnixStream, count: u32) -> Vec<u32> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            let length = stream.read_u32().await.unwrap();
            numbers.push(stream.read_u32().await.unwrap());
            let mut rest = vec![0; length as usize + 2];
            stream.read_exact(&mut rest).await.unwrap();
        }
        numbers
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn requests_of_several_threads_arrive_in_the_order_of_their_numbers() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let calls = Arc::new(Calls::new(ours));
        let read = tokio::spawn(numbers_of(theirs, ROUNDS * AT_ONCE));
        // Nobody answers: they wait until the test is over.
        let mut waiting = JoinSet::new();
        for _ in 0..ROUNDS {
            let gate = Arc::new(Barrier::new(AT_ONCE as usize));
            for _ in 0..AT_ONCE {
                let (calls, gate) = (calls.clone(), gate.clone());
                waiting.spawn(async move {
                    gate.wait().await;
                    calls.request(ttrpc::Request::new()).await
                });
            }
        }
        let numbers = read.await.unwrap();
        let late = numbers.windows(2).filter(|pair| pair[1] <= pair[0]);
        assert_eq!(late.count(), 0);
    }
}
