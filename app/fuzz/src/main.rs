//! libFuzzer's program. `LONGSHORE_FUZZ_TARGET` names the target; the arguments are libFuzzer's.

#![no_main]

use std::sync::OnceLock;

use longshore_fuzz::{Target, find};

/// Kept for all inputs: reading the environment each time would cost as much as a small one.
static TARGET: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("LONGSHORE_FUZZ_TARGET").expect("LONGSHORE_FUZZ_TARGET");
        find(&name).expect("a target's name in LONGSHORE_FUZZ_TARGET")
    });
    (target.run)(input);
});
