//! Device access as a `BPF_PROG_TYPE_CGROUP_DEVICE` program, written instruction by instruction.
//!
//! The kernel asks with (type, access bits, major, minor). The last rule that names a device
//! decides each access bit, so the rules are tested from the last to the first: a denial that
//! touches a bit still asked for ends the walk, an allowance takes its bits off the request, and a
//! request with no bits left is granted. What no rule names is denied.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::error::{Error, Result};
use crate::spec::DeviceRule;
use crate::sys;

const BLOCK: u32 = 1;
const CHAR: u32 = 2;
const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const ALL_ACCESS: u32 = MKNOD | READ | WRITE;

/// A rule in the kernel's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    allow: bool,
    /// None for both kinds.
    kind: Option<u32>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

impl Rule {
    pub const fn allow_char(major: u32, minor: Option<u32>, access: u32) -> Self {
        Rule {
            allow: true,
            kind: Some(CHAR),
            major: Some(major),
            minor,
            access,
        }
    }
}

/// What every container may use (runtime-spec, config-linux.md, "Default Devices"), as in runc:
/// making any node, null zero full random urandom tty console ptmx, and pseudo-terminals.
pub fn default_rules() -> Vec<Rule> {
    let any_node = |kind| Rule {
        allow: true,
        kind: Some(kind),
        major: None,
        minor: None,
        access: MKNOD,
    };
    let mut rules = vec![any_node(CHAR), any_node(BLOCK)];
    for (major, minor) in [
        (1, 3),
        (1, 5),
        (1, 7),
        (1, 8),
        (1, 9),
        (5, 0),
        (5, 1),
        (5, 2),
    ] {
        rules.push(Rule::allow_char(major, Some(minor), ALL_ACCESS));
    }
    rules.push(Rule::allow_char(136, None, ALL_ACCESS));
    rules
}

/// The configuration's rules, then the defaults.
pub fn rules(config: &[DeviceRule]) -> Result<Vec<Rule>> {
    let mut rules = config.iter().map(rule).collect::<Result<Vec<_>>>()?;
    rules.extend(default_rules());
    Ok(rules)
}

fn rule(config: &DeviceRule) -> Result<Rule> {
    let kind = match config.kind.as_deref() {
        None | Some("" | "a") => None,
        Some("b") => Some(BLOCK),
        Some("c" | "u") => Some(CHAR),
        Some(other) => return Err(Error::Config(format!("invalid device type {other:?}"))),
    };
    let mut access = 0;
    for letter in config.access.as_deref().unwrap_or("rwm").chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            other => return Err(Error::Config(format!("invalid device access {other:?}"))),
        };
    }
    if access == 0 {
        access = ALL_ACCESS;
    }
    let number = |value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value)
            .map(Some)
            .map_err(|_| Error::Config(format!("invalid device number {value}"))),
    };
    Ok(Rule {
        allow: config.allow,
        kind,
        major: number(config.major)?,
        minor: number(config.minor)?,
        access,
    })
}

/// One eBPF instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    code: u8,
    /// Destination in the low four bits, source in the high ones.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const AND: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K (32 bit)
const SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const MOVE: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K
const MOVE_REGISTER: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const JUMP_NOT_EQUAL: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const JUMP_NO_BITS: u8 = 0x46; // BPF_JMP32 | BPF_JSET | BPF_K
const EXIT: u8 = 0x95;

const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

fn op(code: u8, register: u8, offset: i16, immediate: u32) -> Instruction {
    Instruction {
        code,
        registers: register,
        offset,
        immediate: immediate as i32,
    }
}

/// Jumps past `count` instructions.
fn skip(code: u8, register: u8, value: u32, count: usize) -> Instruction {
    op(code, register, count as i16, value)
}

