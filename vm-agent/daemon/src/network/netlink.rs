//! Netlink by hand: messages, attributes and an acknowledged, blocking socket.
//!
//! One container start is a handful of tiny requests, so a plain socket that is written and read on
//! a blocking thread is both the shortest and the fastest way (`netlink(7)`, `rtnetlink(7)`).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub const NLM_F_REQUEST: u16 = 0x1;
pub const NLM_F_ACK: u16 = 0x4;
pub const NLM_F_REPLACE: u16 = 0x100;
pub const NLM_F_EXCL: u16 = 0x200;
pub const NLM_F_CREATE: u16 = 0x400;
pub const NLM_F_APPEND: u16 = 0x800;
pub const NLM_F_DUMP: u16 = 0x300;
pub const NLA_F_NESTED: u16 = 0x8000;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;

/// The kernel's answer to one request of a batch.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("open netlink socket: {0}")]
    Open(#[source] io::Error),
    #[error("send netlink request: {0}")]
    Send(#[source] io::Error),
    #[error("receive netlink answer: {0}")]
    Receive(#[source] io::Error),
    #[error("{what}: {source}")]
    Refused {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("netlink answer is malformed")]
    Malformed,
}

impl NetlinkError {
    /// The kernel's errno, when it was the kernel that said no.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// One netlink message under construction; attributes are appended and nested lengths patched.
pub struct Message {
    bytes: Vec<u8>,
}

/// Where a nested attribute began; hand it back to [`Message::end`].
#[must_use]
pub struct Nest(usize);

impl Message {
    /// Starts a message of `kind` with the family's fixed header (`ifinfomsg`, `nfgenmsg`, …).
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(fixed);
        let mut message = Self { bytes };
        message.pad();
        message
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    pub fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let len = (value.len() + 4) as u16;
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// A NUL-terminated string.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// A 32-bit value in host order, as rtnetlink wants it.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// A 32-bit value in network order, as nf_tables wants it.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    pub fn begin(&mut self, kind: u16) -> Nest {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&0u16.to_ne_bytes());
        self.bytes
            .extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        Nest(at)
    }

    pub fn end(&mut self, nest: Nest) {
        let len = (self.bytes.len() - nest.0) as u16;
        self.bytes[nest.0..nest.0 + 2].copy_from_slice(&len.to_ne_bytes());
        self.pad();
    }

    /// Nests what `fill` appends under `kind`.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let nest = self.begin(kind);
        fill(self);
        self.end(nest);
        self
    }

    /// Raw bytes inside the current attribute (a peer's `ifinfomsg`).
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// The finished bytes under a sequence number.
    pub fn finish(&self, sequence: u32, ack: bool) -> Vec<u8> {
        let mut out = self.bytes.clone();
        let len = out.len() as u32;
        out[0..4].copy_from_slice(&len.to_ne_bytes());
        if ack {
            let flags = u16::from_ne_bytes([out[6], out[7]]) | NLM_F_ACK;
            out[6..8].copy_from_slice(&flags.to_ne_bytes());
        }
        out[8..12].copy_from_slice(&sequence.to_ne_bytes());
        out
    }
}

/// The attributes of a received message, as (type without flags, value).
pub fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while bytes.len() >= 4 {
        let len = u16::from_ne_bytes([bytes[0], bytes[1]]) as usize;
        if len < 4 || len > bytes.len() {
            break;
        }
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]) & 0x3fff;
        found.push((kind, &bytes[4..len]));
        bytes = &bytes[len.next_multiple_of(4).min(bytes.len())..];
    }
    found
}

/// A received message: what follows the netlink header.
pub struct Reply {
    pub body: Vec<u8>,
}

