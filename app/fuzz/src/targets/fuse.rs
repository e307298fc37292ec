//! A shared folder's device: a guest that puts any FUSE requests and any descriptors into the queues, on real files.
//!
//! Nothing outside the share and nothing masked is in an answer, or changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use longshore_file_share::unconfined;
use vhost_user_backend::VhostUserBackend;
use vhost_user_backend::bitmap::BitmapMmapRegion;
use vmm_sys_util::epoll::EventSet;

use crate::input::Input;
use crate::memory::Bound;
use crate::queue::{BUFFERS, Guest, Part, WRITE};

/// Some requests of 64 KiB, and the inodes and handles of one input.
const BOUND: usize = 4 << 20;
const REQUEST: u64 = BUFFERS;
const ANSWER: u64 = BUFFERS + 0x1_0000;
const ROOM: u32 = 0x1_0000;
/// The queue for requests.
const REQUESTS: usize = 1;
/// Longest file of the share: what the guest allocates must not fill this machine.
const LONGEST_FILE: u64 = 1 << 20;

const INIT: u32 = 26;
const SECRET: &[u8] = b"SECRET";
const MASKED: [&str; 2] = [".ssh/key", ".config/gcloud/token"];
pub const NAMES: [&[u8]; 16] = [
    b"file",
    b"folder",
    b"link",
    b"new",
    b".ssh",
    b".config",
    b"gcloud",
    b"key",
    b"..",
    b".",
    b"",
    b"../outside/secret",
    b"folder/../.ssh/key",
    b"user.longshore.stat",
    b"security.capability",
    b"loop",
];

/// What a request carries behind its header: bytes of its structure, and how many names (linux/fuse.h).
fn shape(opcode: u32) -> (usize, usize) {
    match opcode {
        1 | 10 | 11 | 24 => (0, 1),
        6 => (0, 2),
        2 | 14 | 23 | 27 | 34 | 36 | 50 => (8, 0),
        9 | 13 | 21 | 22 => (8, 1),
        12 => (8, 2),
        3 | 20 => (16, 0),
        8 | 35 | 51 => (16, 1),
        45 => (16, 2),
        18 | 25 | 29 | 42 | 46 => (24, 0),
        39 | 43 => (32, 0),
        15 | 16 | 28 | 44 => (40, 0),
        47 => (56, 0),
        4 => (88, 0),
        26 => (64, 0),
        _ => (0, 0),
    }
}

/// A share with something masked in it, and something outside.
struct Share {
    around: tempfile::TempDir,
}

impl Share {
    fn new() -> Self {
        // In memory where that is possible: an input is some hundred calls.
        let memory = Path::new("/dev/shm");
        let around = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let share = Self {
            around: around.expect("a folder"),
        };
        for masked in MASKED {
            write(&share.root().join(masked), SECRET);
        }
        write(&share.around.path().join("outside/secret"), SECRET);
        write(&share.root().join("folder/file"), b"open");
        write(&share.root().join("file"), b"open");
        for (name, to) in [("link", "../outside/secret"), ("loop", ".")] {
            std::os::unix::fs::symlink(to, share.root().join(name)).expect("a link");
        }
        share
    }

    fn root(&self) -> PathBuf {
        self.around.path().join("share")
    }

    fn check(&self) {
        for masked in MASKED {
            let path = self.root().join(masked);
            assert_eq!(fs::read(&path).expect("masked"), SECRET, "{masked}");
        }
        let outside = self.around.path().join("outside");
        assert_eq!(fs::read(outside.join("secret")).expect("outside"), SECRET);
        assert_eq!(fs::read_dir(outside).expect("outside").count(), 1);
        assert_eq!(fs::read_dir(&self.around).expect("around").count(), 2);
    }
}

fn write(path: &Path, text: &[u8]) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    fs::write(path, text).expect("a file");
}

