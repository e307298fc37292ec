//! A thread for work in another namespace.
//!
//! `unshare(2)` and `setns(2)` change the calling thread only, and for a mount namespace want that it shares its working folder
//! with no other. So each use gets a thread that ends with it: none of the async runtime ever leaves its namespaces.

use std::io;

/// Deep enough for what is done there, and little to make anew each time.
const STACK: usize = 256 << 10;

/// Runs `work` on a thread of its own, waiting for its end. The outer error: there was no thread, or it died.
pub fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let thread = std::thread::Builder::new();
    let thread = thread.name(name.to_owned()).stack_size(STACK).spawn(work)?;
    thread
        .join()
        .map_err(|_| io::Error::other("the namespace thread died"))
}
