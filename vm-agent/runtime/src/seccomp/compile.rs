//! The OCI seccomp configuration (config-linux.md, "Seccomp") as a BPF program.
//!
//! For each architecture the call numbers are cut into ranges of equal treatment and searched as
//! a balanced tree: some eight comparisons instead of hundreds, which also keeps short the
//! kernel's own walk over all numbers when it fills its "always allowed" bitmap at load time.
//!
//! Meaning, as under libseccomp and runc: conditions within a rule must all hold; rules that name
//! the same argument twice, and several rules for one call, are alternatives; a conditional rule
//! goes before an unconditional one; rules whose action is the default are no rules; a call newer
//! than all that the profile knows answers ENOSYS instead of the default's EPERM, so that libraries
//! fall back to older calls.

use super::Filter;
use super::assembler::{AND, AT_LEAST, Assembler, EQUAL, GREATER, Label, RETURN};
use super::syscalls::{self, Syscall};
use crate::error::{Error, Result};
use crate::spec::{Seccomp, SyscallArg, SyscallRule};

pub const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
pub const AUDIT_ARCH_I386: u32 = 0x4000_0003;
pub const AUDIT_ARCH_AARCH64: u32 = 0xc000_00b7;
/// `__X32_SYSCALL_BIT`: x32 calls carry x86_64's audit architecture and this bit.
pub const X32_BIT: u32 = 0x4000_0000;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

const FLAG_TSYNC: u64 = 1;
const FLAG_LOG: u64 = 2;
const FLAG_SPEC_ALLOW: u64 = 4;
const FLAG_WAIT_KILLABLE: u64 = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
}

impl Arch {
    const NATIVE: Arch = if cfg!(target_arch = "aarch64") {
        Arch::Aarch64
    } else {
        Arch::X86_64
    };

    fn number(self, call: &Syscall) -> Option<u32> {
        let number = match self {
            Arch::X86_64 => call.x86_64,
            Arch::X86 => call.x86,
            Arch::X32 => call.x32,
            Arch::Aarch64 => call.aarch64,
        };
        u32::try_from(number)
            .ok()
            .map(|number| number | if self == Arch::X32 { X32_BIT } else { 0 })
    }

    fn audit(self) -> u32 {
        match self {
            Arch::X86_64 | Arch::X32 => AUDIT_ARCH_X86_64,
            Arch::X86 => AUDIT_ARCH_I386,
            Arch::Aarch64 => AUDIT_ARCH_AARCH64,
        }
    }
}

/// In runc's words.
fn invalid(what: &str, name: &str) -> Error {
    Error::Config(format!("string {name} is not a valid {what} for seccomp"))
}

fn action(name: &str, errno: Option<u32>) -> Result<u32> {
    const EPERM: u32 = libc::EPERM as u32;
    let value = errno.unwrap_or(EPERM);
    if value > 0xffff {
        return Err(Error::Seccomp(format!("errnoRet {value} is out of range")));
    }
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => RET_KILL_PROCESS,
        "SCMP_ACT_TRAP" => RET_TRAP,
        "SCMP_ACT_ERRNO" => RET_ERRNO | value,
        "SCMP_ACT_TRACE" => RET_TRACE | value,
        "SCMP_ACT_LOG" => RET_LOG,
        "SCMP_ACT_ALLOW" => RET_ALLOW,
        "SCMP_ACT_NOTIFY" => {
            return Err(Error::Seccomp(
                "SCMP_ACT_NOTIFY is not supported".to_owned(),
            ));
        }
        other => return Err(invalid("action", other)),
    })
}

fn architectures(names: &[String]) -> Result<Vec<Arch>> {
    let mut list = vec![Arch::NATIVE];
    for name in names {
        let arch = match name.as_str() {
            "SCMP_ARCH_X86_64" => Arch::X86_64,
            "SCMP_ARCH_X86" => Arch::X86,
            "SCMP_ARCH_X32" => Arch::X32,
            "SCMP_ARCH_AARCH64" => Arch::Aarch64,
            // Other machines' calls cannot be made here.
            name if name.starts_with("SCMP_ARCH_") => continue,
            name => return Err(invalid("arch", name)),
        };
        if !list.contains(&arch) {
            list.push(arch);
        }
    }
    Ok(list)
}

fn filter_flags(names: Option<&[String]>) -> Result<u64> {
    let Some(names) = names else {
        return Ok(FLAG_SPEC_ALLOW);
    };
    names.iter().try_fold(0, |flags, name| {
        Ok(flags
            | match name.as_str() {
                "SECCOMP_FILTER_FLAG_TSYNC" => FLAG_TSYNC,
                "SECCOMP_FILTER_FLAG_LOG" => FLAG_LOG,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => FLAG_SPEC_ALLOW,
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => FLAG_WAIT_KILLABLE,
                other => return Err(Error::Seccomp(format!("invalid flag {other:?}"))),
            })
    })
}

