//! `longshore-vm`: owns one VM, from its start to its end.

fn main() -> std::process::ExitCode {
    longshore_vm::run::main()
}
