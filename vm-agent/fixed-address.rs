//! Build script of the guest programs that are linked at a fixed address.
//!
//! It starts several times for every container. Under emulation QEMU keeps the code that it has translated by virtual
//! address: a position-independent program, at another address each time, is translated anew at every start, which takes
//! longer than running it. At a fixed address nothing is translated twice, and nothing has to be relocated either.

fn main() {
    println!("cargo::rerun-if-changed=../fixed-address.rs");
    let features = std::env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').any(|feature| feature == "crt-static") {
        // After the compiler's own `-static-pie`: the last one counts.
        println!("cargo::rustc-link-arg-bins=-no-pie");
        println!("cargo::rustc-link-arg-bins=-static");
    }
}
