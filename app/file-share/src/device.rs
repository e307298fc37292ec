//! The vhost-user device: takes FUSE requests from the guest's queues, and hands them to virtiofsd's server.
//!
//! virtiofsd's own device would do, were it not for one answer. Its server accepts FUSE_ALLOW_IDMAP from every kernel, and a kernel
//! that has been told so sends the caller's user only with requests that create something (fuse_get_req in fs/fuse/dev.c, Linux 6.12);
//! [`crate::ownership`] needs it with all of them. So this device takes the offer out of the answer to FUSE_INIT.

#[cfg(test)]
mod hostile_requests;

use std::io;
use std::sync::{Mutex, PoisonError, RwLock};

use vhost::vhost_user::Backend;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::bitmap::BitmapMmapRegion;
use vhost_user_backend::{VhostUserBackend, VringMutex, VringT};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use virtio_queue::{DescriptorChain, QueueOwnedT};
use virtiofsd::descriptor_utils::{Reader, Writer};
use virtiofsd::filesystem::{FileSystem, FsOptions, SerializableFileSystem};
use virtiofsd::server::Server;
use vm_memory::{
    Address, Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard,
    GuestMemoryMmap,
};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

type Memory = GuestMemoryMmap<BitmapMmapRegion>;
type Chain = DescriptorChain<GuestMemoryLoadGuard<Memory>>;
type Queue = VringMutex<GuestMemoryAtomic<Memory>>;

/// The high-priority queue (FORGET, INTERRUPT) and one for requests (virtio 1.2, 5.11.2).
const QUEUES: usize = 2;
const QUEUE_SIZE: usize = 1024;

/// Opcode of FUSE_INIT (linux/fuse.h).
const FUSE_INIT: u32 = 26;
/// Requests that nobody answers: FORGET, INTERRUPT, BATCH_FORGET.
const NO_ANSWER: [u32; 3] = [2, 36, 42];
/// Bytes of `fuse_out_header`.
const ANSWER_HEAD: usize = 16;
/// `fuse_in_header.opcode`
const OPCODE_AT: u64 = 4;
/// `fuse_init_out.flags2`, behind `fuse_out_header` of 16 bytes.
const FLAGS2_AT: u64 = 16 + 32;

/// The device of one share.
pub struct Device<F: FileSystem + Sync> {
    server: Server<F>,
    memory: RwLock<Option<GuestMemoryAtomic<Memory>>>,
    /// The guest wants to be told by index (VIRTIO_RING_F_EVENT_IDX).
    event_idx: std::sync::atomic::AtomicBool,
    qemu: Mutex<Option<Backend>>,
}

impl<F: FileSystem + SerializableFileSystem + Send + Sync> Device<F> {
    pub fn new(files: F) -> Self {
        Self {
            server: Server::new(files),
            memory: RwLock::default(),
            event_idx: Default::default(),
            qemu: Mutex::default(),
        }
    }

