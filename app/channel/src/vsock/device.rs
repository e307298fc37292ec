//! The vhost-user device: moves packets between the guest's virtqueues and the connections.

use std::{
    io::{self, Read, Write},
    os::fd::AsRawFd,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use vhost::vhost_user::{Listener, message::VhostUserProtocolFeatures};
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon, VringMutex, VringT};
use virtio_bindings::{
    virtio_config::{VIRTIO_F_NOTIFY_ON_EMPTY, VIRTIO_F_VERSION_1},
    virtio_ring::VIRTIO_RING_F_EVENT_IDX,
};
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap};
use vmm_sys_util::{
    epoll::EventSet,
    event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier},
    eventfd::EventFd,
};

use super::{
    GUEST_CID,
    connections::Connections,
    packet::{HEADER, Header},
};

/// Receive, transmit; QEMU keeps the event queue for itself.
const QUEUES: usize = 2;
const RX: u16 = 0;
const TX: u16 = 1;
/// The event that says that a stream has something to send (queue numbers and the exit event come before it).
const WORK: u16 = QUEUES as u16 + 1;
const QUEUE_SIZE: usize = 256;
/// Longest payload of one packet from the guest; Linux sends 64 KiB at most.
const MAX_PAYLOAD: usize = 1 << 20;
/// `VHOST_USER_F_PROTOCOL_FEATURES`
const PROTOCOL_FEATURES: u64 = 1 << 30;
/// Chains that one event handles before the other queue has its turn.
const TURN: usize = 256;

/// A device that waits for, or serves, one QEMU.
pub struct Device {
    socket: PathBuf,
    connections: Arc<Connections>,
}

impl Device {
    pub fn start(socket: &Path, connections: Arc<Connections>) -> io::Result<Self> {
        let other = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
        let mut listener = Listener::new(socket, true).map_err(|error| other(&error))?;
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let work = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        let backend = Arc::new(Backend {
            work: Some(work.try_clone()?),
            ..Backend::new(connections.clone())
        });
        let mut daemon =
            VhostUserDaemon::new("vsock".into(), backend, memory).map_err(|error| other(&error))?;
        let handlers = daemon.get_epoll_handlers();
        for handler in &handlers {
            handler.register_listener(work.as_raw_fd(), EventSet::IN, WORK.into())?;
        }
        connections.on_work(Box::new(move || {
            // A full counter wakes as well.
            let _ = work.write(1);
        }));
        let ending = connections.clone();
        std::thread::Builder::new()
            .name("vsock-control".into())
            .spawn(move || {
                let started = daemon.start(&mut listener);
                // There is one QEMU for one device: nobody else finds its name.
                drop(listener);
                let served = started.and_then(|()| daemon.wait());
                tracing::debug!(?served, "the vsock device's connection to QEMU ended");
                ending.close();
                for handler in &handlers {
                    handler.send_exit_event();
                }
            })?;
        Ok(Self {
            socket: socket.into(),
            connections,
        })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.connections.close();
        // Wakes a thread that still waits for QEMU; it has gone on when nobody listens.
        let _ = UnixStream::connect(&self.socket);
        let _ = std::fs::remove_file(&self.socket);
    }
}

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;
type Guard = GuestMemoryLoadGuard<GuestMemoryMmap>;

