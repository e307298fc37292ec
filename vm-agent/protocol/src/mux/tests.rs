//! The multiplexer over in-memory pipes; on a booted guest it runs the channel's contract suite.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::timeout,
};

use super::*;

fn pair() -> (Mux, Mux) {
    let (host, guest) = duplex(64 * 1024);
    (
        Mux::new(host, Role::Host, Limits::default()),
        Mux::new(guest, Role::Guest, Limits::default()),
    )
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future)
        .await
        .expect("took too long")
}

/// Opens a stream from `from` and takes it at `to`.
async fn connect(from: &Mux, to: &Mux) -> (MuxStream, MuxStream) {
    let accept = async { to.accept().await.unwrap().accept() };
    let (near, far) = within(async { tokio::join!(from.open(7), accept) }).await;
    (near.unwrap(), far)
}

#[tokio::test]
async fn half_close_in_each_direction() {
    let (host, guest) = pair();
    for (from, to) in [(&host, &guest), (&guest, &host)] {
        let (mut near, mut far) = connect(from, to).await;
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let mut text = String::new();
        within(far.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, "question");
        far.write_all(b"answer").await.unwrap();
        far.shutdown().await.unwrap();
        text.clear();
        within(near.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, "answer");
        assert_eq!(
            near.write(b"x").await.unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }
}

#[tokio::test]
async fn a_refused_port_tells_why_at_once() {
    let (host, guest) = pair();
    let open = host.open(9);
    let refuse = async { guest.accept().await.unwrap().refuse(Refusal::NotAllowed) };
    let (opened, ()) = within(async { tokio::join!(open, refuse) }).await;
    assert_eq!(opened.err(), Some(OpenError::Refused(Refusal::NotAllowed)));
    let ((opened, ()), port) = within(async {
        let drop_it = async { drop(guest.accept().await.unwrap()) };
        (tokio::join!(host.open(9), drop_it), 9)
    })
    .await;
    assert_eq!(
        opened.err(),
        Some(OpenError::Refused(Refusal::NoListener)),
        "port {port}"
    );
}

#[tokio::test]
async fn data_written_before_a_drop_arrives_and_then_the_reset() {
    let (host, guest) = pair();
    let (mut near, mut far) = connect(&host, &guest).await;
    near.write_all(b"last words").await.unwrap();
    drop(near);
    let mut text = Vec::new();
    let end = within(far.read_to_end(&mut text)).await;
    assert_eq!(text, b"last words");
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reader_that_went_away_after_both_fins_leaves_nothing_behind() {
    let (host, guest) = pair();
    for _ in 0..3000 {
        let (mut near, mut far) = connect(&host, &guest).await;
        near.shutdown().await.unwrap();
        far.shutdown().await.unwrap();
        within(far.read_to_end(&mut Vec::new())).await.unwrap();
    }
    // More streams than the limit came and went; the last may still be on its way out.
    assert!(host.shared.lock().streams.len() <= 2);
}

#[tokio::test]
async fn a_stalled_reader_bounds_memory_and_stalls_nobody_else() {
    let (host, guest) = pair();
    let (mut stalled, _unread) = connect(&host, &guest).await;
    let limits = Limits::default();
    let mut written = 0;
    while let Ok(Ok(length)) =
        timeout(Duration::from_millis(200), stalled.write(&[0; 50_000])).await
    {
        written += length;
    }
    assert_eq!(written, limits.window as usize + limits.send_buffer);
    let (mut near, mut far) = connect(&host, &guest).await;
    let send = async move {
        for _ in 0..64 {
            near.write_all(&[1; 100_000]).await.unwrap();
        }
        near.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    within(async { tokio::join!(send, far.read_to_end(&mut received)) })
        .await
        .1
        .unwrap();
    assert_eq!(received.len(), 6_400_000);
}

#[tokio::test]
async fn five_hundred_streams_echo_at_once() {
    let (host, guest) = pair();
    tokio::spawn(async move {
        while let Some(incoming) = guest.accept().await {
            let (mut reader, mut writer) = tokio::io::split(incoming.accept());
            tokio::spawn(async move {
                tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                writer.shutdown().await.unwrap();
            });
        }
    });
    let tasks: Vec<_> = (0..500u32)
        .map(|number| {
            let host = host.clone();
            tokio::spawn(async move {
                let (mut reader, mut writer) = tokio::io::split(host.open(1).await.unwrap());
                let text = number.to_be_bytes().repeat(10_000);
                let mut echo = Vec::new();
                let send = async {
                    writer.write_all(&text).await.unwrap();
                    writer.shutdown().await.unwrap();
                };
                tokio::join!(send, reader.read_to_end(&mut echo)).1.unwrap();
                assert!(echo == text);
            })
        })
        .collect();
    for task in tasks {
        within(task).await.unwrap();
    }
}

#[tokio::test]
async fn too_many_streams_are_refused() {
    let (host, guest) = duplex(4096);
    let limits = Limits {
        max_streams: 3,
        ..Limits::default()
    };
    let host = Mux::new(host, Role::Host, Limits::default());
    let guest = Mux::new(guest, Role::Guest, limits);
    let mut kept = Vec::new();
    for _ in 0..3 {
        kept.push(connect(&host, &guest).await);
    }
    let refused = within(host.open(1)).await.err();
    assert_eq!(refused, Some(OpenError::Refused(Refusal::TooManyStreams)));
    kept.pop();
    connect(&host, &guest).await;
}

/// A carrier whose far end can be replaced while the near end stays, as a virtio-serial port does.
async fn replug(near: DuplexStream, mut far_ends: Vec<DuplexStream>, cut_after: usize) {
    let (mut near_reader, mut near_writer) = tokio::io::split(near);
    let mut far = far_ends.remove(0);
    let mut buffer = vec![0; 1 << 16];
    // The first far end dies after some bytes, in the middle of a frame.
    let mut passed = 0;
    loop {
        let (mut far_reader, mut far_writer) = tokio::io::split(far);
        let up = async {
            loop {
                let length = near_reader.read(&mut buffer).await.unwrap();
                if length == 0 || far_writer.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
        };
        let down = async {
            let mut byte = [0; 1];
            while far_reader.read_exact(&mut byte).await.is_ok() {
                near_writer.write_all(&byte).await.unwrap();
                passed += 1;
                if passed == cut_after {
                    return;
                }
            }
        };
        tokio::select! { () = up => {}, () = down => {} }
        if far_ends.is_empty() {
            return;
        }
        far = far_ends.remove(0);
    }
}

#[tokio::test]
async fn a_peer_that_dies_in_mid_frame_and_comes_back_is_met_again() {
    for cut in [17_000, 20_001, 25_123] {
        let (near, near_cable) = duplex(4096);
        let (first, first_cable) = duplex(4096);
        let (second, second_cable) = duplex(4096);
        tokio::spawn(replug(near_cable, vec![first_cable, second_cable], cut));
        let host = Mux::new(near, Role::Host, Limits::default());
        let guest = Mux::new(first, Role::Guest, Limits::default());
        let (mut near, mut far) = connect(&host, &guest).await;
        let writer = tokio::spawn(async move { far.write_all(&vec![b'x'; 1 << 20]).await });
        let mut session = host.session();
        let Session::Up(before) = *session.borrow_and_update() else {
            panic!("up")
        };
        // Only the bytes of whole frames arrive, and nothing of the next peer's greeting.
        let guest_again = Mux::new(second, Role::Guest, Limits::default());
        let mut received = Vec::new();
        let end = within(near.read_to_end(&mut received)).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(received.iter().all(|byte| *byte == b'x'));
        within(session.wait_for(|now| matches!(now, Session::Up(epoch) if *epoch > before)))
            .await
            .unwrap();
        writer.abort();
        drop(guest);
        let (mut near, mut far) = connect(&host, &guest_again).await;
        near.write_all(b"again").await.unwrap();
        let mut text = [0; 5];
        within(far.read_exact(&mut text)).await.unwrap();
        assert_eq!(&text, b"again");
    }
}

#[tokio::test]
async fn a_peer_that_breaks_the_rules_resets_the_session_and_cannot_grow_it() {
    let (host, mut evil) = duplex(1 << 20);
    let host = Mux::new(
        host,
        Role::Host,
        Limits {
            max_streams: 10,
            ..Limits::default()
        },
    );
    let mut wire = Vec::new();
    for nonce in 1..2000u64 {
        frame::Hello {
            from_host: false,
            nonce,
            ack: 0,
            window: u32::MAX,
        }
        .encode(&mut wire);
        for stream in 0..30 {
            frame::encode_frame(
                &mut wire,
                stream * 2 + 1,
                &frame::Frame::Open { port: stream },
            );
        }
        frame::encode_data(&mut wire, 1, (&[0; 5000], &[]));
    }
    // It never reads; our side must neither block nor hold its answers.
    within(evil.write_all(&wire)).await.unwrap();
    drop(evil);
    within(host.closed()).await;
    let state = host.shared.lock();
    assert!(state.streams.len() <= 10);
}

#[tokio::test]
async fn the_end_of_the_carrier_ends_everything() {
    let (host, guest) = pair();
    let (mut near, _far) = connect(&host, &guest).await;
    let opening = tokio::spawn({
        let host = host.clone();
        async move { host.open(1).await.err() }
    });
    tokio::task::yield_now().await;
    drop(guest);
    assert_eq!(
        within(near.read(&mut [0])).await.unwrap_err().kind(),
        io::ErrorKind::ConnectionReset
    );
    assert!(within(opening).await.unwrap().is_some());
    assert!(within(host.accept()).await.is_none());
    assert_eq!(within(host.open(1)).await.err(), Some(OpenError::Lost));
}
