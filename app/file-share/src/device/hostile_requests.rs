//! A guest that speaks FUSE as it likes: made-up names, inodes, handles and sizes, through real queues, with no sandbox behind it.
//! Nothing outside the share and nothing masked is ever in an answer, or changed.

use std::path::Path;

use virtio_queue::{Queue, QueueT, desc::split::Descriptor};
use virtiofsd::passthrough::{Config, PassthroughFs};
use vm_memory::ByteValued;

use super::*;
use crate::masks::Masks;
use crate::ownership::Ownership;

/// A guest that gives the root back has nothing more to ask: it begins again after so many requests.
const LIFE: u64 = 200;
/// Requests of one run; `LONGSHORE_FUZZ` says otherwise.
const REQUESTS: u64 = 60_000;
const SECRET: &[u8] = b"SECRET";

/// Opcodes of linux/fuse.h: all that the server knows but INIT and DESTROY, and some that it does not.
const OPCODES: [u32; 40] = [
    1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 14, 14, 15, 15, 16, 17, 18, 20, 21, 22,
    23, 24, 25, 27, 28, 29, 34, 35, 43, 44, 45, 46, 47,
];
const NAMES: [&[u8]; 21] = [
    b".ssh",
    b".ssh/key",
    b"..",
    b".",
    b"",
    b"../outside",
    b"../outside/secret",
    b"folder/../.ssh/key",
    b".config",
    b"gcloud",
    b"folder",
    b"file",
    b"link",
    b"dotfiles",
    b"keys",
    b"new",
    b"/etc/hostname",
    b"folder/file",
    b"security.capability",
    b"user.note",
    OURS,
];

/// Our own record of owners: no answer names it.
const OURS: &[u8] = b"user.longshore.stat";

/// xorshift: the same run every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[(self.next() % of.len() as u64) as usize]
    }
}

/// A guest's memory with one queue: descriptors, rings, request and answer each at a place of their own.
struct Guest {
    memory: GuestMemoryAtomic<Memory>,
    queue: Queue,
    asked: u16,
}

const SIZE: u16 = 16;
const TABLE: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const REQUEST: u64 = 0x10_000;
const ANSWER: u64 = 0x20_000;
const ANSWER_SIZE: u32 = 0x8000;

impl Guest {
    fn new() -> Self {
        let memory = Memory::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("memory");
        let mut queue = Queue::new(SIZE).expect("a queue");
        queue.set_desc_table_address(Some(TABLE as u32), Some(0));
        queue.set_avail_ring_address(Some(AVAILABLE as u32), Some(0));
        queue.set_used_ring_address(Some(USED as u32), Some(0));
        queue.set_ready(true);
        Self {
            memory: GuestMemoryAtomic::new(memory),
            queue,
            asked: 0,
        }
    }

    /// The answer's bytes, none when there is no answer; `bend` may spoil the two descriptors.
    fn ask<F>(
        &mut self,
        device: &Device<F>,
        request: &[u8],
        bend: impl FnOnce(&mut [Descriptor; 2]),
    ) -> Vec<u8>
    where
        F: FileSystem + SerializableFileSystem + Send + Sync,
    {
        let memory = self.memory.memory();
        // NEXT, then WRITE (virtio 1.2, 2.7.5).
        let mut chain = [
            Descriptor::new(REQUEST, request.len() as u32, 1, 1),
            Descriptor::new(ANSWER, ANSWER_SIZE, 2, 0),
        ];
        bend(&mut chain);
        memory
            .write_slice(request, GuestAddress(REQUEST))
            .expect("a request");
        for (index, descriptor) in chain.iter().enumerate() {
            let at = TABLE + 16 * index as u64;
            memory
                .write_slice(descriptor.as_slice(), GuestAddress(at))
                .expect("a descriptor");
        }
        memory
            .write_obj(
                0_u16,
                GuestAddress(AVAILABLE + 4 + 2 * u64::from(self.asked % SIZE)),
            )
            .expect("an entry");
        self.asked = self.asked.wrapping_add(1);
        memory
            .write_obj(self.asked, GuestAddress(AVAILABLE + 2))
            .expect("an index");
        let chains: Vec<Chain> = self.queue.iter(memory.clone()).expect("a queue").collect();
        let mut answer = Vec::new();
        for chain in chains {
            let length = device.answer(&memory, chain).unwrap_or(0);
            answer = vec![0; length.min(ANSWER_SIZE as usize)];
            memory
                .read_slice(&mut answer, GuestAddress(ANSWER))
                .expect("an answer");
        }
        answer
    }
}