pub struct Backend {
    connections: Arc<Connections>,
    memory: Mutex<Memory>,
    /// Where the connections tell of work; none for a caller that looks itself.
    work: Option<EventFd>,
    event_idx: Mutex<bool>,
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = VringMutex;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_F_NOTIFY_ON_EMPTY
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | PROTOCOL_FEATURES
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::MQ
    }

    fn set_event_idx(&self, enabled: bool) {
        *lock(&self.event_idx) = enabled;
    }

    /// `struct virtio_vsock_config`: the guest's context id.
    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let config = GUEST_CID.to_le_bytes();
        let start = (offset as usize).min(config.len());
        let end = start.saturating_add(size as usize).min(config.len());
        config[start..end].to_vec()
    }

    fn update_memory(&self, memory: Memory) -> io::Result<()> {
        *lock(&self.memory) = memory;
        Ok(())
    }

    fn exit_event(&self, _: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }

    fn handle_event(
        &self,
        event: u16,
        _: EventSet,
        vrings: &[VringMutex],
        _: usize,
    ) -> io::Result<()> {
        if event == WORK {
            // Empty when another event took the work along.
            let _ = self.work.as_ref().map(EventFd::read);
        }
        // From here on, new work is told by a new event.
        self.connections.has_work();
        let [receive, transmit] = vrings else {
            return Ok(());
        };
        let memory = lock(&self.memory).memory();
        if event == TX {
            self.transmit(transmit, &memory);
        }
        // Every packet of the guest may free credit or ask for an answer.
        self.receive(receive, &memory);
        if event == RX || event == WORK {
            // Packets that waited until answers had left.
            self.transmit(transmit, &memory);
            self.receive(receive, &memory);
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Backend {
    pub fn new(connections: Arc<Connections>) -> Self {
        Self {
            connections,
            memory: Mutex::new(GuestMemoryAtomic::new(GuestMemoryMmap::new())),
            work: None,
            event_idx: Mutex::new(false),
        }
    }

    /// Guest → host.
    fn transmit(&self, vring: &VringMutex, memory: &Guard) {
        let mut payload = Vec::new();
        self.drain(vring, memory, |chain| {
            if self.connections.is_congested() {
                return None;
            }
            let chain = chain()?;
            let head = chain.head_index();
            match chain.reader(memory) {
                Ok(mut reader) => self.take_packet(&mut reader, &mut payload),
                Err(error) => tracing::debug!(%error, "a chain of the guest is not readable"),
            }
            Some((head, 0))
        });
    }

    fn take_packet(&self, reader: &mut virtio_queue::Reader<'_>, payload: &mut Vec<u8>) {
        // Read once: the guest may change it at any time.
        let mut bytes = [0; HEADER];
        if reader.read_exact(&mut bytes).is_err() {
            return;
        }
        let header = Header::decode(&bytes);
        let length = header.len as usize;
        if length > MAX_PAYLOAD || length > reader.available_bytes() {
            tracing::debug!(length, "a packet of the guest is longer than its buffers");
            return;
        }
        payload.resize(length, 0);
        if reader.read_exact(payload).is_ok() {
            self.connections.receive(&header, payload);
        }
    }

    /// Host → guest.
    fn receive(&self, vring: &VringMutex, memory: &Guard) {
        self.drain(vring, memory, |chain| {
            if !self.connections.has_work() {
                return None;
            }
            let chain = chain()?;
            let head = chain.head_index();
            match chain.writer(memory) {
                Ok(mut writer) => Some((head, self.give_packet(&mut writer))),
                Err(error) => {
                    tracing::debug!(%error, "a chain of the guest is not writable");
                    Some((head, 0))
                }
            }
        });
    }

    /// Returns the bytes written.
    fn give_packet(&self, writer: &mut virtio_queue::Writer<'_>) -> u32 {
        let Some(room) = writer.available_bytes().checked_sub(HEADER) else {
            return 0;
        };
        let mut written = 0;
        self.connections
            .send(room.min(MAX_PAYLOAD), |header, (first, second)| {
                let whole = writer
                    .write_all(&header.encode())
                    .and_then(|()| writer.write_all(first))
                    .and_then(|()| writer.write_all(second));
                if whole.is_ok() {
                    written = (HEADER + first.len() + second.len()) as u32;
                }
            });
        written
    }

    /// Handles chains until `step` wants no more or there are none; `step` takes a chain through its argument, and returns the
    /// chain's head and the bytes written to it.
    fn drain(
        &self,
        vring: &VringMutex,
        memory: &Guard,
        mut step: impl FnMut(
            &mut dyn FnMut() -> Option<virtio_queue::DescriptorChain<Guard>>,
        ) -> Option<(u16, u32)>,
    ) {
        let mut vring = vring.get_mut();
        if !vring.is_enabled() || !vring.get_queue().ready() {
            return;
        }
        let (mut used, mut looked_again) = (false, false);
        for turn in 0.. {
            if turn % TURN == 0 && std::mem::take(&mut used) {
                signal(&mut vring);
            }
            let mut empty = false;
            let done = step(&mut || {
                let chain = next_chain(&mut vring, memory);
                empty = chain.is_none();
                chain
            });
            match done {
                Some((head, length)) => {
                    if let Err(error) = vring.add_used(head, length) {
                        tracing::debug!(%error, "a used chain could not be given back");
                        break;
                    }
                    (used, looked_again) = (true, false);
                }
                // With notifications on again, what came meanwhile is looked for once more. A ring that then has nothing after all
                // cannot be read, and never will.
                None if empty && !looked_again && vring.enable_notification().unwrap_or(false) => {
                    looked_again = true;
                }
                None => break,
            }
        }
        if used {
            signal(&mut vring);
        }
    }
}

type State = vhost_user_backend::VringState;

fn next_chain(vring: &mut State, memory: &Guard) -> Option<virtio_queue::DescriptorChain<Guard>> {
    // An index that jumps farther than the queue is long is an error here, and the queue stays silent.
    vring.get_queue_mut().iter(memory.clone()).ok()?.next()
}

fn signal(vring: &mut State) {
    if vring.needs_notification().unwrap_or(true)
        && let Err(error) = vring.signal_used_queue()
    {
        tracing::debug!(%error, "the guest could not be interrupted");
    }
}
