//! A published UDP port: one stream into the guest for each client, datagrams behind their length (16 bits, big-endian).

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::listeners::Route;

/// Clients at once on one port; a datagram of a further one is dropped, as UDP may.
const MAX_CLIENTS: usize = 256;
/// Datagrams that wait for one client's stream.
const QUEUE: usize = 64;
/// More than a datagram and more than its length can say.
pub const LARGEST: usize = 65536;
/// A client that was silent in both directions for so long is forgotten.
const IDLE: Duration = Duration::from_secs(60);

pub async fn serve(socket: UdpSocket, route: Route, end: CancellationToken) {
    let socket = Arc::new(socket);
    let mut clients: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut buffer = vec![0; LARGEST];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = end.cancelled() => return,
        };
        // An error here is an ICMP answer to something that was sent: of no use to the others.
        let Ok((length, from)) = received else {
            continue;
        };
        let datagram = buffer[..length].to_vec();
        let open = clients.get(&from).filter(|c| !c.is_closed());
        let client = match open {
            Some(client) => client.clone(),
            None => {
                clients.retain(|_, c| !c.is_closed());
                if clients.len() >= MAX_CLIENTS {
                    continue;
                }
                let (sender, receiver) = mpsc::channel(QUEUE);
                tokio::spawn(carry(socket.clone(), from, receiver, route.clone()));
                clients.insert(from, sender.clone());
                sender
            }
        };
        // Full: the guest does not keep up, and the datagram is lost as on any network.
        let _ = client.try_send(datagram);
    }
}

/// The next datagram of the guest, in a buffer of [`LARGEST`] bytes.
pub async fn datagram<'a, R>(from_guest: &mut R, buffer: &'a mut [u8]) -> io::Result<&'a [u8]>
where
    R: AsyncRead + Unpin,
{
    let length = from_guest.read_u16().await?;
    let datagram = &mut buffer[..usize::from(length)];
    from_guest.read_exact(datagram).await?;
    Ok(datagram)
}

async fn carry(
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    mut datagrams: mpsc::Receiver<Vec<u8>>,
    route: Route,
) {
    let Ok(_slot) = route.slots.clone().try_acquire_owned() else {
        return;
    };
    let Ok((answer, mut to_guest)) = route.open().await else {
        return;
    };
    let (seen, mut last) = tokio::sync::watch::channel(());
    let outward = async {
        while let Some(datagram) = datagrams.recv().await {
            seen.send_replace(());
            let mut framed = (datagram.len() as u16).to_be_bytes().to_vec();
            framed.extend_from_slice(&datagram);
            if to_guest.write_all(&framed).await.is_err() || to_guest.flush().await.is_err() {
                return;
            }
        }
    };
    let inward = async {
        let Ok(mut from_guest) = answer.connected().await else {
            return;
        };
        let mut buffer = vec![0; LARGEST];
        while let Ok(datagram) = datagram(&mut from_guest, &mut buffer).await {
            seen.send_replace(());
            let _ = socket.send_to(datagram, client).await;
        }
    };
    let idle = async { while tokio::time::timeout(IDLE, last.changed()).await.is_ok() {} };
    tokio::select! {
        () = outward => {}
        () = inward => {}
        () = idle => {}
    }
}
