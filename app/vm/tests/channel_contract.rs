//! The channel's contract, on a booted guest, for both channels.
//!
//! Wants a guest image with the agent's contract services: `$LONGSHORE_GUEST_IMAGE`, else `target/guest-image/<arch>`.
//! The heavy figures run with `--ignored`.

mod vm;

use std::time::{Duration, Instant};

use longshore_channel::hybrid;
use longshore_protocol::ports::contract::{
    CLOSE_FIRST, DIE, ECHO, NOBODY, SINK, SOURCE, STALL, VANISH, pattern,
};
use longshore_vm::config::ChannelChoice;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixStream, unix::OwnedWriteHalf},
    time::timeout,
};
use vm::Vm;

const LIMIT: Duration = Duration::from_secs(120);
const MIB: usize = 1 << 20;

/// How much of each thing is done.
struct Size {
    bulk: usize,
    tiny: usize,
    streams: usize,
    /// How often the short conversations are held: a wake-up that is lost once in twenty times is lost.
    rounds: usize,
    /// How often the agent dies. (Init backs off: the ninth death in a row costs 10 s.)
    deaths: usize,
}

const QUICK: Size = Size {
    bulk: 32 * MIB,
    tiny: 50_000,
    streams: 500,
    rounds: 20,
    deaths: 3,
};
const HEAVY: Size = Size {
    bulk: 1024 * MIB,
    tiny: 1_000_000,
    streams: 500,
    rounds: 200,
    deaths: 8,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serial() {
    contract(ChannelChoice::Serial, QUICK).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg(target_os = "linux")]
async fn vsock() {
    contract(ChannelChoice::Vsock, QUICK).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "1 GiB each way and a million writes take minutes"]
async fn serial_heavy() {
    contract(ChannelChoice::Serial, HEAVY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "1 GiB each way and a million writes take minutes"]
#[cfg(target_os = "linux")]
async fn vsock_heavy() {
    contract(ChannelChoice::Vsock, HEAVY).await;
}

/// The whole contract, one story on one guest.
async fn contract(choice: ChannelChoice, size: Size) {
    let vm = Vm::launch(|config| {
        config.channel = choice;
        config.selftest = true;
    })
    .await;
    let guest = Guest(&vm);
    let before = vm.own_memory();
    guest
        .step("half-close by the host", guest.half_close_by_the_host())
        .await;
    guest
        .step("half-close by the guest", guest.half_close_by_the_guest())
        .await;
    guest.step("nobody listens", guest.nobody_listens()).await;
    guest
        .step("writes of 1 byte to 1 MiB", async {
            for _ in 0..size.rounds {
                guest.writes_of_every_size().await;
            }
        })
        .await;
    guest
        .step("host to guest in bulk", guest.send_in(size.bulk, 256 << 10))
        .await;
    guest
        .step(
            "guest to host in bulk",
            guest.fetch_out(size.bulk, 256 << 10),
        )
        .await;
    guest
        .step("tiny writes to the guest", guest.send_in(size.tiny, 1))
        .await;
    guest
        .step("tiny writes from the guest", guest.fetch_out(size.tiny, 1))
        .await;
    guest
        .step("streams at once", guest.streams_at_once(size.streams))
        .await;
    guest.step("stalled readers", guest.stalled_readers()).await;
    guest.step("the host vanishes", guest.host_vanishes()).await;
    guest
        .step("the guest vanishes", guest.guest_vanishes())
        .await;
    guest
        .step("the agent dies and comes back", async {
            for _ in 0..size.deaths {
                guest.agent_dies().await;
            }
        })
        .await;
    let after = vm.own_memory();
    println!("longshore-vm: {before} KiB before, {after} KiB after");
    assert!(
        after < before + 65_536,
        "longshore-vm grew from {before} to {after} KiB"
    );
    vm.stop().await;
}

struct Guest<'a>(&'a Vm);

impl Guest<'_> {
    async fn step(&self, name: &str, step: impl Future<Output = ()>) {
        let start = Instant::now();
        let limit = LIMIT
            * if name.contains("bulk") || name.contains("tiny") {
                10
            } else {
                1
            };
        if timeout(limit, step).await.is_err() {
            panic!("{name}: took longer than {limit:?}");
        }
        println!("{name}: {:?}", start.elapsed());
    }

    async fn connect(&self, port: u32) -> UnixStream {
        hybrid::connect(&self.0.config.channel_socket(), port)
            .await
            .expect("connect")
    }

    async fn half_close_by_the_host(&self) {
        let answer = question(self.connect(ECHO).await).await.unwrap();
        assert_eq!(answer, "question");
    }

    async fn half_close_by_the_guest(&self) {
        let mut stream = self.connect(CLOSE_FIRST).await;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello\n");
        // The other direction is still open, for more than any buffer holds.
        for _ in 0..32 {
            stream.write_all(&vec![0; 64 << 10]).await.unwrap();
        }
        stream.shutdown().await.unwrap();
    }

    async fn nobody_listens(&self) {
        let start = Instant::now();
        for _ in 0..20 {
            let refused = hybrid::connect(&self.0.config.channel_socket(), NOBODY).await;
            assert!(
                matches!(refused, Err(hybrid::ConnectError::Refused(_))),
                "{refused:?}"
            );
        }
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
    }

    async fn writes_of_every_size(&self) {
        for chunk in [
            1, 2, 3, 100, 4051, 4052, 4053, 16_384, 32_769, 65_535, 65_536, MIB,
        ] {
            let total = (chunk * 3 + 1).min(MIB + 1);
            self.send_in(total, chunk).await;
            self.fetch_out(total, chunk).await;
        }
    }

    /// Sends `total` bytes in writes of `chunk`; the guest says what it got.
    async fn send_in(&self, total: usize, chunk: usize) {
        let (mut reader, writer) = self.connect(SINK).await.into_split();
        let digest = send(writer, total, chunk).await;
        let mut answer = String::new();
        reader.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, format!("{total} {digest}\n"), "writes of {chunk}");
    }

    /// Has the guest send `total` bytes in writes of `chunk`.
    async fn fetch_out(&self, total: usize, chunk: usize) {
        let mut stream = self.connect(SOURCE).await;
        stream
            .write_all(format!("{total} {chunk}\n").as_bytes())
            .await
            .unwrap();
        let mut at = 0;
        let mut buffer = vec![0; 128 << 10];
        let period: Vec<u8> = (0..buffer.len() as u64 + 251).map(pattern).collect();
        loop {
            let length = stream.read(&mut buffer).await.unwrap();
            if length == 0 {
                break;
            }
            let expected = &period[at % 251..][..length];
            assert!(
                &buffer[..length] == expected,
                "wrong bytes after {at}, writes of {chunk}"
            );
            at += length;
        }
        assert_eq!(at, total, "writes of {chunk}");
    }

    /// All are open before any byte flows.
    async fn streams_at_once(&self, count: usize) {
        let mut streams = Vec::new();
        for _ in 0..count {
            streams.push(self.connect(ECHO).await);
        }
        let echoes = streams
            .into_iter()
            .enumerate()
            .map(|(number, stream)| async move {
                let text = (number as u32).to_be_bytes().repeat(5000);
                let (mut reader, mut writer) = stream.into_split();
                let mut echo = Vec::new();
                let send = async {
                    writer.write_all(&text).await.unwrap();
                    writer.shutdown().await.unwrap();
                };
                let (_, received) = tokio::join!(send, reader.read_to_end(&mut echo));
                received.unwrap();
                assert!(echo == text, "stream {number}");
            });
        futures::future::join_all(echoes).await;
    }

    /// Neither side's stalled reader holds up another stream, and what they hold is bounded.
    async fn stalled_readers(&self) {
        let before = self.0.own_memory();
        let mut stalled = Vec::new();
        for _ in 0..8 {
            // The guest does not read what we write …
            let mut stream = self.connect(STALL).await;
            let mut written = 0;
            while let Ok(length) =
                timeout(Duration::from_millis(500), stream.write(&[0; 65_536])).await
            {
                written += length.unwrap();
                assert!(
                    written < 8 * MIB,
                    "nothing stops a writer whose reader stalls"
                );
            }
            stalled.push(stream);
            // … and we do not read what it writes.
            let mut stream = self.connect(SOURCE).await;
            stream
                .write_all(format!("{} 65536\n", 64 * MIB).as_bytes())
                .await
                .unwrap();
            stalled.push(stream);
        }
        self.send_in(4 * MIB, 65_536).await;
        self.fetch_out(4 * MIB, 65_536).await;
        let after = self.0.own_memory();
        assert!(
            after < before + 32_768,
            "longshore-vm grew from {before} to {after} KiB"
        );
    }

    /// Streams that we drop in the middle leave nothing that gets in the way.
    async fn host_vanishes(&self) {
        for _ in 0..50 {
            let mut stream = self.connect(SOURCE).await;
            stream
                .write_all(format!("{} 65536\n", 64 * MIB).as_bytes())
                .await
                .unwrap();
            stream.read_exact(&mut [0; 1000]).await.unwrap();
            let mut stream = self.connect(SINK).await;
            stream.write_all(&[0; 50_000]).await.unwrap();
        }
        self.half_close_by_the_host().await;
    }

    async fn guest_vanishes(&self) {
        for _ in 0..20 {
            let mut stream = self.connect(VANISH).await;
            stream.write_all(b"now\n").await.unwrap();
            // The end is seen, as an end of file or as an error, and writing fails soon.
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            assert!(rest.is_empty());
            while stream.write_all(&[0; 4096]).await.is_ok() {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn agent_dies(&self) {
        let mut bystander = self.connect(ECHO).await;
        let mut stream = self.connect(DIE).await;
        stream.write_all(b"now\n").await.unwrap();
        for stream in [&mut stream, &mut bystander] {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            assert!(rest.is_empty());
        }
        // Init starts it again. Until the dying agent's listener is gone, the kernel still accepts for it: such a
        // stream ends without an answer. Whoever was refused once has met the new agent afterwards.
        let mut refused = false;
        loop {
            match hybrid::connect(&self.0.config.channel_socket(), ECHO).await {
                Ok(stream) => match question(stream).await {
                    Ok(answer) if answer == "question" => return,
                    end => assert!(
                        !refused && end.as_deref().unwrap_or_default().is_empty(),
                        "the new agent answers {end:?}"
                    ),
                },
                Err(_) => {
                    refused = true;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

/// Asks the echo one question, half-closes, and reads to the end.
async fn question(mut stream: UnixStream) -> std::io::Result<String> {
    stream.write_all(b"question").await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Writes `total` bytes and half-closes; returns their SHA-256.
async fn send(mut writer: OwnedWriteHalf, total: usize, chunk: usize) -> String {
    let bytes: Vec<u8> = (0..chunk as u64 + 251).map(pattern).collect();
    let mut hash = Sha256::new();
    let mut at = 0;
    while at < total {
        let length = chunk.min(total - at);
        let piece = &bytes[at % 251..][..length];
        writer.write_all(piece).await.unwrap();
        hash.update(piece);
        at += length;
    }
    writer.shutdown().await.unwrap();
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
