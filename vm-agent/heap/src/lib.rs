//! The C library's heap in processes that live long and mostly wait: what they freed goes back to the guest.
//!
//! By itself glibc makes an arena for nearly every thread, and each keeps its greatest size. Memory then grows with how
//! work happens to fall on threads, for hours, while a hundredth of it is in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Makes all threads share one arena that keeps at most `keep` free bytes at its end; blocks from half of that on never
/// stay in it. To be called before other threads exist.
pub fn keep_little(keep: u32) {
    let keep = libc::c_int::try_from(keep).unwrap_or(libc::c_int::MAX);
    // SAFETY: mallopt only sets numbers, before other threads exist.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, keep);
        libc::mallopt(libc::M_MMAP_THRESHOLD, keep / 2);
        libc::mallopt(libc::M_TOP_PAD, 0);
    }
}

/// Gives back free pages from anywhere in the heap whenever nothing but the runtime's `workers` is left of its threads:
/// the others end when there has been nothing to do for them for a while.
pub fn give_back_when_idle(runtime: &mut tokio::runtime::Builder, workers: usize) {
    let living = Arc::new(AtomicUsize::new(0));
    let born = living.clone();
    runtime
        .on_thread_start(move || {
            born.fetch_add(1, Ordering::Relaxed);
        })
        .on_thread_stop(move || {
            if living.fetch_sub(1, Ordering::Relaxed) == workers + 1 {
                give_back();
            }
        });
}

fn give_back() {
    // SAFETY: malloc_trim takes the heap's own locks and touches free memory only.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
