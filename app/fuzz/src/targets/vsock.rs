//! The vsock device: a guest that puts any packets and any descriptors into the queues, and the host's streams over it.

use std::sync::Arc;

use longshore_channel::vsock::{Limits, VsockChannel};
use longshore_channel::{BoxStream, Channel, Listener};
use tokio::task::JoinSet;
use vhost_user_backend::VhostUserBackend;
use vmm_sys_util::epoll::EventSet;

use super::{drain, now, on_one_thread, settle, use_stream};
use crate::input::Input;
use crate::memory::Bound;
use crate::queue::{BUFFERS, Guest, SIZE, WRITE};

const LIMITS: Limits = Limits {
    max_connections: 8,
    window: 2048,
    send_buffer: 1024,
    max_replies: 16,
};
/// The limits' worth several times over, and the longest packet of the guest.
const BOUND: usize = 2 << 20;
/// Queue numbers, and the event that says that the host has something to send.
const RX: u16 = 0;
const TX: u16 = 1;
const WORK: u16 = 3;
/// The port that the host listens on.
const LISTENED: u32 = 7;
/// The first port of the host's own connections.
const FIRST_PORT: u32 = 1 << 30;

/// A packet's header (virtio 1.2, 5.10.6).
pub struct Packet {
    pub from: u64,
    pub src_port: u32,
    pub dst_port: u32,
    pub length: u32,
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    pub buf_alloc: u32,
    pub fwd_cnt: u32,
}

impl Packet {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.from.to_le_bytes().to_vec();
        bytes.extend(2_u64.to_le_bytes());
        bytes.extend(self.src_port.to_le_bytes());
        bytes.extend(self.dst_port.to_le_bytes());
        bytes.extend(self.length.to_le_bytes());
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.op.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.buf_alloc.to_le_bytes());
        bytes.extend(self.fwd_cnt.to_le_bytes());
        bytes
    }
}

/// The first byte's bits: notifications by index, a ring that is cut off. Then steps:
///
/// | step | what follows |
/// | --- | --- |
/// | 0 | operation, ports (2), how, length (2), times: a packet |
/// | 1 | length (2), times: room for the host's packets |
/// | 2 | where (2), event, length, bytes: into tables and rings, as they are |
/// | 3 | port: the host connects |
/// | 4 | the host takes a connection to the port that it listens on |
/// | 5, 6, 7 | stream, how much: the host reads, writes, closes its direction |
/// | 8 | stream: the host drops it |
/// | 9 | the host stops listening, or begins to |
pub fn run(input: &[u8]) -> usize {
    on_one_thread(play(Input(input)))
}

async fn play(mut input: Input<'_>) -> usize {
    let mut got = 0;
    let first = input.byte();
    let event_idx = first & 1 != 0;
    let mut guest = Guest::<()>::new(event_idx, first & 2 != 0);
    let bound = Bound::new(BOUND);
    let (channel, device) = VsockChannel::unattached(LIMITS);
    device.set_event_idx(event_idx);
    device.update_memory(guest.memory.clone()).expect("memory");
    let channel = Arc::new(channel);
    let mut listener = channel.listen(LISTENED).ok();
    let mut connecting: JoinSet<Option<BoxStream>> = JoinSet::new();
    let mut streams: Vec<BoxStream> = Vec::new();
    while let Some(step) = input.step() {
        let mut event = WORK;
        match step % 10 {
            0 => {
                packets(&mut guest, &mut input);
                event = TX;
            }
            1 => {
                let (length, times) = (u32::from(input.half()) % 0x2000, input.byte() % 16);
                for number in 0..=u64::from(times) {
                    let at = BUFFERS + number * 0x1000;
                    guest.offer(RX.into(), &[(at, length, WRITE)], false);
                }
                event = RX;
            }
            2 => {
                let at = u64::from(input.half()) % BUFFERS;
                event = u16::from(input.byte() % 5);
                let length = input.byte().into();
                guest.write(at, input.bytes(length));
            }
            3 => {
                let (channel, port) = (channel.clone(), 1000 + u32::from(input.byte() % 8));
                if connecting.len() < 16 {
                    connecting.spawn(async move { channel.connect(port).await.ok() });
                    settle().await;
                }
            }
            4 => {
                let taken = listener.as_mut().and_then(|l| now(l.accept())).flatten();
                got += usize::from(taken.is_some());
                streams.extend(taken);
            }
            what @ 5..=7 => {
                if let Some(stream) = input.index(streams.len()) {
                    got += use_stream(&mut streams[stream], what - 5, input.byte());
                }
            }
            8 => {
                if let Some(stream) = input.index(streams.len()) {
                    drop(streams.swap_remove(stream));
                }
            }
            _ => {
                listener = match listener.take() {
                    Some(_) => None::<Listener>,
                    None => channel.listen(LISTENED).ok(),
                }
            }
        }
        let handled = device.handle_event(event, EventSet::IN, &guest.vrings, 0);
        handled.expect("the device's thread goes on");
        settle().await;
        while let Some(Ok(connected)) = connecting.try_join_next() {
            got += usize::from(connected.is_some());
            streams.extend(connected);
        }
        bound.check();
    }
    // A channel that ends, ends everything: nobody waits for ever.
    device.handle_event(TX, EventSet::IN, &guest.vrings, 0).ok();
    channel.close();
    settle().await;
    for mut stream in streams {
        let (length, ended) = drain(&mut stream);
        assert!(ended, "a stream waits for a device that is gone");
        assert!(length <= LIMITS.window as usize, "{length} bytes");
    }
    while let Some(connected) = now(connecting.join_next()).expect("nothing waits to be opened") {
        drop(connected);
    }
    got
}

fn packets(guest: &mut Guest<()>, input: &mut Input<'_>) {
    let (op, port, how) = (input.byte() % 10, input.byte(), input.byte());
    let length = u32::from(input.half());
    let times = input.byte() % 32;
    // A buffer of its own for each: header, then bytes of no meaning.
    for number in 0..=u32::from(times) {
        let packet = Packet {
            from: if how & 0xc0 == 0xc0 { 9 } else { 3 },
            src_port: 1000 + u32::from(port & 7) + if op == 1 { number } else { 0 },
            dst_port: match port >> 3 {
                0..8 => LISTENED,
                8..24 => FIRST_PORT + u32::from(port >> 3) - 8,
                other => u32::from(other),
            },
            length,
            kind: if how & 0x38 == 0x38 { 2 } else { 1 },
            op: op.into(),
            flags: u32::from(how & 3),
            buf_alloc: [4096, 0, 64, u32::MAX][usize::from(how >> 2 & 3)],
            fwd_cnt: number * length,
        };
        let at = BUFFERS + 0x1_0000 + u64::from(number as u16 % SIZE) * 0x1000;
        guest.write(at, &packet.encode());
        let parts = match how >> 4 & 3 {
            0 => vec![(at, 44 + length, 0)],
            1 => vec![(at, 44, 0), (at + 44, length, 0)],
            2 => vec![(at, 20, 0), (at + 20, 24, 0), (at + 44, length / 2, 0)],
            _ => vec![(at, 44, 0), (at + 44, length, 0), (at, 100, WRITE)],
        };
        guest.offer(TX.into(), &parts, false);
    }
}
