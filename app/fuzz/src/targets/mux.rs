//! The multiplexer over virtio-serial: a guest that sends any frames, reads or does not, and the host's streams over it.

use longshore_protocol::mux::{Limits, Mux, MuxStream, OpenError, Refusal, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinSet;

use super::{drain, now, on_one_thread, settle, use_stream};
use crate::input::Input;
use crate::memory::Bound;

const LIMITS: Limits = Limits {
    max_streams: 8,
    window: 2048,
    send_buffer: 1024,
};
/// The limits' worth several times over, and what the carrier, the decoder and a batch for it hold.
const BOUND: usize = 1 << 20;
/// Bytes that the carrier takes before anybody reads them.
const CARRIER: usize = 64 * 1024;

/// `MAGIC`, `TRAILER` of the framing, written down once more: the guest is another program.
const MAGIC: [u8; 16] = [
    0xf0, 0xc7, 0x9a, 0xe1, 0xb3, 0x8d, 0xfe, 0xa4, 0xd2, 0x96, 0xeb, 0x83, 0xbc, 0xd9, 0xf7, 0x8e,
];
const TRAILER: u32 = 0x1f2e_3d4c;
const HELLO: usize = 44;

/// What the host says, read by the guest: frames and nothing else after its first HELLO.
#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    synced: bool,
    nonce: u64,
}

impl Said {
    fn parse(&mut self) {
        loop {
            if !self.synced {
                let found = self.bytes.windows(16).position(|part| part == MAGIC);
                let keep = found.unwrap_or(self.bytes.len().saturating_sub(15));
                self.bytes.drain(..keep);
                self.synced = found.is_some();
            }
            let Some(length) = self.frame() else { return };
            self.bytes.drain(..length);
        }
    }

    /// The length of the next whole frame.
    fn frame(&mut self) -> Option<usize> {
        let bytes = &self.bytes;
        if !self.synced || bytes.len() < 12 {
            return None;
        }
        if bytes[0] == MAGIC[0] {
            let nonce = bytes.get(20..28)?.try_into().expect("eight bytes");
            self.nonce = u64::from_be_bytes(nonce);
            return (bytes.len() >= HELLO).then_some(HELLO);
        }
        assert!((1..=7).contains(&bytes[0]) && bytes[1] == 0, "no frame");
        let length = 8 + usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        let trailer = bytes.get(length..length + 4)?;
        assert_eq!(trailer, TRAILER.to_be_bytes(), "no end of a frame");
        Some(length + 4)
    }
}

/// A HELLO of the guest's that acknowledges the host's nonce.
pub fn hello(nonce: u64, ack: u64, window: u32) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0, 0, 0]);
    bytes.extend(nonce.to_be_bytes());
    bytes.extend(ack.to_be_bytes());
    bytes.extend(window.to_be_bytes());
    let check = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    bytes.extend(check.to_be_bytes());
    bytes
}

pub fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 0];
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes.extend(TRAILER.to_be_bytes());
    bytes
}

/// | step | what follows |
/// | --- | --- |
/// | 0 | length, bytes: on the wire as they are |
/// | 1 | nonce, window (4): a HELLO that acknowledges the host's |
/// | 2 | kind, stream, times, length (2): a frame, so many times |
/// | 3 | 64 times as many bytes of the host's are read; 0 for all |
/// | 4 | port: the host opens a stream |
/// | 5 | the host takes (or, odd, refuses) a stream that the guest wants |
/// | 6, 7, 8 | stream, how much: the host reads, writes, closes its direction |
/// | 9 | stream: the host drops it |
pub fn run(input: &[u8]) -> usize {
    on_one_thread(play(Input(input)))
}

async fn play(mut input: Input<'_>) -> usize {
    let mut got = 0;
    let bound = Bound::new(BOUND);
    let (host, mut wire) = duplex(CARRIER);
    let mux = Mux::new(host, Role::Host, LIMITS);
    let mut said = Said::default();
    let mut opening: JoinSet<Result<MuxStream, OpenError>> = JoinSet::new();
    let mut streams: Vec<MuxStream> = Vec::new();
    while let Some(step) = input.step() {
        match step % 10 {
            0 => {
                let length = input.byte().into();
                send(&mut wire, input.bytes(length)).await;
            }
            1 => {
                settle().await;
                read(&mut wire, &mut said, usize::MAX);
                let nonce = u64::from(input.byte()) + 1;
                send(&mut wire, &hello(nonce, said.nonce, input.word())).await;
            }
            2 => {
                let (kind, stream) = (input.byte() % 8, u32::from(input.byte() % 24));
                let (times, length) = (input.byte(), usize::from(input.half() % 4096));
                let payload = match kind {
                    1 | 5 => input.word().to_be_bytes().to_vec(),
                    3 => vec![input.byte()],
                    4 => vec![times; length],
                    _ => Vec::new(),
                };
                // Streams of the guest's beyond those that exist, as they would really come.
                for more in 0..=u32::from(times) {
                    let stream = if kind == 1 { stream + 2 * more } else { stream };
                    send(&mut wire, &frame(kind, stream, &payload)).await;
                }
            }
            3 => {
                settle().await;
                let most = match usize::from(input.byte()) {
                    0 => usize::MAX,
                    some => some * 64,
                };
                read(&mut wire, &mut said, most);
            }
            4 => {
                let (mux, port) = (mux.clone(), input.byte().into());
                if opening.len() < 16 {
                    opening.spawn(async move { mux.open(port).await });
                }
            }
            5 => {
                if let Some(Some(incoming)) = now(mux.accept()) {
                    match input.byte() % 2 {
                        0 => {
                            streams.push(incoming.accept());
                            got += 1;
                        }
                        _ => incoming.refuse(Refusal::NotAllowed),
                    }
                }
            }
            what @ 6..=8 => {
                let stream = input.index(streams.len());
                if let Some(stream) = stream {
                    got += use_stream(&mut streams[stream], what - 6, input.byte());
                }
            }
            _ => {
                if let Some(stream) = input.index(streams.len()) {
                    streams.swap_remove(stream);
                }
            }
        }
        settle().await;
        while let Some(Ok(opened)) = opening.try_join_next() {
            got += usize::from(opened.is_ok());
            streams.extend(opened);
        }
        bound.check();
    }
    // A carrier that ends, ends everything: nobody waits for ever.
    drop(wire);
    settle().await;
    for mut stream in streams {
        let (length, ended) = drain(&mut stream);
        assert!(ended, "a stream waits for a carrier that is gone");
        assert!(length <= LIMITS.window as usize, "{length} bytes");
    }
    while let Some(incoming) = now(mux.accept()).expect("no offer comes any more") {
        drop(incoming);
    }
    while let Some(opened) = now(opening.join_next()).expect("nothing waits to be opened") {
        drop(opened);
    }
    got
}

async fn send(wire: &mut DuplexStream, bytes: &[u8]) {
    // The host reads whatever comes, however little is read of its own.
    wire.write_all(bytes).await.expect("the host reads on");
}

fn read(wire: &mut DuplexStream, said: &mut Said, most: usize) {
    let (mut total, mut buffer) = (0, [0; 4096]);
    while total < most {
        let wanted = buffer.len().min(most - total);
        let Some(length) = now(wire.read(&mut buffer[..wanted])) else {
            return;
        };
        let length = length.expect("the host writes on");
        assert!(length > 0, "the host hangs up");
        said.bytes.extend(&buffer[..length]);
        said.parse();
        total += length;
    }
}