    /// Forgets the guest, before another one comes.
    pub fn forget(&self) {
        self.server.destroy();
        *self.qemu.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn event_idx(&self) -> bool {
        self.event_idx.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Answers everything that waits; true if there was something.
    fn answer_waiting(&self, queue: &Queue) -> io::Result<bool> {
        let memory = self
            .memory
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let memory = memory.ok_or_else(|| io::Error::other("no guest memory yet"))?;
        let memory = memory.memory();
        let mut queue = queue.get_mut();
        let waiting: Vec<Chain> = queue
            .get_queue_mut()
            .iter(memory.clone())
            .map_err(io::Error::other)?
            .collect();
        let any = !waiting.is_empty();
        for chain in waiting {
            let head = chain.head_index();
            let length = self.answer(&memory, chain).unwrap_or_else(|error| {
                tracing::warn!("a request of the guest has no answer: {error}");
                0
            });
            queue
                .add_used(head, length as u32)
                .map_err(io::Error::other)?;
            if !self.event_idx() || queue.needs_notification().unwrap_or(true) {
                queue.signal_used_queue()?;
            }
        }
        Ok(any)
    }

    fn answer(&self, memory: &GuestMemoryLoadGuard<Memory>, chain: Chain) -> io::Result<usize> {
        let failed = |e: &dyn std::fmt::Display| io::Error::other(e.to_string());
        let reader = Reader::new(memory, chain.clone()).map_err(|e| failed(&e))?;
        let writer = Writer::new(memory, chain.clone()).map_err(|e| failed(&e))?;
        // virtiofsd panics when it is to read and has no room for the answer's head. What needs no answer has no room at all.
        if (1..ANSWER_HEAD).contains(&writer.available_bytes())
            || (writer.available_bytes() == 0
                && !opcode(memory, chain.clone()).is_some_and(|code| NO_ANSWER.contains(&code)))
        {
            return Err(io::Error::other("there is no room for an answer"));
        }
        let mut qemu = self
            .qemu
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let length = self
            .server
            .handle_message(reader, writer, qemu.as_mut())
            .map_err(|e| failed(&e))?;
        if opcode(memory, chain.clone()) == Some(FUSE_INIT) {
            withdraw_offers(memory, chain);
        }
        Ok(length)
    }
}

/// The request's opcode. A guest that hides it in many small descriptors only deceives itself.
fn opcode(memory: &Memory, chain: Chain) -> Option<u32> {
    let first = chain.readable().next().filter(|d| d.len() >= 8)?;
    memory.read_obj(first.addr().checked_add(OPCODE_AT)?).ok()
}

/// Takes out of the answer what this server must not be given: requests without the caller's user, and the caller's groups.
fn withdraw_offers(memory: &Memory, chain: Chain) {
    let Some(address) = written_at(chain, FLAGS2_AT) else {
        return;
    };
    let refused = (FsOptions::ALLOW_IDMAP | FsOptions::CREATE_SUPP_GROUP).bits() >> 32;
    if let Ok(flags) = memory.read_obj::<u32>(address) {
        let _ = memory.write_obj(flags & !(refused as u32), address);
    }
}

/// Where in the guest's memory a field of the answer stands.
fn written_at(chain: Chain, offset: u64) -> Option<GuestAddress> {
    let mut before = 0;
    for part in chain.writable() {
        let length = u64::from(part.len());
        if offset >= before && offset + 4 <= before + length {
            return part.addr().checked_add(offset - before);
        }
        before += length;
    }
    None
}

impl<F> VhostUserBackend for Device<F>
where
    F: FileSystem + SerializableFileSystem + Send + Sync + 'static,
{
    type Bitmap = BitmapMmapRegion;
    type Vring = Queue;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        (1 << VIRTIO_F_VERSION_1)
            | (1 << VIRTIO_RING_F_INDIRECT_DESC)
            | (1 << VIRTIO_RING_F_EVENT_IDX)
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        // No CONFIG: QEMU takes the tag from its own command line, and 7.1 to 8.0 crash when it is offered here.
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::BACKEND_SEND_FD
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::RESET_DEVICE
    }

    fn reset_device(&self) {
        self.server.destroy();
    }

    fn set_event_idx(&self, enabled: bool) {
        self.event_idx
            .store(enabled, std::sync::atomic::Ordering::Relaxed);
    }

    fn update_memory(&self, memory: GuestMemoryAtomic<Memory>) -> io::Result<()> {
        *self.memory.write().unwrap_or_else(PoisonError::into_inner) = Some(memory);
        Ok(())
    }

    fn handle_event(
        &self,
        event: u16,
        set: EventSet,
        queues: &[Queue],
        _thread: usize,
    ) -> io::Result<()> {
        if set != EventSet::IN {
            return Err(io::Error::other("an event that is not input"));
        }
        let queue = queues
            .get(usize::from(event))
            .ok_or_else(|| io::Error::other("an event of no queue"))?;
        if !self.event_idx() {
            return self.answer_waiting(queue).map(|_| ());
        }
        let mut more = false;
        loop {
            queue.disable_notification().map_err(io::Error::other)?;
            let answered = self.answer_waiting(queue)?;
            // There was said to be more: a ring that cannot be read would say so for ever.
            if more && !answered {
                tracing::warn!("a queue of the guest cannot be read");
                return Ok(());
            }
            // What came between the last look and this switch would not be told.
            more = queue.enable_notification().map_err(io::Error::other)?;
            if !more {
                return Ok(());
            }
        }
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }

    fn set_backend_req_fd(&self, qemu: Backend) {
        *self.qemu.lock().unwrap_or_else(PoisonError::into_inner) = Some(qemu);
    }
}
