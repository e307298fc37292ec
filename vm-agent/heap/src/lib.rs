//! The C library's heap in processes that live long and mostly wait: what they freed goes back to the guest.
//!
//! By itself glibc makes an arena for nearly every thread, and each keeps its greatest size. Memory then grows with how
//! work happens to fall on threads, for hours, while a hundredth of it is in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where the heap ended when the process began: an address, 0 before [`keep_little`].
static BEGIN: AtomicUsize = AtomicUsize::new(0);

/// Makes all threads share one arena that keeps at most `keep` free bytes at its end; blocks from half of that on never
/// stay in it. To be called before other threads exist.
pub fn keep_little(keep: u32) {
    let keep = libc::c_int::try_from(keep).unwrap_or(libc::c_int::MAX);
    // SAFETY: mallopt only sets numbers, before other threads exist.
    #[cfg(target_env = "gnu")]
    unsafe {
        BEGIN.store(libc::sbrk(0) as usize, Ordering::Relaxed);
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

/// Frees pages, and tells the kernel to leave the holes alone: its khugepaged would make huge pages out of what is left between
/// them, and all that was given back would be in use again within a minute.
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the heap's own locks and touches free memory only; the advice changes how the heap's pages are
    // kept, never what is in them. Where another thread moves the heap's end meanwhile, the kernel refuses what is not there.
    unsafe {
        libc::malloc_trim(0);
        let begin = BEGIN.load(Ordering::Relaxed);
        let end = libc::sbrk(0) as usize;
        let page = libc::sysconf(libc::_SC_PAGESIZE).max(1) as usize;
        let begin = begin.next_multiple_of(page);
        if begin > 0 && begin < end {
            libc::madvise(
                begin as *mut libc::c_void,
                end - begin,
                libc::MADV_NOHUGEPAGE,
            );
        }
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    /// Kernel's own words: `Documentation/filesystems/proc.rst`, "nh - no huge page advise flag".
    fn heaps_without_huge_pages() -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut heap = false;
        let mut found = 0;
        for line in maps.lines() {
            match line.strip_prefix("VmFlags:") {
                Some(flags) if heap && flags.split(' ').any(|flag| flag == "nh") => found += 1,
                None if line.contains('-') && line.contains(" rw") => {
                    heap = line.ends_with("[heap]")
                }
                _ => {}
            }
        }
        found
    }

    #[test]
    fn huge_pages_do_not_take_back_what_was_given_back() {
        super::keep_little(64 << 10);
        assert_eq!(heaps_without_huge_pages(), 0);
        // The heap of a program grows like this on its main thread; a test has another.
        // SAFETY: nobody uses the new bytes, and malloc lives with others' use of sbrk.
        unsafe { libc::sbrk(1 << 20) };
        super::give_back();
        assert_eq!(heaps_without_huge_pages(), 1);
    }
}
