//! Classic BPF with labels: conditional jumps reach 255 instructions, so far targets go through
//! an unconditional one.

use libc::sock_filter;

pub const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub const RETURN: u16 = 0x06; // BPF_RET | BPF_K
pub const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub const GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub const AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K

/// A place in the program, known or still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(usize);

enum Item {
    Plain(sock_filter),
    /// Goes to a label when the test holds, else on.
    If {
        code: u16,
        value: u32,
        target: Label,
    },
    Goto(Label),
}

#[derive(Default)]
pub struct Assembler {
    items: Vec<Item>,
    /// The item that each label stands before.
    places: Vec<usize>,
}

impl Assembler {
    pub fn label(&mut self) -> Label {
        self.places.push(usize::MAX);
        Label(self.places.len() - 1)
    }

    pub fn place(&mut self, label: Label) {
        self.places[label.0] = self.items.len();
    }

    pub fn load(&mut self, offset: u32) {
        self.plain(LOAD, offset);
    }

    pub fn plain(&mut self, code: u16, k: u32) {
        self.items.push(Item::Plain(sock_filter {
            code,
            jt: 0,
            jf: 0,
            k,
        }));
    }

    pub fn jump_if(&mut self, code: u16, value: u32, target: Label) {
        self.items.push(Item::If {
            code,
            value,
            target,
        });
    }

    pub fn goto(&mut self, target: Label) {
        self.items.push(Item::Goto(target));
    }

    /// The finished program. A test whose target is out of reach becomes two instructions, which
    /// moves everything after it: sizes are settled first, growing only.
    pub fn finish(self) -> Vec<sock_filter> {
        let mut far = vec![false; self.items.len()];
        let addresses = loop {
            let addresses = self.addresses(&far);
            let mut changed = false;
            for (index, item) in self.items.iter().enumerate() {
                if let Item::If { target, .. } = item
                    && !far[index]
                    && addresses[self.places[target.0]] - addresses[index] - 1 > 255
                {
                    far[index] = true;
                    changed = true;
                }
            }
            if !changed {
                break addresses;
            }
        };
        let mut program = Vec::with_capacity(self.items.len());
        for (index, item) in self.items.iter().enumerate() {
            let distance =
                |target: &Label, from: usize| (addresses[self.places[target.0]] - from - 1) as u32;
            match item {
                Item::Plain(instruction) => program.push(*instruction),
                Item::Goto(target) => {
                    let k = distance(target, addresses[index]);
                    program.push(sock_filter {
                        code: JUMP,
                        jt: 0,
                        jf: 0,
                        k,
                    });
                }
                Item::If {
                    code,
                    value,
                    target,
                } if far[index] => {
                    program.push(sock_filter {
                        code: *code,
                        jt: 0,
                        jf: 1,
                        k: *value,
                    });
                    let k = distance(target, addresses[index] + 1);
                    program.push(sock_filter {
                        code: JUMP,
                        jt: 0,
                        jf: 0,
                        k,
                    });
                }
                Item::If {
                    code,
                    value,
                    target,
                } => {
                    let jt = distance(target, addresses[index]) as u8;
                    program.push(sock_filter {
                        code: *code,
                        jt,
                        jf: 0,
                        k: *value,
                    });
                }
            }
        }
        program
    }

    fn addresses(&self, far: &[bool]) -> Vec<usize> {
        let mut next = 0;
        let mut addresses = Vec::with_capacity(far.len() + 1);
        for is_far in far {
            addresses.push(next);
            next += if *is_far { 2 } else { 1 };
        }
        addresses.push(next);
        addresses
    }
}
