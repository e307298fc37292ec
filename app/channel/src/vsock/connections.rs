//! All connections of one vsock device, behind one lock that is held for moments only; it knows packets, not queues.
//!
//! ```text
//!   host:  wanted ─REQUEST▶ pending ─RESPONSE from the guest▶ open        RST at any time: reset
//!   guest: REQUEST ▶ pending ─accepted, RESPONSE▶ open                    else RST
//!   open:  each direction ends with SHUTDOWN(SEND); when both have ended, or a side drops the stream, it is forgotten
//! ```

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use longshore_protocol::ports::MAX_STREAMS;

use super::{
    packet::{HOST_CID, Header, NO_RECEIVE, NO_SEND, STREAM, op},
    stream::{Incoming, VsockStream},
};

/// First of our ports; those below are for listeners.
const FIRST_PORT: u32 = 1 << 30;
/// A guest accounts each queued packet beside its bytes, and resets a connection on which very many wait: small packets are
/// held back while this many are unread.
const MAX_SMALL_IN_FLIGHT: usize = 128;
/// A packet of this size is not small.
const SMALL: usize = 4000;
/// Marks kept of packets in flight; a guest that reads in order never needs more.
const MAX_MARKS: usize = 4096;

/// What the guest can make us hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_connections: usize,
    /// Bytes received and not yet read, for each connection.
    pub window: u32,
    /// Bytes written and not yet sent, for each connection.
    pub send_buffer: usize,
    /// Answers that wait for the guest's receive buffers; while there are more, the guest's packets wait.
    pub max_replies: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: MAX_STREAMS,
            window: 256 << 10,
            send_buffer: 128 << 10,
            max_replies: 1024,
        }
    }
}

/// Why a connection was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    Refused,
    TooMany,
    Lost,
}

pub struct Connections {
    state: Mutex<State>,
    pub limits: Limits,
    guest_cid: u64,
}

#[derive(Default)]
pub struct State {
    closed: bool,
    next_port: u32,
    next_key: u64,
    /// By a key that is never used twice, so that an old handle finds nothing new.
    pub entries: HashMap<u64, Connection>,
    keys: HashMap<(u32, u32), u64>,
    /// Connections that have something to send, in the order of their turns.
    ready: VecDeque<u64>,
    /// RST for packets that belong to nothing.
    replies: VecDeque<Header>,
    incoming: VecDeque<u64>,
    accept_waker: Option<Waker>,
    /// Tells the device that there is something to send.
    wake_device: Option<Box<dyn Fn() + Send>>,
    device_woken: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// REQUEST is to be sent.
    Wanted,
    /// REQUEST was sent, or received and not answered.
    Pending,
    /// RESPONSE is to be sent.
    Accepted,
    /// RST is to be sent.
    Declined,
    Open,
}

pub struct Connection {
    host_port: u32,
    guest_port: u32,
    pub phase: Phase,
    pub received: VecDeque<u8>,
    /// Bytes that the application has read since the connection began.
    pub forwarded: u32,
    /// What the guest was last told of `forwarded`.
    told: u32,
    received_count: u32,
    pub peer_finished: bool,
    /// The guest receives no more.
    pub peer_deaf: bool,
    pub unsent: VecDeque<u8>,
    sent_count: u32,
    peer_alloc: u32,
    peer_forwarded: u32,
    /// Value of `sent_count` behind each packet that the guest has not read.
    in_flight: VecDeque<u32>,
    credit_asked: bool,
    owes_credit: bool,
    pub finishing: bool,
    finished: bool,
    pub reset: bool,
    /// The application's handle is gone.
    pub released: bool,
    queued: bool,
    pub read_waker: Option<Waker>,
    pub write_waker: Option<Waker>,
}

impl Connection {
    fn new(host_port: u32, guest_port: u32, phase: Phase) -> Self {
        Self {
            host_port,
            guest_port,
            phase,
            received: VecDeque::new(),
            forwarded: 0,
            told: 0,
            received_count: 0,
            peer_finished: false,
            peer_deaf: false,
            unsent: VecDeque::new(),
            sent_count: 0,
            peer_alloc: 0,
            peer_forwarded: 0,
            in_flight: VecDeque::new(),
            credit_asked: false,
            owes_credit: false,
            finishing: false,
            finished: false,
            reset: false,
            released: false,
            queued: false,
            read_waker: None,
            write_waker: None,
        }
    }

    /// Bytes that the guest has room for; it may have shrunk its buffer, so nothing is assumed of the counters.
    fn credit(&self) -> usize {
        let unread = self.sent_count.wrapping_sub(self.peer_forwarded);
        self.peer_alloc.saturating_sub(unread) as usize
    }