/// The program for a list of rules; None when everything is allowed and no program is needed.
pub fn program(rules: &[Rule]) -> Option<Vec<Instruction>> {
    let anything = |rule: &Rule| {
        rule.kind.is_none()
            && rule.major.is_none()
            && rule.minor.is_none()
            && rule.access == ALL_ACCESS
    };
    // Nothing before the last rule that matches everything can matter, and that one is the answer
    // for what no later rule names.
    let last = rules.iter().rposition(anything);
    let default = last.is_some_and(|index| rules[index].allow);
    let rules = &rules[last.map_or(0, |index| index + 1)..];
    if default && rules.iter().all(|rule| rule.allow) {
        return None;
    }
    let mut code = vec![
        op(LOAD_WORD, 0x10 | KIND, 0, 0),
        op(MOVE_REGISTER, KIND << 4 | ACCESS, 0, 0),
        op(AND, KIND, 0, 0xffff),
        op(SHIFT_RIGHT, ACCESS, 0, 16),
        op(LOAD_WORD, 0x10 | MAJOR, 4, 0),
        op(LOAD_WORD, 0x10 | MINOR, 8, 0),
    ];
    for rule in rules.iter().rev() {
        append_rule(rule, &mut code);
    }
    code.extend([op(MOVE, 0, 0, u32::from(default)), op(EXIT, 0, 0, 0)]);
    Some(code)
}

fn append_rule(rule: &Rule, code: &mut Vec<Instruction>) {
    let verdict = [op(MOVE, 0, 0, u32::from(rule.allow)), op(EXIT, 0, 0, 0)];
    let mut body = Vec::new();
    if rule.allow && rule.access != ALL_ACCESS {
        body.push(op(AND, ACCESS, 0, !rule.access));
        body.push(skip(JUMP_NOT_EQUAL, ACCESS, 0, verdict.len()));
    } else if !rule.allow && rule.access != ALL_ACCESS {
        // On a shared bit go to the verdict, else past it.
        body.push(skip(JUMP_NO_BITS, ACCESS, rule.access, 1));
        body.push(op(0x05, 0, verdict.len() as i16, 0)); // BPF_JMP | BPF_JA
    }
    body.extend(verdict);
    let tests: Vec<_> = [(KIND, rule.kind), (MAJOR, rule.major), (MINOR, rule.minor)]
        .into_iter()
        .filter_map(|(register, value)| Some((register, value?)))
        .collect();
    for (index, (register, value)) in tests.iter().enumerate() {
        code.push(skip(
            JUMP_NOT_EQUAL,
            *register,
            *value,
            tests.len() - index - 1 + body.len(),
        ));
    }
    code.extend(body);
}