/// What happens to one call on one architecture.
#[derive(Debug, Clone, Default, PartialEq)]
struct Treatment {
    /// Tried in order; the first whose conditions all hold decides.
    conditional: Vec<(Vec<SyscallArg>, u32)>,
    always: Option<u32>,
}

/// A run of call numbers that are treated alike, from `first` to the next range's.
#[derive(Debug, PartialEq)]
struct Range {
    first: u32,
    treatment: Treatment,
}

pub fn compile(config: &Seccomp) -> Result<Filter> {
    let default = action(&config.default_action, config.default_errno_ret)?;
    let rules = resolve_rules(config, default)?;
    let arches = architectures(&config.architectures)?;
    let mut code = Assembler::default();
    code.load(OFFSET_ARCH);
    let mut audits: Vec<u32> = Vec::new();
    for arch in &arches {
        if !audits.contains(&arch.audit()) {
            audits.push(arch.audit());
        }
    }
    let blocks: Vec<(u32, Label)> = audits
        .into_iter()
        .map(|audit| (audit, code.label()))
        .collect();
    for (audit, label) in &blocks {
        code.jump_if(EQUAL, *audit, *label);
    }
    // An architecture that the profile does not name.
    code.plain(RETURN, RET_KILL_THREAD);
    for (audit, label) in blocks {
        code.place(label);
        code.load(OFFSET_NUMBER);
        let mut ranges = Vec::new();
        for arch in arches.iter().filter(|arch| arch.audit() == audit) {
            ranges.extend(arch_ranges(*arch, &rules, default));
        }
        if audit == AUDIT_ARCH_X86_64 && !arches.contains(&Arch::X32) {
            ranges.push(Range {
                first: X32_BIT,
                treatment: fixed(RET_KILL_THREAD),
            });
        }
        ranges.sort_by_key(|range| range.first);
        ranges.dedup_by(|later, earlier| later.treatment == earlier.treatment);
        append_tree(&ranges, audit == AUDIT_ARCH_I386, default, &mut code);
    }
    let program = code.finish();
    if program.len() > 4096 {
        return Err(Error::Seccomp(format!(
            "filter of {} instructions is too long",
            program.len()
        )));
    }
    Ok(Filter {
        program,
        flags: filter_flags(config.flags.as_deref())?,
    })
}

fn fixed(action: u32) -> Treatment {
    Treatment {
        conditional: Vec::new(),
        always: Some(action),
    }
}

/// A rule with its action in the kernel's form and its conditions checked.
struct ResolvedRule<'a> {
    rule: &'a SyscallRule,
    action: u32,
    /// Alternatives, each a list of conditions that must all hold; empty for no condition.
    alternatives: Vec<Vec<SyscallArg>>,
}

fn resolve_rules(config: &Seccomp, default: u32) -> Result<Vec<ResolvedRule<'_>>> {
    let mut rules = Vec::with_capacity(config.syscalls.len());
    for rule in &config.syscalls {
        let action = action(&rule.action, rule.errno_ret)?;
        for arg in &rule.args {
            if arg.index > 5 {
                return Err(Error::Seccomp(format!(
                    "argument index {} is over 5",
                    arg.index
                )));
            }
            operator(&arg.op)?;
        }
        if action == default {
            continue;
        }
        let repeated =
            (0..6).any(|index| rule.args.iter().filter(|arg| arg.index == index).count() > 1);
        let alternatives = match (rule.args.is_empty(), repeated) {
            (true, _) => Vec::new(),
            (false, true) => rule.args.iter().map(|arg| vec![arg.clone()]).collect(),
            (false, false) => vec![rule.args.clone()],
        };
        rules.push(ResolvedRule {
            rule,
            action,
            alternatives,
        });
    }
    Ok(rules)
}

