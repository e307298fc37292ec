//! Frames of the multiplexer on the wire, and a decoder that finds its feet again in any garbage.
//!
//! Every frame but HELLO is `type:u8 reserved:u8 length:u16 stream:u32 payload trailer:u32`, big endian.
//! The trailer repeats a constant, so that a frame cut short by a dying peer is never delivered with
//! the next peer's bytes as its end. HELLO begins with a magic whose bytes are no frame type, and a
//! starting side sends padding longer than any frame before its first HELLO: whatever the reader
//! was in the middle of, it fails on the padding and scans for the magic.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Longest payload of one frame; the quantum of fairness between streams.
pub const MAX_PAYLOAD: usize = 16 * 1024;
const HEADER: usize = 8;
const TRAILER: u32 = 0x1f2e_3d4c;
/// Bytes that a frame adds to its payload.
pub const OVERHEAD: usize = HEADER + 4;
const PAD: u8 = 0xf5;
const MAGIC: [u8; 16] = [
    0xf0, 0xc7, 0x9a, 0xe1, 0xb3, 0x8d, 0xfe, 0xa4, 0xd2, 0x96, 0xeb, 0x83, 0xbc, 0xd9, 0xf7, 0x8e,
];
/// Bytes of a HELLO on the wire.
pub const HELLO_LEN: usize = MAGIC.len() + 28;
/// Version of the framing; a peer with another one is not spoken to.
const VERSION: u8 = 1;

/// What opens a session: each side's random nonce, and the peer's nonce once it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// True from the host's side; a side that hears its own echo ignores it.
    pub from_host: bool,
    pub nonce: u64,
    /// The peer's nonce, 0 when it is not known yet.
    pub ack: u64,
    /// How many bytes a stream may send before the first WINDOW.
    pub window: u32,
}

/// One frame of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Open { port: u32 },
    Accepted,
    Refused { reason: u8 },
    Data(Bytes),
    Window { credit: u32 },
    Fin,
    Reset,
}

/// What the decoder found.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    Hello(Hello),
    Frame {
        stream: u32,
        frame: Frame,
    },
    /// Bytes that are no frame: the session is over, and everything up to the next HELLO is skipped.
    Desync,
}

const OPEN: u8 = 1;
const ACCEPTED: u8 = 2;
const REFUSED: u8 = 3;
const DATA: u8 = 4;
const WINDOW: u8 = 5;
const FIN: u8 = 6;
const RESET: u8 = 7;

impl Hello {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_slice(&MAGIC);
        out.put_u8(VERSION);
        out.put_u8(self.from_host.into());
        out.put_u16(0);
        out.put_u64(self.nonce);
        out.put_u64(self.ack);
        out.put_u32(self.window);
        let check = fnv1a(&out[start..]);
        out.put_u32(check);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, mut check) = bytes.split_at(HELLO_LEN - 4);
        let mut rest = &body[MAGIC.len()..];
        let (version, from_host) = (rest.get_u8(), rest.get_u8());
        rest.advance(2);
        let hello = Self {
            from_host: from_host == 1,
            nonce: rest.get_u64(),
            ack: rest.get_u64(),
            window: rest.get_u32(),
        };
        (version == VERSION && fnv1a(body) == check.get_u32() && hello.nonce != 0).then_some(hello)
    }
}

/// Padding that no half-read frame survives; goes before the first HELLO of a process.
pub fn encode_padding(out: &mut Vec<u8>) {
    out.resize(out.len() + MAX_PAYLOAD + OVERHEAD + HELLO_LEN, PAD);
}

/// Appends a frame; `payload` may be given in two parts, as a ring buffer has it.
fn encode(out: &mut Vec<u8>, kind: u8, stream: u32, payload: (&[u8], &[u8])) {
    let length = payload.0.len() + payload.1.len();
    debug_assert!(length <= MAX_PAYLOAD);
    out.put_u8(kind);
    out.put_u8(0);
    out.put_u16(length as u16);
    out.put_u32(stream);
    out.put_slice(payload.0);
    out.put_slice(payload.1);
    out.put_u32(TRAILER);
}

