use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const CID: u64 = 3;

/// A guest that speaks by hand.
struct Guest {
    connections: Arc<Connections>,
}

impl Guest {
    fn new() -> Self {
        let limits = Limits {
            max_connections: 4,
            max_replies: 8,
            ..Limits::default()
        };
        Self {
            connections: Arc::new(Connections::new(CID, limits)),
        }
    }

    /// The next packet for the guest.
    fn next(&self, room: usize) -> Option<(Header, Vec<u8>)> {
        let mut packet = None;
        self.connections.send(room, |header, (first, second)| {
            packet = Some((*header, [first, second].concat()));
        });
        packet
    }

    fn ops(&self) -> Vec<u16> {
        std::iter::from_fn(|| self.next(4000))
            .map(|(header, _)| header.op)
            .collect()
    }

    fn say(&self, to: &Header, op: u16, flags: u32, fwd_cnt: u32, payload: &[u8]) {
        let header = Header {
            src_cid: CID,
            dst_cid: HOST_CID,
            src_port: to.dst_port,
            dst_port: to.src_port,
            len: payload.len() as u32,
            kind: STREAM,
            op,
            flags,
            buf_alloc: 10_000,
            fwd_cnt,
        };
        self.connections.receive(&header, payload);
    }

    /// An open connection, and the header that answers go to.
    async fn open(&self) -> (VsockStream, Header) {
        let stream = self.connections.open(1024).unwrap();
        let (request, _) = self.next(0).unwrap();
        assert_eq!((request.op, request.dst_port), (op::REQUEST, 1024));
        self.say(&request, op::RESPONSE, 0, 0, b"");
        std::future::poll_fn(|context| stream.poll_opened(context))
            .await
            .unwrap();
        (stream, request)
    }
}

#[tokio::test]
async fn half_close_in_each_direction_and_an_orderly_end() {
    let guest = Guest::new();
    let (mut stream, to) = guest.open().await;
    stream.write_all(b"ask").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(guest.next(4000).unwrap().1, b"ask");
    let (header, _) = guest.next(4000).unwrap();
    assert_eq!((header.op, header.flags), (op::SHUTDOWN, NO_SEND));
    guest.say(&to, op::RW, 0, 3, b"answer");
    guest.say(&to, op::SHUTDOWN, NO_SEND, 3, b"");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "answer");
    drop(stream);
    let (header, _) = guest.next(4000).unwrap();
    assert_eq!(
        (header.op, header.flags),
        (op::SHUTDOWN, NO_SEND | NO_RECEIVE)
    );
    guest.say(&to, op::RST, 0, 3, b"");
    assert!(guest.next(4000).is_none());
    assert!(guest.connections.lock().entries.is_empty());
}

#[tokio::test]
async fn a_guest_that_closes_both_ways_is_answered_and_its_last_words_are_read() {
    let guest = Guest::new();
    let (mut stream, to) = guest.open().await;
    guest.say(&to, op::RW, 0, 0, b"last words");
    guest.say(&to, op::SHUTDOWN, NO_SEND | NO_RECEIVE, 0, b"");
    assert_eq!(guest.ops(), [op::RST]);
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "last words");
    let error = stream.write_all(b"x").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn what_is_sent_fits_the_guests_buffer() {
    let guest = Guest::new();
    let (mut stream, to) = guest.open().await;
    stream.write_all(&[1; 30_000]).await.unwrap();
    let mut sent = 0;
    let mut ops = Vec::new();
    while let Some((header, payload)) = guest.next(4000) {
        assert!(payload.len() <= 4000);
        sent += payload.len();
        ops.push(header.op);
    }
    assert_eq!(
        (sent, ops),
        (10_000, vec![op::RW, op::RW, op::RW, op::CREDIT_REQUEST])
    );
    guest.say(&to, op::CREDIT_UPDATE, 0, 4000, b"");
    assert_eq!(guest.next(9000).unwrap().1.len(), 4000);
}

#[tokio::test]
async fn tiny_writes_are_gathered_while_the_guest_has_many_unread() {
    let guest = Guest::new();
    let (mut stream, to) = guest.open().await;
    for _ in 0..MAX_SMALL_IN_FLIGHT {
        stream.write_all(b"x").await.unwrap();
        assert_eq!(guest.next(4000).unwrap().0.op, op::RW);
    }
    for _ in 0..1000 {
        stream.write_all(b"x").await.unwrap();
    }
    assert_eq!(guest.ops(), [op::CREDIT_REQUEST]);
    guest.say(&to, op::CREDIT_UPDATE, 0, MAX_SMALL_IN_FLIGHT as u32, b"");
    assert_eq!(guest.next(4000).unwrap().1.len(), 1000);
    // The end is never held back.
    for _ in 0..=MAX_SMALL_IN_FLIGHT {
        stream.write_all(b"x").await.unwrap();
        guest.next(4000);
    }
    stream.write_all(b"x").await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(guest.ops().ends_with(&[op::RW, op::SHUTDOWN]));
}