/// i386's socket calls behind socketcall(2), by their number there (`linux/net.h`).
const SOCKET_CALLS: [(&str, u64); 20] = [
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

fn arch_ranges(arch: Arch, rules: &[ResolvedRule<'_>], default: u32) -> Vec<Range> {
    let mut calls: Vec<(u32, Treatment)> = Vec::new();
    let base = if arch == Arch::X32 { X32_BIT } else { 0 };
    let mut newest = base;
    for resolved in rules {
        for name in &resolved.rule.names {
            let Some(number) = syscalls::find(name).and_then(|call| arch.number(call)) else {
                // Names that this kernel generation or architecture does not have are skipped.
                continue;
            };
            newest = newest.max(number);
            let index = match calls.binary_search_by_key(&number, |call| call.0) {
                Ok(index) => index,
                Err(index) => {
                    calls.insert(index, (number, Treatment::default()));
                    index
                }
            };
            add_rule(&mut calls[index].1, resolved);
        }
    }
    if arch == Arch::X86 {
        add_socketcall(&mut calls, rules);
    }
    let mut ranges = vec![Range {
        first: base,
        treatment: fixed(default),
    }];
    for (number, mut treatment) in calls {
        if treatment.always.is_none() {
            treatment.always = Some(default);
        }
        ranges.retain(|range| range.first != number);
        ranges.push(Range {
            first: number,
            treatment,
        });
        ranges.push(Range {
            first: number + 1,
            treatment: fixed(default),
        });
    }
    if answers_unknown_calls(default) {
        let unknown = fixed(RET_ERRNO | libc::ENOSYS as u32);
        ranges.retain(|range| range.first != newest + 1);
        ranges.push(Range {
            first: newest + 1,
            treatment: unknown,
        });
    }
    ranges
}

/// Only a profile that denies by default can deny what it has never heard of.
fn answers_unknown_calls(default: u32) -> bool {
    !matches!(default & 0xffff_0000, RET_ALLOW | RET_LOG | RET_TRACE)
}

fn add_rule(treatment: &mut Treatment, resolved: &ResolvedRule<'_>) {
    if resolved.alternatives.is_empty() {
        treatment.always.get_or_insert(resolved.action);
    }
    for conditions in &resolved.alternatives {
        treatment
            .conditional
            .push((conditions.clone(), resolved.action));
    }
}

/// socketcall(2) hides the real call's arguments behind a pointer. Unless the profile names it,
/// a socket call passes through it only where its own rule has no conditions.
fn add_socketcall(calls: &mut Vec<(u32, Treatment)>, rules: &[ResolvedRule<'_>]) {
    let Some(number) = syscalls::find("socketcall").and_then(|call| Arch::X86.number(call)) else {
        return;
    };
    let Err(index) = calls.binary_search_by_key(&number, |call| call.0) else {
        return;
    };
    let mut treatment = Treatment::default();
    for (name, sub_call) in SOCKET_CALLS {
        let mut naming = rules
            .iter()
            .filter(|resolved| resolved.rule.names.iter().any(|one| one == name));
        let Some(first) = naming.next() else { continue };
        if first.alternatives.is_empty() && naming.all(|other| other.alternatives.is_empty()) {
            let condition = SyscallArg {
                index: 0,
                value: sub_call,
                value_two: 0,
                op: "SCMP_CMP_EQ".to_owned(),
            };
            treatment.conditional.push((vec![condition], first.action));
        }
    }
    calls.insert(index, (number, treatment));
}

/// A balanced search by "at least": the right half lies behind the left one.
fn append_tree(ranges: &[Range], narrow: bool, default: u32, code: &mut Assembler) {
    let (left, right) = ranges.split_at(ranges.len() / 2);
    if left.is_empty() {
        if let Some(range) = right.first() {
            append_treatment(&range.treatment, narrow, default, code);
        }
        return;
    }
    let label = code.label();
    code.jump_if(AT_LEAST, right[0].first, label);
    append_tree(left, narrow, default, code);
    code.place(label);
    append_tree(right, narrow, default, code);
}

fn append_treatment(treatment: &Treatment, narrow: bool, default: u32, code: &mut Assembler) {
    for (conditions, action) in &treatment.conditional {
        let next = code.label();
        for condition in conditions {
            append_condition(condition, narrow, next, code);
        }
        code.plain(RETURN, *action);
        code.place(next);
    }
    code.plain(RETURN, treatment.always.unwrap_or(default));
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    MaskedEqual,
}

fn operator(name: &str) -> Result<Operator> {
    Ok(match name {
        "SCMP_CMP_NE" => Operator::NotEqual,
        "SCMP_CMP_LT" => Operator::Less,
        "SCMP_CMP_LE" => Operator::LessOrEqual,
        "SCMP_CMP_EQ" => Operator::Equal,
        "SCMP_CMP_GE" => Operator::GreaterOrEqual,
        "SCMP_CMP_GT" => Operator::Greater,
        "SCMP_CMP_MASKED_EQ" => Operator::MaskedEqual,
        other => return Err(invalid("operator", other)),
    })
}

/// Goes on when the condition holds, else to `fails`. The 64-bit argument is compared in two
/// halves, high first; on a 32-bit architecture (`narrow`) there is only the low one.
fn append_condition(condition: &SyscallArg, narrow: bool, fails: Label, code: &mut Assembler) {
    // Checked when the rule was resolved.
    let Ok(operator) = operator(&condition.op) else {
        return;
    };
    let low_offset = OFFSET_ARGS + condition.index * 8;
    let holds = code.label();
    let (value, mask) = match operator {
        Operator::MaskedEqual => (condition.value_two & condition.value, condition.value),
        _ => (condition.value, u64::MAX),
    };
    if !narrow {
        code.load(low_offset + 4);
        append_high(
            operator,
            (value >> 32) as u32,
            (mask >> 32) as u32,
            holds,
            fails,
            code,
        );
    }
    code.load(low_offset);
    append_low(operator, value as u32, mask as u32, holds, fails, code);
    code.place(holds);
}

/// Decides on the high half, or falls through when the halves are equal and the low one decides.
fn append_high(
    operator: Operator,
    value: u32,
    mask: u32,
    holds: Label,
    fails: Label,
    code: &mut Assembler,
) {
    let (above, below) = match operator {
        Operator::NotEqual => (holds, holds),
        Operator::Less | Operator::LessOrEqual => (fails, holds),
        Operator::Greater | Operator::GreaterOrEqual => (holds, fails),
        Operator::Equal | Operator::MaskedEqual => (fails, fails),
    };
    if operator == Operator::MaskedEqual {
        code.plain(AND, mask);
    }
    let equal = code.label();
    code.jump_if(GREATER, value, above);
    code.jump_if(EQUAL, value, equal);
    code.goto(below);
    code.place(equal);
}

fn append_low(
    operator: Operator,
    value: u32,
    mask: u32,
    holds: Label,
    fails: Label,
    code: &mut Assembler,
) {
    let (test, when_true, otherwise) = match operator {
        Operator::NotEqual => (EQUAL, fails, holds),
        Operator::Less => (AT_LEAST, fails, holds),
        Operator::LessOrEqual => (GREATER, fails, holds),
        Operator::Equal | Operator::MaskedEqual => (EQUAL, holds, fails),
        Operator::GreaterOrEqual => (AT_LEAST, holds, fails),
        Operator::Greater => (GREATER, holds, fails),
    };
    if operator == Operator::MaskedEqual {
        code.plain(AND, mask);
    }
    code.jump_if(test, value, when_true);
    code.goto(otherwise);
}

#[cfg(test)]
mod tests {
    use super::super::interpreter::run;
    use super::*;

    const ENOSYS: u32 = RET_ERRNO | 38;
    const EPERM: u32 = RET_ERRNO | 1;

    fn build(json: &str) -> Vec<libc::sock_filter> {
        compile(&serde_json::from_str(json).unwrap())
            .unwrap()
            .program
    }

    const PROFILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": ["read", "write", "execve", "no_such", "bind"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 4294967295, "op": "SCMP_CMP_EQ"}]},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["kexec_load"], "action": "SCMP_ACT_KILL_PROCESS"}
        ]}"#;

    #[test]
    fn default_like_profile_on_three_architectures() {
        let program = build(PROFILE);
        let newns = 0x20000;
        for (arch, number, args, expected) in [
            (AUDIT_ARCH_X86_64, 0, vec![], RET_ALLOW),
            (AUDIT_ARCH_X86_64, 59, vec![], RET_ALLOW),
            (AUDIT_ARCH_X86_64, 2, vec![], EPERM),
            (AUDIT_ARCH_X86_64, 41, vec![2], RET_ALLOW),
            (AUDIT_ARCH_X86_64, 41, vec![40], EPERM),
            (AUDIT_ARCH_X86_64, 41, vec![40 + (1 << 32)], RET_ALLOW),
            (AUDIT_ARCH_X86_64, 135, vec![0], RET_ALLOW),
            (AUDIT_ARCH_X86_64, 135, vec![0xffff_ffff], RET_ALLOW),
            (AUDIT_ARCH_X86_64, 135, vec![8], EPERM),
            (AUDIT_ARCH_X86_64, 56, vec![0x11], RET_ALLOW),
            (AUDIT_ARCH_X86_64, 56, vec![newns], EPERM),
            (AUDIT_ARCH_X86_64, 435, vec![], ENOSYS),
            (AUDIT_ARCH_X86_64, 436, vec![], ENOSYS),
            (AUDIT_ARCH_X86_64, 246, vec![], RET_KILL_PROCESS),
            (AUDIT_ARCH_X86_64, X32_BIT | 520, vec![], RET_ALLOW),
            (AUDIT_ARCH_X86_64, X32_BIT | 59, vec![], EPERM),
            (AUDIT_ARCH_X86_64, X32_BIT | 41, vec![40], EPERM),
            (AUDIT_ARCH_I386, 3, vec![], RET_ALLOW),
            (AUDIT_ARCH_I386, 359, vec![40], EPERM),
            (AUDIT_ARCH_I386, 359, vec![1], RET_ALLOW),
            (AUDIT_ARCH_I386, 102, vec![1], EPERM),
            (AUDIT_ARCH_I386, 102, vec![2], RET_ALLOW),
            (AUDIT_ARCH_I386, 11, vec![], RET_ALLOW),
            (AUDIT_ARCH_I386, 5, vec![], EPERM),
            (AUDIT_ARCH_AARCH64, 63, vec![], RET_KILL_THREAD),
        ] {
            let answer = run(&program, arch, number, &args);
            assert_eq!(answer, expected, "{arch:#x} {number:#x} {args:?}");
        }
    }

    #[test]
    fn x32_calls_die_where_the_profile_does_not_name_x32() {
        let program = build(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#);
        assert_eq!(run(&program, AUDIT_ARCH_X86_64, 9999, &[]), RET_ALLOW);
        assert_eq!(
            run(&program, AUDIT_ARCH_X86_64, X32_BIT, &[]),
            RET_KILL_THREAD
        );
        assert_eq!(run(&program, AUDIT_ARCH_I386, 1, &[]), RET_KILL_THREAD);
    }

    #[test]
    fn each_operator_on_both_halves() {
        let big = 5u64 << 32 | 7;
        for (op, holds, fails) in [
            ("NE", vec![big + 1, 7, 6 << 32 | 7], vec![big]),
            ("EQ", vec![big], vec![7, big + 1, 6 << 32 | 7]),
            (
                "LT",
                vec![big - 1, 4 << 32 | 9],
                vec![big, big + 1, 6 << 32],
            ),
            (
                "LE",
                vec![big, big - 1, 4 << 32 | 9],
                vec![big + 1, 6 << 32],
            ),
            (
                "GT",
                vec![big + 1, 6 << 32],
                vec![big, big - 1, 4 << 32 | 9],
            ),
            (
                "GE",
                vec![big, big + 1, 6 << 32],
                vec![big - 1, 4 << 32 | 9],
            ),
        ] {
            let program = build(&format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],
                "action":"SCMP_ACT_ALLOW","args":[{{"index":2,"value":{big},"op":"SCMP_CMP_{op}"}}]}}]}}"#
            ));
            for (values, expected) in [(holds, RET_ALLOW), (fails, EPERM)] {
                for value in values {
                    let answer = run(&program, AUDIT_ARCH_X86_64, 0, &[0, 0, value]);
                    assert_eq!(answer, expected, "{op} {value:#x}");
                }
            }
        }
    }

    #[test]
    fn repeated_argument_means_either() {
        let program = build(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],
            "action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},
            {"index":0,"value":3,"op":"SCMP_CMP_EQ"}]}]}"#,
        );
        for (value, expected) in [(1, RET_ALLOW), (3, RET_ALLOW), (2, EPERM)] {
            assert_eq!(run(&program, AUDIT_ARCH_X86_64, 0, &[value]), expected);
        }
    }

    #[test]
    fn every_call_gets_what_its_rule_says() {
        // Alternating actions leave no two neighbours alike: the tree and the far jumps at full size.
        let even: Vec<_> = syscalls::TABLE
            .iter()
            .filter(|call| call.x86_64 >= 0 && call.x86_64 % 2 == 0)
            .map(|call| format!("{:?}", call.name))
            .collect();
        let program = build(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":[{}],"action":"SCMP_ACT_ERRNO",
            "errnoRet":7}}]}}"#,
            even.join(",")
        ));
        for call in syscalls::TABLE.iter().filter(|call| call.x86_64 >= 0) {
            let expected = if call.x86_64 % 2 == 0 {
                RET_ERRNO | 7
            } else {
                RET_ALLOW
            };
            let answer = run(&program, AUDIT_ARCH_X86_64, call.x86_64 as u32, &[]);
            assert_eq!(answer, expected, "{}", call.name);
        }
    }

    #[test]
    fn mistakes_are_refused() {
        for json in [
            r#"{"defaultAction":"SCMP_ACT_FOO"}"#,
            r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["x86"]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}"#,
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW",
                "args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
        ] {
            assert!(
                compile(&serde_json::from_str(json).unwrap()).is_err(),
                "{json}"
            );
        }
    }
}