/// Appends a DATA frame whose payload lies in two slices.
pub fn encode_data(out: &mut Vec<u8>, stream: u32, payload: (&[u8], &[u8])) {
    encode(out, DATA, stream, payload);
}

/// Appends any frame.
pub fn encode_frame(out: &mut Vec<u8>, stream: u32, frame: &Frame) {
    match frame {
        Frame::Open { port } => encode(out, OPEN, stream, (&port.to_be_bytes(), &[])),
        Frame::Accepted => encode(out, ACCEPTED, stream, (&[], &[])),
        Frame::Refused { reason } => encode(out, REFUSED, stream, (&[*reason], &[])),
        Frame::Data(bytes) => encode(out, DATA, stream, (bytes, &[])),
        Frame::Window { credit } => encode(out, WINDOW, stream, (&credit.to_be_bytes(), &[])),
        Frame::Fin => encode(out, FIN, stream, (&[], &[])),
        Frame::Reset => encode(out, RESET, stream, (&[], &[])),
    }
}

/// Turns bytes into events; holds at most one unfinished frame beside what was put in.
#[derive(Default)]
pub struct Decoder {
    pub buffer: BytesMut,
    synced: bool,
}

impl Decoder {
    /// The next event, or nothing until more bytes are in `buffer`.
    pub fn next_event(&mut self) -> Option<Event> {
        if !self.synced {
            return self.scan();
        }
        let first = *self.buffer.first()?;
        if first == MAGIC[0] {
            return self.hello();
        }
        if self.buffer.len() < HEADER {
            return if valid_kind(first) { None } else { self.lost() };
        }
        let mut header = &self.buffer[..HEADER];
        let (kind, reserved, length) =
            (header.get_u8(), header.get_u8(), header.get_u16() as usize);
        let stream = header.get_u32();
        if !valid_kind(kind) || reserved != 0 || !valid_length(kind, length) {
            return self.lost();
        }
        if self.buffer.len() < length + OVERHEAD {
            return None;
        }
        let mut trailer = &self.buffer[HEADER + length..];
        if trailer.get_u32() != TRAILER {
            return self.lost();
        }
        self.buffer.advance(HEADER);
        let payload = self.buffer.split_to(length).freeze();
        self.buffer.advance(4);
        Some(Event::Frame {
            stream,
            frame: parse(kind, payload),
        })
    }

    /// Forgets where frames begin: everything up to the next HELLO is skipped.
    pub fn desync(&mut self) {
        self.synced = false;
    }

    fn lost(&mut self) -> Option<Event> {
        self.synced = false;
        Some(Event::Desync)
    }

    fn hello(&mut self) -> Option<Event> {
        let seen = self.buffer.len().min(MAGIC.len());
        if self.buffer[..seen] != MAGIC[..seen] {
            return self.lost();
        }
        if self.buffer.len() < HELLO_LEN {
            return None;
        }
        match Hello::decode(&self.buffer[..HELLO_LEN]) {
            Some(hello) => {
                self.buffer.advance(HELLO_LEN);
                self.synced = true;
                Some(Event::Hello(hello))
            }
            None => {
                // Step over the false magic, or the scan would find it again for ever.
                self.buffer.advance(1);
                self.lost()
            }
        }
    }

    /// Skips to the next HELLO; keeps no more than a possible beginning of one.
    fn scan(&mut self) -> Option<Event> {
        loop {
            match self.buffer.iter().position(|byte| *byte == MAGIC[0]) {
                None => self.buffer.clear(),
                Some(at) => self.buffer.advance(at),
            }
            match self.buffer.len() {
                0 => return None,
                _ => match self.hello() {
                    Some(Event::Hello(hello)) => return Some(Event::Hello(hello)),
                    // No HELLO here; `hello` may have stepped over it already, and one more byte is harmless
                    // only where the magic did not match.
                    Some(_) => {
                        if self.buffer.first() == Some(&MAGIC[0]) {
                            self.buffer.advance(1);
                        }
                    }
                    None => return None,
                },
            }
        }
    }
}

fn valid_kind(kind: u8) -> bool {
    (OPEN..=RESET).contains(&kind)
}

fn valid_length(kind: u8, length: usize) -> bool {
    match kind {
        OPEN | WINDOW => length == 4,
        REFUSED => length == 1,
        DATA => length <= MAX_PAYLOAD,
        _ => length == 0,
    }
}

