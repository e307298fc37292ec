//! A classic BPF interpreter for tests: what the kernel would answer for one call.

use libc::sock_filter;

use super::assembler::{AND, AT_LEAST, EQUAL, GREATER, JUMP, LOAD, RETURN};

pub fn run(program: &[sock_filter], arch: u32, number: u32, args: &[u64]) -> u32 {
    let mut data = [0u32; 16];
    data[0] = number;
    data[1] = arch;
    for (index, arg) in args.iter().enumerate() {
        data[4 + index * 2] = *arg as u32;
        data[5 + index * 2] = (*arg >> 32) as u32;
    }
    let mut accumulator = 0u32;
    let mut next = 0usize;
    loop {
        let at = program[next];
        next += 1;
        let jump = |taken: bool| usize::from(if taken { at.jt } else { at.jf });
        match at.code {
            LOAD => accumulator = data[at.k as usize / 4],
            AND => accumulator &= at.k,
            EQUAL => next += jump(accumulator == at.k),
            GREATER => next += jump(accumulator > at.k),
            AT_LEAST => next += jump(accumulator >= at.k),
            JUMP => next += at.k as usize,
            RETURN => return at.k,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}
