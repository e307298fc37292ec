//! `longshore-vm`: owns one VM, from its start to its end.

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    longshore_vm::run::main()
}

#[cfg(not(unix))]
fn main() {
    eprintln!("longshore-vm does not run on this system yet");
    std::process::exit(1);
}