    /// Many small packets wait in the guest: what follows is gathered until it has read some, or is no longer small.
    fn holds_back(&self) -> bool {
        self.in_flight.len() >= MAX_SMALL_IN_FLIGHT && self.unsent.len() < SMALL && !self.finishing
    }

    fn can_send(&self) -> bool {
        !self.unsent.is_empty() && self.credit() > 0 && !self.holds_back()
    }

    /// Credit is worth a packet of its own.
    pub fn must_tell(&self, window: u32) -> bool {
        !self.peer_finished && self.forwarded.wrapping_sub(self.told) >= window / 2
    }

    fn take_credit(&mut self, header: &Header) {
        self.peer_alloc = header.buf_alloc;
        // Asking again before the guest has read anything would only be answered the same.
        self.credit_asked &= self.peer_forwarded == header.fwd_cnt;
        self.peer_forwarded = header.fwd_cnt;
        // What is unread lies in the last `unread` bytes sent.
        let unread = self.sent_count.wrapping_sub(header.fwd_cnt);
        let sent = self.sent_count;
        self.in_flight
            .retain(|end| sent.wrapping_sub(*end) < unread);
    }

    fn wake(&mut self) {
        wake(&mut self.read_waker);
        wake(&mut self.write_waker);
    }

    fn break_off(&mut self) {
        self.reset = true;
        self.unsent = VecDeque::new();
        self.wake();
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Connections {
    pub fn new(guest_cid: u64, limits: Limits) -> Self {
        let state = State {
            next_port: FIRST_PORT,
            next_key: 1,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            limits,
            guest_cid,
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock cannot leave more than one connection in a wrong state.
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// How the device is told of work.
    pub fn on_work(&self, wake: Box<dyn Fn() + Send>) {
        self.lock().wake_device = Some(wake);
    }

    /// The device is gone: everything ends.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.wake_device = None;
        state.keys.clear();
        state.ready.clear();
        state.replies.clear();
        state.incoming.clear();
        state.entries.retain(|_, connection| {
            connection.break_off();
            !connection.released
        });
        wake(&mut state.accept_waker);
    }

    /// A new connection to a guest port, whose REQUEST is queued.
    pub fn open(self: &Arc<Self>, guest_port: u32) -> Result<VsockStream, OpenError> {
        let mut state = self.lock();
        if state.closed {
            return Err(OpenError::Lost);
        }
        if state.entries.len() >= self.limits.max_connections {
            return Err(OpenError::TooMany);
        }
        let host_port = state.free_port(guest_port);
        let key = state.insert(Connection::new(host_port, guest_port, Phase::Wanted));
        state.enqueue(key);
        drop(state);
        Ok(VsockStream::new(self.clone(), key))
    }

    pub fn poll_incoming(self: &Arc<Self>, context: &mut Context<'_>) -> Poll<Option<Incoming>> {
        let mut state = self.lock();
        while let Some(key) = state.incoming.pop_front() {
            if let Some(connection) = state.entries.get(&key) {
                let port = connection.host_port;
                drop(state);
                let stream = VsockStream::new(self.clone(), key);
                return Poll::Ready(Some(Incoming::new(stream, port)));
            }
        }
        if state.closed {
            return Poll::Ready(None);
        }
        state.accept_waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Whether the guest's packets must wait until it has taken some answers.
    pub fn is_congested(&self) -> bool {
        let state = self.lock();
        state.replies.len() >= self.limits.max_replies
            || state.ready.len() >= self.limits.max_replies + 2 * self.limits.max_connections
    }

    /// Takes in one packet of the guest; `header.len` is the payload's length.
    pub fn receive(&self, header: &Header, payload: &[u8]) {
        if header.src_cid != self.guest_cid || header.dst_cid != HOST_CID {
            // Not from this guest, or not for us: nothing to answer (5.10.6.4.1).
            return;
        }
        let mut state = self.lock();
        let known = state.keys.get(&(header.dst_port, header.src_port)).copied();
        let wrong_kind = header.kind != STREAM;
        match (known, header.op) {
            (_, op::RST) => state.peer_reset(known),
            (None, op::REQUEST) if !wrong_kind => self.peer_opens(&mut state, header),
            (Some(key), _) if !wrong_kind => {
                if !state.packet(key, header, payload, self.limits.window) {
                    state.refuse(header);
                    state.abandon(key);
                }
            }
            _ => state.refuse(header),
        }
    }

    fn peer_opens(&self, state: &mut State, header: &Header) {
        if state.entries.len() >= self.limits.max_connections || state.closed {
            return state.refuse(header);
        }
        let mut connection = Connection::new(header.dst_port, header.src_port, Phase::Pending);
        connection.take_credit(header);
        let key = state.insert(connection);
        if state.incoming.len() >= self.limits.max_connections {
            let entries = &state.entries;
            state.incoming.retain(|key| entries.contains_key(key));
        }
        state.incoming.push_back(key);
        wake(&mut state.accept_waker);
    }

    /// Whether the guest should be given a packet.
    pub fn has_work(&self) -> bool {
        let mut state = self.lock();
        state.device_woken = false;
        !state.replies.is_empty() || !state.ready.is_empty()
    }

    /// Makes the next packet, with at most `room` bytes of payload handed to `write` in two slices; false when there is none.
    /// A connection that has more to send gets its next turn after the others'.
    pub fn send(&self, room: usize, mut write: impl FnMut(&Header, (&[u8], &[u8]))) -> bool {
        let mut state = self.lock();
        if let Some(header) = state.replies.pop_front() {
            write(&header, (&[], &[]));
            return true;
        }
        while let Some(key) = state.ready.pop_front() {
            if state.take_turn(key, room, self.guest_cid, self.limits.window, &mut write) {
                return true;
            }
        }
        false
    }
}

impl State {
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    fn insert(&mut self, connection: Connection) -> u64 {
        let key = self.next_key;
        self.next_key += 1;
        self.keys
            .insert((connection.host_port, connection.guest_port), key);
        self.entries.insert(key, connection);
        key
    }

    fn free_port(&mut self, guest_port: u32) -> u32 {
        loop {
            let port = self.next_port;
            self.next_port = self.next_port.wrapping_add(1).max(FIRST_PORT);
            if port != u32::MAX && !self.keys.contains_key(&(port, guest_port)) {
                return port;
            }
        }
    }

    /// Gives a connection a turn, and the device news of it.
    pub fn enqueue(&mut self, key: u64) {
        let Some(connection) = self.entries.get_mut(&key) else {
            return;
        };
        if !connection.queued {
            connection.queued = true;
            self.ready.push_back(key);
        }
        self.wake_device();
    }

    fn wake_device(&mut self) {
        if !self.device_woken
            && let Some(wake) = &self.wake_device
        {
            self.device_woken = true;
            wake();
        }
    }

    pub fn remove(&mut self, key: u64) {
        if let Some(connection) = self.entries.remove(&key) {
            self.forget(key, connection.host_port, connection.guest_port);
        }
    }

    fn forget(&mut self, key: u64, host_port: u32, guest_port: u32) {
        if self.keys.get(&(host_port, guest_port)) == Some(&key) {
            self.keys.remove(&(host_port, guest_port));
        }
    }

    /// Ends a connection that the wire knows no more; its handle can read what was received.
    fn abandon(&mut self, key: u64) {
        let Some(connection) = self.entries.get_mut(&key) else {
            return;
        };
        connection.break_off();
        let (host_port, guest_port) = (connection.host_port, connection.guest_port);
        if connection.released {
            self.entries.remove(&key);
        }
        self.forget(key, host_port, guest_port);
    }

    fn peer_reset(&mut self, key: Option<u64>) {
        let Some(key) = key else { return };
        let pending = |connection: &Connection| {
            connection.phase == Phase::Pending && connection.host_port < FIRST_PORT
        };
        // An offer that nobody has looked at has no handle.
        if self.entries.get(&key).is_some_and(pending) && self.incoming.contains(&key) {
            return self.remove(key);
        }
        self.abandon(key);
    }

    /// Answers a packet that belongs to nothing.
    fn refuse(&mut self, header: &Header) {
        self.replies.push_back(Header {
            src_cid: header.dst_cid,
            dst_cid: header.src_cid,
            src_port: header.dst_port,
            dst_port: header.src_port,
            len: 0,
            kind: header.kind,
            op: op::RST,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        });
        self.wake_device();
    }

    /// Takes in one packet of a known connection; false when it breaks the protocol.
    fn packet(&mut self, key: u64, header: &Header, payload: &[u8], window: u32) -> bool {
        let Some(connection) = self.entries.get_mut(&key) else {
            return true;
        };
        connection.take_credit(header);
        match header.op {
            op::RESPONSE => {
                if connection.phase != Phase::Pending || connection.host_port < FIRST_PORT {
                    return false;
                }
                connection.phase = Phase::Open;
                connection.wake();
            }
            op::RW => {
                let unread = connection.received_count.wrapping_sub(connection.forwarded);
                let fits = payload.len() as u64 + u64::from(unread) <= u64::from(window);
                if connection.phase != Phase::Open || connection.peer_finished || !fits {
                    return false;
                }
                let length = payload.len() as u32;
                connection.received_count = connection.received_count.wrapping_add(length);
                if connection.released {
                    connection.forwarded = connection.received_count;
                } else {
                    connection.received.extend(payload);
                    wake(&mut connection.read_waker);
                }
            }
            op::SHUTDOWN => return self.peer_shuts_down(key, header.flags),
            op::CREDIT_REQUEST => {
                connection.owes_credit = true;
                self.enqueue(key);
                return true;
            }
            op::CREDIT_UPDATE => {}
            _ => return false,
        }
        if self.entries.get(&key).is_some_and(Connection::can_send) {
            self.enqueue(key);
        }
        true
    }

    fn peer_shuts_down(&mut self, key: u64, flags: u32) -> bool {
        let Some(connection) = self.entries.get_mut(&key) else {
            return true;
        };
        if flags & NO_SEND != 0 {
            connection.peer_finished = true;
            wake(&mut connection.read_waker);
        }
        if flags & NO_RECEIVE != 0 {
            connection.peer_deaf = true;
            connection.unsent = VecDeque::new();
            wake(&mut connection.write_waker);
        }
        // A guest that has closed both ways waits for our RST (5.10.6.5).
        !(connection.peer_finished && connection.peer_deaf)
    }

    /// Sends one packet of a connection; false when it had nothing to send after all.
    fn take_turn(
        &mut self,
        key: u64,
        room: usize,
        guest_cid: u64,
        window: u32,
        write: &mut impl FnMut(&Header, (&[u8], &[u8])),
    ) -> bool {
        let Some(connection) = self.entries.get_mut(&key) else {
            return false;
        };
        connection.queued = false;
        if connection.reset {
            if connection.released {
                self.remove(key);
            }
            return false;
        }
        let Some((packet, flags, length)) = connection.next_packet(room, window) else {
            return false;
        };
        let header = Header {
            src_cid: HOST_CID,
            dst_cid: guest_cid,
            src_port: connection.host_port,
            dst_port: connection.guest_port,
            len: length as u32,
            kind: STREAM,
            op: packet,
            flags,
            buf_alloc: window,
            fwd_cnt: connection.forwarded,
        };
        connection.told = connection.forwarded;
        connection.owes_credit = false;
        let (first, second) = connection.unsent.as_slices();
        let from_first = first.len().min(length);
        write(
            &header,
            (&first[..from_first], &second[..length - from_first]),
        );
        if length > 0 {
            connection.sent(length);
        }
        let last = packet == op::RST || flags & NO_RECEIVE != 0;
        if last {
            self.remove(key);
        } else if connection.has_more(window) {
            connection.queued = true;
            self.ready.push_back(key);
        }
        true
    }
}

impl Connection {
    /// The operation, flags and payload length of what is to be sent next.
    fn next_packet(&mut self, room: usize, window: u32) -> Option<(u16, u32, usize)> {
        match self.phase {
            Phase::Wanted => {
                self.phase = Phase::Pending;
                return Some((op::REQUEST, 0, 0));
            }
            Phase::Accepted => {
                self.phase = Phase::Open;
                return Some((op::RESPONSE, 0, 0));
            }
            Phase::Declined => return Some((op::RST, 0, 0)),
            // The opener went away before the guest answered.
            Phase::Pending => return self.released.then_some((op::RST, 0, 0)),
            Phase::Open => {}
        }
        if self.can_send() {
            return Some((op::RW, 0, self.unsent.len().min(self.credit()).min(room)));
        }
        if self.unsent.is_empty() && self.finishing && !self.finished {
            self.finished = true;
            return Some((op::SHUTDOWN, NO_SEND, 0));
        }
        if self.released && (self.finished || !self.finishing) {
            // Both directions have ended: in order. Else the guest learns that its bytes go nowhere.
            let orderly = self.finished && self.peer_finished;
            return Some(if orderly {
                (op::SHUTDOWN, NO_SEND | NO_RECEIVE, 0)
            } else {
                (op::RST, 0, 0)
            });
        }
        let waits = !self.unsent.is_empty() && !self.credit_asked;
        if waits {
            self.credit_asked = true;
            return Some((op::CREDIT_REQUEST, 0, 0));
        }
        if self.owes_credit || self.must_tell(window) {
            return Some((op::CREDIT_UPDATE, 0, 0));
        }
        None
    }

    fn sent(&mut self, length: usize) {
        self.unsent.drain(..length);
        self.sent_count = self.sent_count.wrapping_add(length as u32);
        if self.in_flight.len() < MAX_MARKS {
            self.in_flight.push_back(self.sent_count);
        }
        wake(&mut self.write_waker);
    }

    fn has_more(&self, window: u32) -> bool {
        let finishes = self.unsent.is_empty() && self.finishing && !self.finished;
        let parts = self.released && (self.finished || !self.finishing);
        let asks = !self.unsent.is_empty() && !self.credit_asked;
        self.phase == Phase::Open
            && (self.can_send() || finishes || parts || asks || self.must_tell(window))
    }
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;
