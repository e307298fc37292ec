//! What the host parses from the guest, each as a function of any bytes: it returns, or it panics.
//!
//! A target plays the guest on the real code, in memory, as its input says; most inputs are small scripts, so that what needs a
//! session, a connection or an open file is reached. It knows neither libFuzzer, which is `main.rs`'s, nor a booted guest.
//!
//! Beside panics, a target fails when it makes the host hold more than its bound ([`memory`]), and libFuzzer when it takes too long.

mod input;
mod memory;
mod queue;
#[cfg(test)]
mod seeds;
mod targets;

/// One place where the guest's bytes come in.
pub struct Target {
    pub name: &'static str,
    /// Returns how much of what the guest wanted it got: streams and bytes, answers, messages understood. A search learns nothing
    /// from it; that seeds come through does.
    pub run: fn(&[u8]) -> usize,
}

pub const TARGETS: &[Target] = &[
    Target {
        name: "mux",
        run: targets::mux::run,
    },
    Target {
        name: "vsock",
        run: targets::vsock::run,
    },
    Target {
        name: "fuse",
        run: targets::fuse::run,
    },
    Target {
        name: "record",
        run: targets::record::run,
    },
    Target {
        name: "messages",
        run: targets::messages::run,
    },
    Target {
        name: "ports",
        run: targets::ports::run,
    },
];

pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

#[cfg(test)]
mod tests;