/// `fuse_in_header` of root's, and what follows it.
fn request(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = (40 + body.len() as u32).to_le_bytes().to_vec();
    bytes.extend(opcode.to_le_bytes());
    bytes.extend(7_u64.to_le_bytes());
    bytes.extend(node.to_le_bytes());
    bytes.extend([0; 16]);
    bytes.extend(body);
    bytes
}

fn init<F: FileSystem + SerializableFileSystem + Send + Sync>(
    guest: &mut Guest,
    device: &Device<F>,
) {
    let mut body = Vec::new();
    for word in [7, 38, 1 << 17, u32::MAX] {
        body.extend(u32::to_le_bytes(word));
    }
    body.extend([0; 48]);
    let answer = guest.ask(device, &request(FUSE_INIT, 0, &body), |_| {});
    assert!(answer.len() > 16, "no answer to INIT: {answer:?}");
}

/// What the guest has learned: inodes and handles that exist.
#[derive(Default)]
struct Known {
    nodes: Vec<u64>,
    handles: Vec<u64>,
}

impl Known {
    fn learn(&mut self, opcode: u32, answer: &[u8]) {
        let word = |at: usize| {
            let bytes = answer.get(at..at + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
        };
        if answer.get(4..8) != Some(&[0; 4]) {
            return;
        }
        match opcode {
            // `fuse_entry_out`; CREATE's is followed by `fuse_open_out`.
            1 | 6 | 8 | 9 | 13 => self.nodes.extend(word(16)),
            35 => {
                self.nodes.extend(word(16));
                self.handles.extend(word(16 + 128));
            }
            14 | 27 => self.handles.extend(word(16)),
            _ => {}
        }
        // The eldest are given up: they stay valid, and the newest matter.
        for list in [&mut self.nodes, &mut self.handles] {
            if list.len() > 64 {
                list.drain(..32);
            }
        }
    }

    fn node(&self, random: &mut Random) -> u64 {
        match random.next() % 8 {
            0..=2 => 1,
            7 => random.next() % 200,
            _ if self.nodes.is_empty() => 1,
            _ => random.one(&self.nodes),
        }
    }

    /// A body that fits the opcode more or less.
    fn body(&self, opcode: u32, random: &mut Random) -> Vec<u8> {
        let mut body = Vec::new();
        let handle = match self.handles.is_empty() || random.next().is_multiple_of(8) {
            true => random.next() % 100,
            false => random.one(&self.handles),
        };
        let fixed = match opcode {
            9 | 12 | 13 => 8,
            8 | 35 | 45 => 16,
            15 | 16 | 28 | 44 => 40,
            3 => 16,
            4 => 88,
            14 | 27 | 21 => 8,
            47 => 56,
            1 | 6 | 10 | 11 | 22 | 24 => 0,
            _ => (random.next() % 48) as usize,
        };
        body.extend(handle.to_le_bytes());
        while body.len() < fixed {
            let small = [0, 0, 0, 1, 4096, random.next() % 70_000, self.node(random)];
            let word = if random.next().is_multiple_of(30) {
                random.next()
            } else {
                random.one(&small)
            };
            body.extend(word.to_le_bytes());
        }
        body.truncate(fixed);
        if matches!(opcode, 12 | 13 | 45) {
            body[..8].copy_from_slice(&self.node(random).to_le_bytes());
        }
        if matches!(opcode, 14 | 27) {
            body[..8].fill(0);
        }
        let names = match opcode {
            1 | 8..=11 | 13 | 22 | 24 | 35 => 1,
            6 | 12 | 45 => 2,
            _ => 0,
        };
        for _ in 0..names {
            match random.next() % 40 {
                0 => body.extend(vec![b'x'; 4200]),
                _ => body.extend(random.one(&NAMES)),
            }
            body.push(0);
        }
        body
    }
}

fn write(folder: &Path, path: &str, text: &[u8]) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    std::fs::write(path, text).expect("a file");
}