/// Files stay small, and a request that wants a larger one is refused.
fn keep_files_small() {
    let limit = libc::rlimit {
        rlim_cur: LONGEST_FILE,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the limit is read from a structure of our own; ignoring a signal runs no code of ours.
    unsafe {
        libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// The first byte's bits: notifications by index, no INIT, a ring that is cut off. Then steps; the second byte of a request says how it is sent.
///
/// | step | what follows |
/// | --- | --- |
/// | 0 | where (2), length, bytes: into tables and rings, as they are |
/// | opcode | how, node, a choice for each 8 bytes of its structure, names, length, bytes: a request |
pub fn run(input: &[u8]) -> usize {
    static SMALL: Once = Once::new();
    SMALL.call_once(keep_files_small);
    let mut input = Input(input);
    let first = input.byte();
    let share = Share::new();
    let masked = MASKED.map(|path| share.root().join(path).parent().expect("a folder").into());
    let bound = Bound::new(BOUND);
    let device = unconfined(&share.root(), &masked).expect("the share");
    let mut guest = Guest::<BitmapMmapRegion>::new(first & 1 != 0, first & 4 != 0);
    device.set_event_idx(first & 1 != 0);
    device.update_memory(guest.memory.clone()).expect("memory");
    let (mut known, mut got) = (Known::default(), 0);
    if first & 2 == 0 {
        // Version 7.38, and every feature that there is.
        let words = [7, 38, 1 << 17, u32::MAX, u32::MAX];
        let mut body: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        body.resize(64, 0);
        let request = request(INIT, 0, 0, &body);
        ask(&mut guest, &device, &request, 0);
    }
    while let Some(opcode) = input.step() {
        if opcode == 0 {
            let at = u64::from(input.half()) % BUFFERS;
            let length = input.byte().into();
            guest.write(at, input.bytes(length));
            handle(&guest, &device);
            continue;
        }
        let opcode = u32::from(opcode);
        let how = input.byte();
        let node = known.node(&mut input);
        let (size, names) = shape(opcode);
        let mut body = Vec::new();
        while body.len() < size {
            body.extend(known.word(&mut input).to_le_bytes());
        }
        for _ in 0..names {
            body.extend(input.one(&NAMES));
            body.push(0);
        }
        let length = input.byte().into();
        body.extend(input.bytes(length));
        let request = request(opcode, node, how, &body);
        let answer = ask(&mut guest, &device, &request, how);
        let tells = |what: &[u8]| answer.windows(what.len()).any(|part| part == what);
        assert!(!tells(SECRET), "{opcode} tells a secret");
        assert!(opcode != 23 || !tells(b"user.longshore.stat"), "our record");
        got += usize::from(answer.get(4..8) == Some(&[0; 4]));
        known.learn(opcode, &answer);
        bound.check();
    }
    device.forget();
    drop(device);
    share.check();
    got
}

/// `fuse_in_header`, and what follows it.
fn request(opcode: u32, node: u64, how: u8, body: &[u8]) -> Vec<u8> {
    let length = match how & 0x10 {
        0 => 40 + body.len() as u32,
        _ => u32::from(how) << 8,
    };
    let user = if how & 1 == 0 { 0_u32 } else { 1000 };
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(opcode.to_le_bytes());
    bytes.extend(7_u64.to_le_bytes());
    bytes.extend(node.to_le_bytes());
    bytes.extend(user.to_le_bytes());
    bytes.extend(user.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    let extensions = u16::from(how & 0x20 != 0);
    bytes.extend(extensions.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(body);
    bytes
}

/// Sends a request in one part or many, and returns the answer.
fn ask(
    guest: &mut Guest<BitmapMmapRegion>,
    device: &impl VhostUserBackend<Vring = Vring>,
    request: &[u8],
    how: u8,
) -> Vec<u8> {
    guest.write(REQUEST, request);
    guest.write(ANSWER, &[0; 16]);
    let length = request.len() as u32;
    let room = match how & 0x40 {
        0 => ROOM,
        _ => u32::from(how) % 40,
    };
    let mut parts: Vec<Part> = match how >> 2 & 3 {
        0 => vec![(REQUEST, length, 0), (ANSWER, room, WRITE)],
        1 => vec![
            (REQUEST, 40, 0),
            (REQUEST + 40, length - 40, 0),
            (ANSWER, 16, WRITE),
            (ANSWER + 16, room, WRITE),
        ],
        2 => vec![
            (REQUEST, 3, 0),
            (REQUEST + 3, length - 3, 0),
            (ANSWER, room, WRITE),
        ],
        _ => vec![(ANSWER, room, WRITE), (REQUEST, length, 0)],
    };
    if how & 0x80 != 0 {
        // No room at all, as for what nobody answers.
        parts.retain(|(.., flags)| *flags == 0);
    }
    guest.offer(REQUESTS, &parts, how & 2 != 0);
    handle(guest, device);
    let head = guest.read(ANSWER, 4);
    let told = u32::from_le_bytes(head.try_into().expect("four bytes"));
    guest.read(ANSWER, told.min(ROOM) as usize)
}

type Vring = vhost_user_backend::VringMutex<crate::queue::Memory<BitmapMmapRegion>>;

fn handle(guest: &Guest<BitmapMmapRegion>, device: &impl VhostUserBackend<Vring = Vring>) {
    // An error ends the device's thread, which is the guest's own loss.
    let _ = device.handle_event(REQUESTS as u16, EventSet::IN, &guest.vrings, 0);
}

/// What the guest has learned: inodes and handles that exist.
#[derive(Default)]
struct Known {
    nodes: Vec<u64>,
    handles: Vec<u64>,
}

impl Known {
    /// 0 is the root, then those that are known; above them the byte itself.
    fn node(&self, input: &mut Input<'_>) -> u64 {
        match usize::from(input.byte()) {
            0 => 1,
            number => self.nodes.get(number - 1).map_or(number as u64, |n| *n),
        }
    }

    /// Eight bytes of a structure, by a choice.
    fn word(&self, input: &mut Input<'_>) -> u64 {
        match input.byte() {
            0 => 0,
            1 => self.node(input),
            2 => {
                let number = input.byte();
                let handle = self.handles.get(usize::from(number));
                handle.map_or(u64::from(number), |handle| *handle)
            }
            3 => 4096,
            4 => input.half().into(),
            5 => u64::from(input.half()) << 32,
            6 => input.long(),
            7 => u64::MAX,
            small => small.into(),
        }
    }

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
            35 | 51 => {
                self.nodes.extend(word(16));
                self.handles.extend(word(16 + 128));
            }
            14 | 27 => self.handles.extend(word(16)),
            _ => {}
        }
    }
}