/// Loads the program and attaches it to the cgroup.
pub fn attach(cgroup: BorrowedFd<'_>, program: &[Instruction]) -> Result<()> {
    const PROG_LOAD: i32 = 5;
    const PROG_ATTACH: i32 = 8;
    const TYPE_CGROUP_DEVICE: u32 = 15;
    const ATTACH_CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    let failed = |step: &str| {
        let step = step.to_owned();
        move |errno| Error::Cgroup { step, errno }
    };
    let mut attr = Vec::with_capacity(64);
    attr.extend(TYPE_CGROUP_DEVICE.to_ne_bytes());
    attr.extend((program.len() as u32).to_ne_bytes());
    attr.extend((program.as_ptr() as u64).to_ne_bytes());
    attr.extend((c"Apache-2.0".as_ptr() as u64).to_ne_bytes());
    let fd = sys::bpf(PROG_LOAD, &attr).map_err(failed("bpf: load device program"))?;
    // SAFETY: bpf(BPF_PROG_LOAD) has just returned this descriptor to us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let mut attr = Vec::with_capacity(16);
    attr.extend((cgroup.as_raw_fd() as u32).to_ne_bytes());
    attr.extend((fd.as_raw_fd() as u32).to_ne_bytes());
    attr.extend(ATTACH_CGROUP_DEVICE.to_ne_bytes());
    attr.extend(ALLOW_MULTI.to_ne_bytes());
    sys::bpf(PROG_ATTACH, &attr).map_err(failed("bpf: attach device program"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's verifier refuses programs with instructions that nothing leads to.
    fn assert_reachable(program: &[Instruction]) {
        let mut reached = vec![false; program.len()];
        reached[0] = true;
        for (index, at) in program.iter().enumerate() {
            assert!(reached[index], "instruction {index} cannot be reached");
            if at.code == 0x05 || at.code & 7 == 6 {
                reached[index + 1 + at.offset as usize] = true;
            }
            if at.code != 0x05 && at.code != EXIT {
                reached[index + 1] = true;
            }
        }
    }

    /// Runs a program for one request, as the kernel would.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0u32; 11];
        let mut next = 0usize;
        loop {
            let at = program[next];
            next += 1;
            let (to, from) = ((at.registers & 15) as usize, (at.registers >> 4) as usize);
            let immediate = at.immediate as u32;
            let jump = |taken: bool| if taken { at.offset as usize } else { 0 };
            match at.code {
                LOAD_WORD => registers[to] = context[at.offset as usize / 4],
                MOVE => registers[to] = immediate,
                MOVE_REGISTER => registers[to] = registers[from],
                AND => registers[to] &= immediate,
                SHIFT_RIGHT => registers[to] >>= immediate,
                JUMP_NOT_EQUAL => next += jump(registers[to] != immediate),
                JUMP_NO_BITS => next += jump(registers[to] & immediate != 0),
                0x05 => next += at.offset as usize,
                EXIT => return registers[0] != 0,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    fn config(json: &str) -> Vec<Rule> {
        let rules: Vec<DeviceRule> = serde_json::from_str(json).unwrap();
        rules.iter().map(|one| rule(one).unwrap()).collect()
    }

    #[test]
    fn last_rule_decides_each_access_bit() {
        let rules = config(
            r#"[{"allow":false,"access":"rwm"},
                {"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},
                {"allow":true,"type":"b","major":8,"access":"r"},
                {"allow":true,"type":"c","major":10,"minor":200,"access":"rw"},
                {"allow":false,"type":"c","major":10,"minor":200,"access":"w"}]"#,
        );
        let program = program(&rules).unwrap();
        assert_reachable(&program);
        for (kind, access, major, minor, granted) in [
            (CHAR, READ | WRITE, 1, 3, true),
            (BLOCK, READ | WRITE, 1, 3, false),
            (CHAR, READ, 1, 4, false),
            (BLOCK, READ, 8, 77, true),
            (BLOCK, READ | WRITE, 8, 77, false),
            (CHAR, READ, 10, 200, true),
            (CHAR, READ | WRITE, 10, 200, false),
            (CHAR, MKNOD, 10, 200, false),
        ] {
            let answer = run(&program, kind, access, major, minor);
            assert_eq!(answer, granted, "{kind} {access} {major}:{minor}");
        }
    }

    #[test]
    fn defaults_are_always_there() {
        let program = program(&rules(&[DeviceRule::default()]).unwrap()).unwrap();
        assert_reachable(&program);
        assert!(run(&program, CHAR, READ | WRITE, 1, 3));
        assert!(run(&program, CHAR, READ | WRITE, 136, 9));
        assert!(run(&program, BLOCK, MKNOD, 8, 0));
        assert!(!run(&program, BLOCK, READ, 8, 0));
    }

    #[test]
    fn allowing_everything_needs_no_program() {
        let all = r#"{"allow":true,"access":"rwm"}"#;
        let deny = r#"{"allow":false,"access":"rwm"}"#;
        assert!(program(&config(&format!("[{deny},{all}]"))).is_none());
        assert!(program(&config(&format!("[{all},{deny}]"))).is_some());
        assert_reachable(&program(&[]).unwrap());
        let some = r#"{"allow":false,"type":"b","major":8,"access":"w"}"#;
        let all_but_some = program(&config(&format!("[{all},{some}]"))).unwrap();
        assert_reachable(&all_but_some);
        assert!(run(&all_but_some, CHAR, WRITE, 8, 0) && run(&all_but_some, BLOCK, READ, 8, 0));
        assert!(!run(&all_but_some, BLOCK, READ | WRITE, 8, 0));
    }

    #[test]
    fn nonsense_is_refused() {
        for json in [r#"{"type":"x"}"#, r#"{"access":"q"}"#, r#"{"major":-2}"#] {
            assert!(
                rule(&serde_json::from_str(json).unwrap()).is_err(),
                "{json}"
            );
        }
    }
}