#[test]
fn a_hostile_guest_sees_and_changes_nothing_outside() {
    let around = std::env::temp_dir().join(format!("hostile-{}", std::process::id()));
    let share = around.join("share");
    let masked = [".ssh/key", ".config/gcloud/token", "dotfiles/keys/key"];
    for path in masked {
        write(&share, path, SECRET);
    }
    write(&around, "outside/secret", SECRET);
    write(&share, "folder/file", b"open");
    write(&share, "file", b"open");
    std::os::unix::fs::symlink("../outside/secret", share.join("link")).expect("a link");
    let paths = [".ssh", ".config/gcloud", "dotfiles/keys"].map(|path| share.join(path));
    let config = Config {
        root_dir: share.display().to_string(),
        xattr: true,
        ..Config::default()
    };
    let files = PassthroughFs::new(config).expect("the share");
    let device = Device::new(Ownership::new(files, Masks::new(&paths, &share)));
    let mut guest = Guest::new();
    let told = std::env::var("LONGSHORE_FUZZ").ok();
    let requests = told
        .and_then(|number| number.parse().ok())
        .unwrap_or(REQUESTS);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut known, mut answered, mut opened) = (Known::default(), 0_u64, 0_u64);
    for number in 0..requests {
        if number % LIFE == 0 {
            device.forget();
            known = Known::default();
            init(&mut guest, &device);
        }
        let opcode = random.one(&OPCODES);
        let body = known.body(opcode, &mut random);
        let mut bytes = request(opcode, known.node(&mut random), &body);
        if random.next().is_multiple_of(20) {
            let at = random.next() as usize % bytes.len();
            bytes[at] = random.next() as u8;
        }
        let bent = random.next().is_multiple_of(50).then(|| random.next());
        let answer = guest.ask(&device, &bytes, |chain| {
            let Some(how) = bent else { return };
            if how % 2 == 0 {
                // No room for an answer's header, or just.
                chain[1] = Descriptor::new(ANSWER, (how >> 8) as u32 % 64, 2, 0);
                return;
            }
            let address = [u64::MAX - 8, 1 << 19, 0, how % (1 << 20)][(how >> 1) as usize % 4];
            let (flags, next) = ((how >> 16) as u16 & 3, (how >> 24) as u16 & 3);
            chain[(how >> 8 & 1) as usize] = Descriptor::new(address, how as u32, flags, next);
        });
        // An answer that was sent elsewhere in the guest's memory is not looked at.
        if bent.is_none() {
            assert!(
                !answer.windows(SECRET.len()).any(|part| part == SECRET),
                "{opcode}: {bytes:?}"
            );
            let names_ours = opcode == 23 && answer.windows(OURS.len()).any(|part| part == OURS);
            assert!(!names_ours, "{bytes:?}");
            answered += u64::from(answer.len() > 16);
            opened += u64::from(matches!(opcode, 14 | 27) && answer.get(4..8) == Some(&[0; 4]));
            known.learn(opcode, &answer);
        }
    }
    println!(
        "{requests} requests, {answered} with an answer of substance, {opened} files and folders opened"
    );
    assert!(
        answered > requests / 20 && opened > 100,
        "the requests are not understood"
    );
    for path in masked {
        assert_eq!(
            std::fs::read(share.join(path)).expect("masked"),
            SECRET,
            "{path}"
        );
    }
    let outside: Vec<_> = std::fs::read_dir(around.join("outside"))
        .expect("outside")
        .collect();
    assert_eq!(outside.len(), 1);
    assert_eq!(
        std::fs::read(around.join("outside/secret")).expect("outside"),
        SECRET
    );
    let beside: Vec<_> = std::fs::read_dir(&around).expect("around").collect();
    assert_eq!(beside.len(), 2, "{beside:?}");
    std::fs::remove_dir_all(around).expect("the end");
}
