//! Carries bytes between a client and the guest, with half-close in each direction.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Most connections carry a few short messages, and there may be thousands of them.
const FIRST_BUFFER: usize = 8 * 1024;
/// Large pieces for those that carry much: under emulation each piece costs a trip into the guest.
const LARGEST_BUFFER: usize = 256 * 1024;

/// Copies until both directions have ended. `gone` ends the way to a client that has closed altogether, which a half-close
/// alone does not tell.
pub async fn splice<C, G>(client: C, guest: G, gone: impl Future<Output = ()>) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    G: AsyncRead + AsyncWrite + Unpin,
{
    let (guest_read, guest_write) = tokio::io::split(guest);
    splice_ahead(client, async { Ok(guest_read) }, guest_write, gone).await
}

/// The same with a guest that has yet to answer: what the client says goes there meanwhile.
pub async fn splice_ahead<C, R, W>(
    client: C,
    answered: impl Future<Output = io::Result<R>>,
    guest_write: W,
    gone: impl Future<Output = ()>,
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (client_read, client_write) = tokio::io::split(client);
    let outward = pump(client_read, guest_write);
    // A client that is gone may have sent something before: only the way back to it ends at once.
    let inward = async {
        let carry = async { pump(answered.await?, client_write).await };
        tokio::select! {
            result = carry => result,
            () = gone => Ok(()),
        }
    };
    tokio::try_join!(outward, inward).map(|_| ())
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; FIRST_BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        to.write_all(&buffer[..read]).await?;
        if read == buffer.len() && read < LARGEST_BUFFER {
            buffer.resize(2 * read, 0);
        }
    }
    // The peer may have closed already; that is no failure of the copy.
    let _ = to.shutdown().await;
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use longshore_local_socket::hung_up;
    use tokio::net::UnixStream;

    use super::*;

    fn spliced() -> (UnixStream, UnixStream) {
        let (client, near) = UnixStream::pair().unwrap();
        let (far, guest) = UnixStream::pair().unwrap();
        let gone = hung_up(&near);
        tokio::spawn(async move { splice(near, far, gone).await });
        (client, guest)
    }

    #[tokio::test]
    async fn each_direction_closes_alone() {
        let (mut client, mut guest) = spliced();
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        guest.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "question");
        guest.write_all(b"answer").await.unwrap();
        drop(guest);
        text.clear();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "answer");

        let (mut client, mut guest) = spliced();
        guest.shutdown().await.unwrap();
        text.clear();
        client.read_to_string(&mut text).await.unwrap();
        client.write_all(b"late").await.unwrap();
        client.shutdown().await.unwrap();
        guest.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "late");
    }

    #[tokio::test]
    async fn a_client_that_vanishes_after_its_half_close_closes_the_guest_side() {
        let (mut client, mut guest) = spliced();
        client.shutdown().await.unwrap();
        assert_eq!(guest.read(&mut [0]).await.unwrap(), 0);
        drop(client);
        // The guest has sent nothing, so that only the hang-up can end the stream.
        let ended = async {
            while guest.write_all(b"x").await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(5), ended)
            .await
            .unwrap();
    }
}