#[tokio::test]
async fn a_guest_that_sends_more_than_it_may_is_reset() {
    let guest = Guest::new();
    let (mut stream, to) = guest.open().await;
    let window = guest.connections.limits.window as usize;
    guest.say(&to, op::RW, 0, 0, &vec![0; window]);
    assert!(guest.ops().is_empty());
    guest.say(&to, op::RW, 0, 0, b"x");
    assert_eq!(guest.ops(), [op::RST]);
    let mut bytes = Vec::new();
    let error = stream.read_to_end(&mut bytes).await.unwrap_err();
    assert_eq!(
        (bytes.len(), error.kind()),
        (window, std::io::ErrorKind::ConnectionReset)
    );
}

#[tokio::test]
async fn the_guest_learns_of_read_bytes_by_halves_of_the_window() {
    let guest = Guest::new();
    let (mut stream, to) = guest.open().await;
    let half = guest.connections.limits.window as usize / 2;
    guest.say(&to, op::RW, 0, 0, &vec![0; half]);
    stream.read_exact(&mut vec![0; half - 1]).await.unwrap();
    assert!(guest.next(4000).is_none());
    stream.read_exact(&mut [0]).await.unwrap();
    let (header, _) = guest.next(4000).unwrap();
    assert_eq!(
        (header.op, header.fwd_cnt as usize),
        (op::CREDIT_UPDATE, half)
    );
    guest.say(&to, op::CREDIT_REQUEST, 0, 0, b"");
    assert_eq!(guest.ops(), [op::CREDIT_UPDATE]);
}

#[tokio::test]
async fn refusals_both_ways() {
    let guest = Guest::new();
    let stream = guest.connections.open(7).unwrap();
    let (request, _) = guest.next(0).unwrap();
    guest.say(&request, op::RST, 0, 0, b"");
    let opened = std::future::poll_fn(|context| stream.poll_opened(context)).await;
    assert_eq!(opened, Err(OpenError::Refused));

    let from_guest = |port| Header {
        src_port: 5,
        dst_port: port,
        ..request
    };
    let to = |port| Header {
        src_port: port,
        dst_port: 900,
        ..from_guest(port)
    };
    guest.say(&to(5), op::REQUEST, 0, 0, b"");
    let incoming = std::future::poll_fn(|context| guest.connections.poll_incoming(context)).await;
    let incoming = incoming.unwrap();
    assert_eq!(incoming.port(), 5);
    let _stream = incoming.accept();
    assert_eq!(guest.ops(), [op::RESPONSE]);
    // The same again is a second opening of one connection.
    guest.say(&to(5), op::REQUEST, 0, 0, b"");
    assert_eq!(guest.ops(), [op::RST]);
    guest.say(&to(6), op::REQUEST, 0, 0, b"");
    std::future::poll_fn(|context| guest.connections.poll_incoming(context))
        .await
        .unwrap()
        .refuse();
    assert_eq!(guest.ops(), [op::RST]);
}

#[tokio::test]
async fn random_packets_neither_panic_nor_grow() {
    let guest = Guest::new();
    let mut handles = Vec::new();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..200_000 {
        let ports = [5, 900, FIRST_PORT, FIRST_PORT + 1, random() as u32];
        let payload = vec![0; (random() % 300) as usize];
        let header = Header {
            src_cid: if random() % 50 == 0 { random() } else { CID },
            dst_cid: HOST_CID,
            src_port: ports[(random() % 5) as usize],
            dst_port: ports[(random() % 5) as usize],
            len: payload.len() as u32,
            kind: if random() % 20 == 0 {
                random() as u16
            } else {
                STREAM
            },
            op: (random() % 10) as u16,
            flags: random() as u32 % 5,
            buf_alloc: random() as u32,
            fwd_cnt: random() as u32,
        };
        if !guest.connections.is_congested() {
            guest.connections.receive(&header, &payload);
        }
        match random() % 40 {
            0 => handles.extend(guest.connections.open(900)),
            1 => drop(handles.pop()),
            2..8 => {
                guest.next((random() % 5000) as usize);
            }
            _ => {}
        }
        if let Some(stream) = handles.last_mut() {
            let write = stream.write(&payload);
            let _ = tokio::time::timeout(std::time::Duration::ZERO, write).await;
        }
    }
    let state = guest.connections.lock();
    let limits = guest.connections.limits;
    assert!(state.entries.len() <= limits.max_connections + handles.len());
    assert!(state.replies.len() <= limits.max_replies);
    assert!(state.ready.len() <= limits.max_replies + 2 * limits.max_connections);
    assert!(state.incoming.len() <= limits.max_connections);
}