/// `kind` and the payload's length have been checked.
fn parse(kind: u8, mut payload: Bytes) -> Frame {
    match kind {
        OPEN => Frame::Open {
            port: payload.get_u32(),
        },
        ACCEPTED => Frame::Accepted,
        REFUSED => Frame::Refused {
            reason: payload.get_u8(),
        },
        DATA => Frame::Data(payload),
        WINDOW => Frame::Window {
            credit: payload.get_u32(),
        },
        FIN => Frame::Fin,
        _ => Frame::Reset,
    }
}

/// FNV-1a, 32 bits: tells a HELLO from bytes that happen to begin like one.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: Hello = Hello {
        from_host: true,
        nonce: 7,
        ack: 0xf0f0_f0f0_f0f0_f0f0,
        window: 9,
    };

    fn all(bytes: &[u8], step: usize) -> Vec<Event> {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        for part in bytes.chunks(step) {
            decoder.buffer.extend_from_slice(part);
            while let Some(event) = decoder.next_event() {
                events.push(event);
            }
            assert!(decoder.buffer.len() <= MAX_PAYLOAD + OVERHEAD + step);
        }
        events
    }

    fn frames() -> Vec<Frame> {
        vec![
            Frame::Open { port: 1024 },
            Frame::Accepted,
            Frame::Refused { reason: 3 },
            Frame::Data(Bytes::from_static(b"")),
            Frame::Data(Bytes::from(vec![0xf0; MAX_PAYLOAD])),
            Frame::Window { credit: u32::MAX },
            Frame::Fin,
            Frame::Reset,
        ]
    }

    #[test]
    fn every_frame_survives_the_wire_in_pieces_of_any_size() {
        let mut wire = Vec::new();
        HELLO.encode(&mut wire);
        for (stream, frame) in frames().iter().enumerate() {
            encode_frame(&mut wire, stream as u32, frame);
        }
        for step in [1, 3, 7, 4096, wire.len()] {
            let mut expected = vec![Event::Hello(HELLO)];
            for (stream, frame) in frames().into_iter().enumerate() {
                expected.push(Event::Frame {
                    stream: stream as u32,
                    frame,
                });
            }
            assert_eq!(all(&wire, step), expected, "step {step}");
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_never_delivered_and_the_next_hello_is_found() {
        let mut whole = Vec::new();
        encode_frame(&mut whole, 2, &Frame::Data(Bytes::from(vec![5; 100])));
        for cut in 1..whole.len() {
            let mut wire = Vec::new();
            HELLO.encode(&mut wire);
            wire.extend_from_slice(&whole[..cut]);
            encode_padding(&mut wire);
            Hello { nonce: 8, ..HELLO }.encode(&mut wire);
            let events = all(&wire, 1000);
            let expected = [
                Event::Hello(HELLO),
                Event::Desync,
                Event::Hello(Hello { nonce: 8, ..HELLO }),
            ];
            assert_eq!(events, expected, "cut {cut}");
        }
    }

    #[test]
    fn a_magic_that_is_no_hello_is_skipped() {
        let mut wire = MAGIC.repeat(5);
        wire.extend_from_slice(&MAGIC[..5]);
        wire.push(MAGIC[0]);
        HELLO.encode(&mut wire);
        for step in [1, wire.len()] {
            assert_eq!(all(&wire, step), [Event::Hello(HELLO)], "step {step}");
        }
    }

    #[test]
    fn garbage_neither_panics_nor_grows() {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut noise = Vec::new();
        for _ in 0..200_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Bytes that are often types and often magic, so that every path is walked.
            noise.push(match state % 3 {
                0 => (state >> 8) as u8 % 8,
                1 => MAGIC[(state >> 8) as usize % 16],
                _ => (state >> 8) as u8,
            });
        }
        all(&noise, 777);
        let mut wire = Vec::new();
        HELLO.encode(&mut wire);
        for chunk in noise.chunks(50) {
            wire.extend_from_slice(chunk);
            HELLO.encode(&mut wire);
        }
        assert!(all(&wire, 1234).contains(&Event::Desync));
    }
}
