//! All that a multiplexer knows, behind one lock that is never held across an await.

use std::{
    collections::{HashMap, VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use tokio::sync::{Notify, watch};

use super::{
    Limits, OpenError, Refusal, Role, Session,
    frame::{self, Decoder, Event, Frame, Hello, MAX_PAYLOAD},
    stream::{Incoming, MuxStream},
};

/// Bytes gathered for one write to the carrier.
const BATCH: usize = 4 * MAX_PAYLOAD;
/// A peer's window is believed up to here.
const MAX_WINDOW: u32 = 16 * 1024 * 1024;

pub(super) struct Shared {
    state: Mutex<State>,
    /// There is something to send.
    work: Notify,
    session: watch::Sender<Session>,
}

pub(super) struct State {
    pub limits: Limits,
    role: Role,
    nonce: u64,
    /// The nonce of the peer that we have answered.
    peer: Option<u64>,
    /// Both sides know each other's nonce.
    up: bool,
    epoch: u64,
    closed: bool,
    hello_due: bool,
    peer_window: u32,
    next_id: u32,
    next_key: u64,
    /// Streams by a key that is never used twice, so that a handle of an old session finds nothing new.
    pub streams: HashMap<u64, Stream>,
    keys: HashMap<u32, u64>,
    /// Streams that have something to send, in the order of their turns.
    ready: VecDeque<u64>,
    /// Refusals owed to streams that never existed here.
    refused: VecDeque<(u32, Refusal)>,
    incoming: VecDeque<u64>,
    accept_waker: Option<Waker>,
}

/// One stream, from the first OPEN until both the handle and the wire are done with it.
pub(super) struct Stream {
    pub id: u32,
    pub port: u32,
    pub opening: Opening,
    pub received: VecDeque<u8>,
    pub peer_finished: bool,
    /// Read by the application, not yet given back as credit.
    pub consumed: u32,
    /// What the peer may still send.
    allowance: u32,
    pub unsent: VecDeque<u8>,
    credit: u32,
    pub finishing: bool,
    finished: bool,
    pub reset: bool,
    /// The application's handle is gone.
    pub released: bool,
    queued: bool,
    pub answer: Option<Answer>,
    pub read_waker: Option<Waker>,
    pub write_waker: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// OPEN is to be sent.
    Wanted,
    /// OPEN was sent, or received and not answered.
    Pending,
    Open,
    Refused(Refusal),
}

/// What an incoming stream is owed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    Accept,
    Refuse(Refusal),
}

impl Stream {
    fn new(id: u32, port: u32, opening: Opening, credit: u32, allowance: u32) -> Self {
        Self {
            id,
            port,
            opening,
            received: VecDeque::new(),
            peer_finished: false,
            consumed: 0,
            allowance,
            unsent: VecDeque::new(),
            credit,
            finishing: false,
            finished: false,
            reset: false,
            released: false,
            queued: false,
            answer: None,
            read_waker: None,
            write_waker: None,
        }
    }

    pub fn wake(&mut self) {
        wake(&mut self.read_waker);
        wake(&mut self.write_waker);
    }

    /// Ends the stream in both directions; what was received can still be read.
    fn break_off(&mut self) {
        self.reset = true;
        self.unsent = VecDeque::new();
        self.wake();
    }

    /// Nothing will be sent any more, and nobody reads.
    fn is_over(&self) -> bool {
        self.released && (self.reset || (self.finished && self.peer_finished))
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// A number that no earlier process or session used; std's hasher keys come from the system's generator.
fn random_nonce() -> u64 {
    RandomState::new()
        .hash_one(std::time::SystemTime::now())
        .max(1)
}

impl Shared {
    pub fn new(role: Role, limits: Limits) -> Self {
        let state = State {
            limits,
            role,
            nonce: random_nonce(),
            peer: None,
            up: false,
            epoch: 0,
            closed: false,
            hello_due: true,
            peer_window: 0,
            next_id: if role == Role::Host { 2 } else { 1 },
            next_key: 1,
            streams: HashMap::new(),
            keys: HashMap::new(),
            ready: VecDeque::new(),
            refused: VecDeque::new(),
            incoming: VecDeque::new(),
            accept_waker: None,
        };
        let (session, _) = watch::channel(Session::Connecting);
        Self {
            state: Mutex::new(state),
            work: Notify::new(),
            session,
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock cannot leave more than one stream in a wrong state.
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn session(&self) -> watch::Receiver<Session> {
        self.session.subscribe()
    }

    pub async fn closed(&self) {
        let _ = self
            .session()
            .wait_for(|session| *session == Session::Closed)
            .await;
    }

    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits until there may be something to send.
    pub async fn work(&self) {
        self.work.notified().await;
    }

    pub fn notify(&self) {
        self.work.notify_one();
    }

    /// The carrier ended: everything ends.
    pub fn close(&self) {
        let mut state = self.lock();
        state.drop_session();
        state.closed = true;
        wake(&mut state.accept_waker);
        drop(state);
        self.session.send_replace(Session::Closed);
        self.notify();
    }

    /// A new stream whose OPEN is queued.
    pub fn open(self: &Arc<Self>, port: u32) -> Result<MuxStream, OpenError> {
        let mut state = self.lock();
        if state.closed || !state.up {
            return Err(OpenError::Lost);
        }
        if state.streams.len() >= state.limits.max_streams {
            return Err(Refusal::TooManyStreams.into());
        }
        let id = state.free_id();
        let (credit, allowance) = (state.peer_window, state.limits.window);
        let key = state.insert(Stream::new(id, port, Opening::Wanted, credit, allowance));
        state.enqueue(key);
        drop(state);
        self.notify();
        Ok(MuxStream::new(self.clone(), key))
    }

    pub fn poll_incoming(self: &Arc<Self>, context: &mut Context<'_>) -> Poll<Option<Incoming>> {
        let mut state = self.lock();
        while let Some(key) = state.incoming.pop_front() {
            // The opener may have gone away in the meantime.
            if let Some(stream) = state.streams.get(&key) {
                let port = stream.port;
                drop(state);
                return Poll::Ready(Some(Incoming::new(MuxStream::new(self.clone(), key), port)));
            }
        }
        if state.closed {
            return Poll::Ready(None);
        }
        state.accept_waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Takes in all whole frames that the decoder holds.
    pub fn receive(&self, decoder: &mut Decoder) {
        let mut state = self.lock();
        let before = (state.up, state.epoch);
        while let Some(event) = decoder.next_event() {
            match event {
                Event::Hello(hello) => state.hello(hello),
                Event::Desync => state.restart(),
                Event::Frame { stream, frame } => {
                    if state.up && !state.frame(stream, frame) {
                        decoder.desync();
                        state.restart();
                    }
                }
            }
        }
        let after = (state.up, state.epoch);
        let busy = state.hello_due || !state.ready.is_empty() || !state.refused.is_empty();
        let closed = state.closed;
        drop(state);
        if before != after && !closed {
            let session = if after.0 {
                Session::Up(after.1)
            } else {
                Session::Connecting
            };
            self.session.send_replace(session);
        }
        if busy {
            self.notify();
        }
    }

    /// Fills a batch for the carrier; it stays empty when there is nothing to send.
    pub fn fill(&self, out: &mut Vec<u8>) {
        let mut state = self.lock();
        if state.hello_due {
            state.hello_due = false;
            state.our_hello().encode(out);
        }
        if !state.up {
            return;
        }
        while let Some((id, refusal)) = state.refused.pop_front() {
            frame::encode_frame(
                out,
                id,
                &Frame::Refused {
                    reason: refusal.code(),
                },
            );
        }
        while out.len() < BATCH {
            let Some(key) = state.ready.pop_front() else {
                break;
            };
            state.take_turn(key, out);
        }
    }
}

impl State {
    fn our_hello(&self) -> Hello {
        Hello {
            from_host: self.role == Role::Host,
            nonce: self.nonce,
            ack: self.peer.unwrap_or(0),
            window: self.limits.window,
        }
    }

    fn insert(&mut self, stream: Stream) -> u64 {
        let key = self.next_key;
        self.next_key += 1;
        self.keys.insert(stream.id, key);
        self.streams.insert(key, stream);
        key
    }

    /// The next number of our parity that no living stream has; there are fewer streams than numbers.
    fn free_id(&mut self) -> u32 {
        loop {
            let id = self.next_id;
            self.next_id = self.next_id.wrapping_add(2);
            if id != 0 && !self.keys.contains_key(&id) {
                return id;
            }
        }
    }

    /// Gives a stream a turn.
    pub fn enqueue(&mut self, key: u64) {
        if let Some(stream) = self.streams.get_mut(&key)
            && !stream.queued
        {
            stream.queued = true;
            self.ready.push_back(key);
            if self.ready.len() > 2 * self.limits.max_streams {
                self.ready.retain(|key| self.streams.contains_key(key));
            }
        }
    }

    pub fn remove(&mut self, key: u64) {
        if let Some(stream) = self.streams.remove(&key)
            && self.keys.get(&stream.id) == Some(&key)
        {
            self.keys.remove(&stream.id);
        }
    }

    /// Resets every stream; handles that still exist can read what they have received.
    fn drop_session(&mut self) {
        self.up = false;
        self.peer = None;
        self.keys.clear();
        self.ready.clear();
        self.refused.clear();
        self.incoming.clear();
        self.streams.retain(|_, stream| {
            stream.queued = false;
            stream.break_off();
            !stream.released
        });
    }

    /// Begins a new session from our side.
    fn restart(&mut self) {
        if self.up || self.peer.is_some() {
            self.drop_session();
            self.nonce = random_nonce();
            self.hello_due = true;
        }
    }

    fn hello(&mut self, hello: Hello) {
        if hello.from_host == (self.role == Role::Host) {
            return;
        }
        let acknowledged = hello.ack == self.nonce;
        if self.up {
            if self.peer == Some(hello.nonce) && acknowledged {
                return;
            }
            self.restart();
        }
        if self.peer != Some(hello.nonce) {
            self.peer = Some(hello.nonce);
            self.hello_due = true;
        }
        if acknowledged && !self.up {
            self.up = true;
            self.epoch += 1;
            self.peer_window = hello.window.min(MAX_WINDOW);
        }
    }

    /// Takes in one frame; false when the peer broke the protocol.
    fn frame(&mut self, id: u32, frame: Frame) -> bool {
        let key = match frame {
            Frame::Open { port } => return self.peer_opens(id, port),
            _ => self.keys.get(&id).copied(),
        };
        // Frames for a stream that we have already forgotten cross our RESET on the wire.
        let Some(key) = key else { return true };
        let Some(stream) = self.streams.get_mut(&key) else {
            return true;
        };
        let ours = id.is_multiple_of(2) == (self.role == Role::Host);
        match frame {
            Frame::Open { .. } => {}
            Frame::Accepted => {
                if !ours || stream.opening != Opening::Pending {
                    return false;
                }
                stream.opening = Opening::Open;
                stream.wake();
            }
            Frame::Refused { reason } => {
                if !ours || stream.opening != Opening::Pending {
                    return false;
                }
                stream.opening = Opening::Refused(Refusal::from_code(reason));
                stream.break_off();
                self.keys.remove(&id);
            }
            Frame::Data(bytes) => {
                let length = bytes.len() as u32;
                if stream.peer_finished || length > stream.allowance {
                    return false;
                }
                stream.allowance -= length;
                if !stream.released {
                    stream.received.extend(&bytes[..]);
                    wake(&mut stream.read_waker);
                }
            }
            Frame::Window { credit } => {
                stream.credit = stream.credit.saturating_add(credit).min(MAX_WINDOW);
                if !stream.unsent.is_empty() {
                    self.enqueue(key);
                }
            }
            Frame::Fin => {
                if stream.peer_finished {
                    return false;
                }
                stream.peer_finished = true;
                wake(&mut stream.read_waker);
                if stream.is_over() {
                    self.remove(key);
                }
            }
            Frame::Reset => {
                stream.break_off();
                if stream.released || stream.opening == Opening::Pending && !ours {
                    self.remove(key);
                } else {
                    self.keys.remove(&id);
                }
            }
        }
        true
    }

    fn peer_opens(&mut self, id: u32, port: u32) -> bool {
        let ours = id.is_multiple_of(2) == (self.role == Role::Host);
        if ours || self.keys.contains_key(&id) {
            return false;
        }
        if self.streams.len() >= self.limits.max_streams {
            // A peer that does not read its refusals has broken the protocol.
            self.refused.push_back((id, Refusal::TooManyStreams));
            return self.refused.len() <= self.limits.max_streams;
        }
        let (credit, allowance) = (self.peer_window, self.limits.window);
        let key = self.insert(Stream::new(id, port, Opening::Pending, credit, allowance));
        if self.incoming.len() >= self.limits.max_streams {
            self.incoming.retain(|key| self.streams.contains_key(key));
        }
        self.incoming.push_back(key);
        wake(&mut self.accept_waker);
        true
    }

    /// Sends at most one frame's worth of a stream's data, and whatever small frames it owes.
    fn take_turn(&mut self, key: u64, out: &mut Vec<u8>) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        stream.queued = false;
        if stream.opening == Opening::Wanted {
            stream.opening = Opening::Pending;
            frame::encode_frame(out, stream.id, &Frame::Open { port: stream.port });
        }
        match stream.answer.take() {
            Some(Answer::Accept) => {
                stream.opening = Opening::Open;
                frame::encode_frame(out, stream.id, &Frame::Accepted);
            }
            Some(Answer::Refuse(refusal)) => {
                let reason = refusal.code();
                frame::encode_frame(out, stream.id, &Frame::Refused { reason });
                self.remove(key);
                return;
            }
            None => {}
        }
        if stream.reset {
            if stream.released {
                self.remove(key);
            }
            return;
        }
        if stream.consumed >= self.limits.window / 2 && !stream.peer_finished {
            let credit = std::mem::take(&mut stream.consumed);
            stream.allowance += credit;
            frame::encode_frame(out, stream.id, &Frame::Window { credit });
        }
        if stream.opening == Opening::Open {
            stream.send_data(out);
        }
        let more = !stream.unsent.is_empty() && stream.credit > 0;
        if stream.released && !more {
            self.part(key, out);
        } else if more && self.streams[&key].opening == Opening::Open {
            self.enqueue(key);
        }
    }

    /// The last frames of a stream whose handle is gone.
    fn part(&mut self, key: u64, out: &mut Vec<u8>) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        let waits_for_credit = stream.finishing && !stream.finished;
        if waits_for_credit {
            return;
        }
        if !(stream.finished && stream.peer_finished) {
            frame::encode_frame(out, stream.id, &Frame::Reset);
        }
        self.remove(key);
    }
}

impl Stream {
    fn send_data(&mut self, out: &mut Vec<u8>) {
        let length = self.unsent.len().min(self.credit as usize).min(MAX_PAYLOAD);
        if length > 0 {
            let (first, second) = self.unsent.as_slices();
            let from_first = first.len().min(length);
            let parts = (&first[..from_first], &second[..length - from_first]);
            frame::encode_data(out, self.id, parts);
            self.unsent.drain(..length);
            self.credit -= length as u32;
            wake(&mut self.write_waker);
        }
        if self.unsent.is_empty() && self.finishing && !self.finished {
            self.finished = true;
            frame::encode_frame(out, self.id, &Frame::Fin);
        }
    }
}