/// A blocking netlink socket that belongs to the network namespace it was opened in.
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens a socket of `protocol` (`NETLINK_ROUTE`, `NETLINK_NETFILTER`) in the thread's namespace.
    pub fn open(protocol: i32) -> Result<Self, NetlinkError> {
        // SAFETY: socket(2) takes plain integers.
        let raw = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                protocol,
            )
        };
        if raw < 0 {
            return Err(NetlinkError::Open(io::Error::last_os_error()));
        }
        // SAFETY: `raw` was just returned by socket(2) and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let socket = Self { fd, sequence: 1 };
        // The kernel always answers; the limit only turns a kernel bug into an error.
        let limit = libc::timeval {
            tv_sec: 10,
            tv_usec: 0,
        };
        // SAFETY: the pointer and length describe `limit`, which outlives the call.
        unsafe {
            libc::setsockopt(
                socket.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const limit).cast(),
                size_of::<libc::timeval>() as u32,
            )
        };
        Ok(socket)
    }

    pub fn route() -> Result<Self, NetlinkError> {
        Self::open(libc::NETLINK_ROUTE)
    }

    pub fn netfilter() -> Result<Self, NetlinkError> {
        Self::open(libc::NETLINK_NETFILTER)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        // SAFETY: pointer and length describe `bytes`; an unconnected netlink socket sends to the kernel.
        let sent = unsafe {
            libc::send(
                self.fd.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_NOSIGNAL,
            )
        };
        if sent < 0 {
            return Err(NetlinkError::Send(io::Error::last_os_error()));
        }
        Ok(())
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<usize, NetlinkError> {
        loop {
            // SAFETY: pointer and length describe `buffer`.
            let got = unsafe {
                libc::recv(
                    self.fd.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                )
            };
            if got >= 0 {
                return Ok(got as usize);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(NetlinkError::Receive(error));
            }
        }
    }

    /// Sends one request and waits for its acknowledgement; `what` names it in the error.
    pub fn request(&mut self, what: &'static str, message: &Message) -> Result<(), NetlinkError> {
        self.exchange(what, message, true).map(|_| ())
    }

    /// Sends a dump request and gathers its messages.
    pub fn dump(
        &mut self,
        what: &'static str,
        message: &Message,
    ) -> Result<Vec<Reply>, NetlinkError> {
        self.exchange(what, message, false)
    }

    /// Sends a get request whose one answer is followed by the acknowledgement.
    pub fn get(
        &mut self,
        what: &'static str,
        message: &Message,
    ) -> Result<Option<Reply>, NetlinkError> {
        Ok(self.exchange(what, message, true)?.into_iter().next())
    }

    fn exchange(
        &mut self,
        what: &'static str,
        message: &Message,
        ack: bool,
    ) -> Result<Vec<Reply>, NetlinkError> {
        self.sequence += 1;
        let sequence = self.sequence;
        self.send(&message.finish(sequence, ack))?;
        let mut replies = Vec::new();
        let mut buffer = vec![0u8; 64 * 1024];
        loop {
            let got = self.receive(&mut buffer)?;
            for (kind, answered, body) in messages(&buffer[..got])? {
                if answered != sequence {
                    continue;
                }
                match kind {
                    NLMSG_DONE => return Ok(replies),
                    NLMSG_ERROR => return verdict(what, body).map(|()| replies),
                    _ => replies.push(Reply {
                        body: body.to_vec(),
                    }),
                }
            }
        }
    }

    /// Sends several messages in one datagram (an nf_tables transaction) of which those marked
    /// `acked` answer; the first refusal is the result of all, since the kernel applies none then.
    pub fn transact(
        &mut self,
        parts: &[(&'static str, Message, bool)],
    ) -> Result<(), NetlinkError> {
        let mut bytes = Vec::new();
        let first = self.sequence + 1;
        let mut waiting = 0;
        for (index, (_, message, acked)) in parts.iter().enumerate() {
            bytes.extend_from_slice(&message.finish(first + index as u32, *acked));
            waiting += usize::from(*acked);
        }
        self.sequence = first + parts.len() as u32;
        self.send(&bytes)?;
        let mut refused = None;
        let mut buffer = vec![0u8; 64 * 1024];
        while waiting > 0 {
            let got = self.receive(&mut buffer)?;
            for (kind, answered, body) in messages(&buffer[..got])? {
                let Some((what, _, acked)) = answered
                    .checked_sub(first)
                    .and_then(|index| parts.get(index as usize))
                    .filter(|_| kind == NLMSG_ERROR)
                else {
                    continue;
                };
                waiting -= usize::from(*acked);
                let answer = verdict(what, body);
                if answer.is_err() && !acked {
                    // The batch itself was refused (no permission, table busy): nothing else answers.
                    return answer;
                }
                refused = refused.or(answer.err());
            }
        }
        refused.map_or(Ok(()), Err)
    }
}

fn verdict(what: &'static str, body: &[u8]) -> Result<(), NetlinkError> {
    let code = body.get(..4).ok_or(NetlinkError::Malformed)?;
    match i32::from_ne_bytes(code.try_into().unwrap_or_default()) {
        0 => Ok(()),
        error => Err(NetlinkError::Refused {
            what,
            source: io::Error::from_raw_os_error(-error),
        }),
    }
}

/// Type, sequence and body of one netlink message.
type Received<'a> = (u16, u32, &'a [u8]);

/// Splits a datagram into its messages.
fn messages(mut bytes: &[u8]) -> Result<Vec<Received<'_>>, NetlinkError> {
    let mut found = Vec::new();
    while bytes.len() >= HEADER {
        let len = u32::from_ne_bytes(bytes[0..4].try_into().unwrap_or_default()) as usize;
        if len < HEADER || len > bytes.len() {
            return Err(NetlinkError::Malformed);
        }
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        let sequence = u32::from_ne_bytes(bytes[8..12].try_into().unwrap_or_default());
        found.push((kind, sequence, &bytes[HEADER..len]));
        bytes = &bytes[len.next_multiple_of(4).min(bytes.len())..];
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested_lengths_patched() {
        let mut message = Message::new(16, NLM_F_CREATE, &[0; 16]);
        message.text(3, "eth0").nest(18, |m| {
            m.text(1, "veth");
        });
        let bytes = message.finish(7, true);
        assert_eq!(
            u32::from_ne_bytes(bytes[0..4].try_into().unwrap()) as usize,
            bytes.len()
        );
        assert_eq!(
            u16::from_ne_bytes([bytes[6], bytes[7]]),
            NLM_F_CREATE | NLM_F_REQUEST | NLM_F_ACK
        );
        let found = attributes(&bytes[32..]);
        assert_eq!(found[0], (3, &b"eth0\0"[..]));
        assert_eq!(found[1].0, 18);
        assert_eq!(attributes(found[1].1), vec![(1, &b"veth\0"[..])]);
    }

    #[test]
    fn truncated_datagrams_are_refused() {
        assert!(matches!(
            messages(&[200, 0, 0, 0].repeat(4)),
            Err(NetlinkError::Malformed)
        ));
        assert!(messages(&[]).unwrap().is_empty());
    }
}
