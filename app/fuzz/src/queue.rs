//! A guest's memory with two virtqueues, and whatever a guest may put into them (virtio 1.2, 2.7).

use vhost_user_backend::{VringMutex, VringT};
use vm_memory::bitmap::NewBitmap;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

/// Bytes of the guest's memory.
const MEMORY: usize = 0x4_0000;
/// Descriptors in a queue.
pub const SIZE: u16 = 16;
/// Where buffers lie; the queues are below.
pub const BUFFERS: u64 = 0x1_0000;
/// A queue's descriptor table, rings, and a table for indirect descriptors.
const QUEUE: u64 = 0x4000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const INDIRECT: u64 = 0x3000;

const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
const INDIRECT_TABLE: u16 = 4;

pub type Memory<B> = GuestMemoryAtomic<GuestMemoryMmap<B>>;

pub struct Guest<B: NewBitmap + 'static> {
    pub memory: Memory<B>,
    pub vrings: Vec<VringMutex<Memory<B>>>,
    available: [u64; 2],
    /// Index of the next free descriptor, and the available ring's index.
    next: [(u16, u16); 2],
}

/// A buffer's address, length and flags.
pub type Part = (u64, u32, u16);

impl<B: NewBitmap + Clone + Send + Sync + 'static> Guest<B> {
    /// `cut` ends the memory in the second queue's available ring.
    pub fn new(event_idx: bool, cut: bool) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).expect("memory");
        let memory = GuestMemoryAtomic::new(memory);
        let mut available = [AVAILABLE, QUEUE + AVAILABLE];
        if cut {
            // Flags, index, two entries.
            available[1] = MEMORY as u64 - 8;
        }
        let vring = |queue: u64| {
            let vring = VringMutex::new(memory.clone(), 256).expect("a queue");
            let at = queue * QUEUE;
            vring.set_queue_size(SIZE);
            vring
                .set_queue_info(at, available[queue as usize], at + USED)
                .expect("a queue's place");
            vring.set_queue_event_idx(event_idx);
            vring.set_queue_ready(true);
            vring.set_enabled(true);
            vring
        };
        Self {
            vrings: vec![vring(0), vring(1)],
            memory,
            available,
            next: Default::default(),
        }
    }

    pub fn write(&self, at: u64, bytes: &[u8]) {
        // What lies beyond the guest's memory is lost.
        let _ = self.memory.memory().write(bytes, GuestAddress(at));
    }

    pub fn read(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let _ = self.memory.memory().read(&mut bytes, GuestAddress(at));
        bytes
    }

    /// Makes a chain of the parts available, in a table of its own if told so.
    pub fn offer(&mut self, queue: usize, parts: &[Part], indirect: bool) {
        let at = queue as u64 * QUEUE;
        let (first, index) = self.next[queue];
        let mut slots = parts.len() as u16;
        let (mut table, mut first_in_table, mut size) = (at, first, SIZE);
        if indirect {
            (table, first_in_table, size, slots) = (at + INDIRECT, 0, u16::MAX, 1);
            let bytes = parts.len() as u32 * 16;
            self.describe(at, first, (table, bytes, INDIRECT_TABLE), 0);
        }
        for (number, (address, length, flags)) in parts.iter().enumerate() {
            let slot = (first_in_table + number as u16) % size;
            let more = if number + 1 < parts.len() { NEXT } else { 0 };
            let next = (slot + 1) % size;
            self.describe(table, slot, (*address, *length, flags | more), next);
        }
        let ring = self.available[queue];
        self.write(ring + 4 + 2 * u64::from(index % SIZE), &first.to_le_bytes());
        self.write(ring + 2, &index.wrapping_add(1).to_le_bytes());
        self.next[queue] = ((first + slots) % SIZE, index.wrapping_add(1));
    }

    fn describe(&self, table: u64, slot: u16, (address, length, flags): Part, next: u16) {
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.write(table + 16 * u64::from(slot), &bytes);
    }
}
