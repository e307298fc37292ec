//! The rate of the CPU's time stamp counter, which an emulated guest sees unchanged (QEMU, `cpu_get_host_ticks`).

/// Kilohertz; `None` where the counter's rate is not constant (Intel SDM, CPUID leaf 80000007H) or is not the guest's.
#[cfg(target_arch = "x86_64")]
pub fn kilohertz() -> Option<u64> {
    use std::arch::x86_64::{__cpuid, _rdtsc};
    use std::time::{Duration, Instant};

    const LEAF: u32 = 0x8000_0007;
    const INVARIANT: u32 = 1 << 8;
    // Long enough for five digits: a clock is read in some 50 ns.
    const SPAN: Duration = Duration::from_millis(5);

    let known = __cpuid(0x8000_0000).eax >= LEAF;
    if !known || __cpuid(LEAF).edx & INVARIANT == 0 {
        return None;
    }
    // SAFETY: every x86-64 CPU has the instruction; it reads a register.
    let read = || (Instant::now(), unsafe { _rdtsc() });
    let (start, first) = read();
    std::thread::sleep(SPAN);
    let (end, last) = read();
    let micros = end.duration_since(start).as_nanos() as f64 / 1000.0;
    Some((last.wrapping_sub(first) as f64 * 1000.0 / micros) as u64)
}

#[cfg(not(target_arch = "x86_64"))]
pub fn kilohertz() -> Option<u64> {
    None
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::kilohertz;

    #[test]
    fn two_readings_agree() {
        let (Some(one), Some(two)) = (kilohertz(), kilohertz()) else {
            return;
        };
        assert!(one.abs_diff(two) < one / 1000, "{one} and {two} kHz");
        assert!((400_000..20_000_000).contains(&one), "{one} kHz");
    }
}
