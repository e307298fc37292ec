//! How much memory this thread holds, so that a target can tell when the guest has it hold more than it may.
//!
//! Targets do all their work on one thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn count(by: isize) {
    // The thread may be past its own data.
    let _ = HELD.try_with(|held| held.set(held.get() + by));
}

// SAFETY: every call goes to the system's allocator with its own arguments; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What this thread may hold from now on.
pub struct Bound {
    before: isize,
    bytes: isize,
}

impl Bound {
    pub fn new(bytes: usize) -> Self {
        Self {
            before: HELD.get(),
            bytes: bytes as isize,
        }
    }

    /// Panics when more is held.
    pub fn check(&self) {
        let held = HELD.get() - self.before;
        assert!(held <= self.bytes, "the guest makes us hold {held} bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::Bound;

    #[test]
    fn what_is_held_counts_until_it_is_given_back() {
        let bound = Bound::new(10_000);
        drop(vec![0_u8; 20_000]);
        bound.check();
        let kept = vec![0_u8; 20_000];
        let over = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bound.check()));
        assert!(over.is_err());
        drop(kept);
    }
}
