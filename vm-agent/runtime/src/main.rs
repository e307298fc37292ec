//! The OCI runtime, with runc's command line: namespaces, cgroups, mounts, seccomp, capabilities.
//!
//! One short-lived process: `create` forks the container's first process directly into its
//! namespaces and cgroup and exits. It knows nothing of images, logs or who calls it.

#![cfg_attr(not(test), no_main)]

mod binary;
mod capabilities;
mod cgroup;
mod cli;
mod clock;
mod create;
mod error;
mod exec;
mod foreground;
mod hooks;
mod init;
mod inspect;
mod launch;
mod lifecycle;
mod namespaces;
mod process;
mod report;
mod rootfs;
mod seccomp;
mod spec;
mod state;
mod sync;
mod sys;
mod terminal;

use anyhow::Context;

use cli::Invocation;

const HELP: &str = "longshore-runtime [--root DIR] [--log FILE] [--log-format text|json] COMMAND …

Runs containers as the Open Container Initiative's runtime specification says, with runc's commands:

  create  start  run  state  kill  delete  exec  ps  pause  resume  update  events  list
  features  spec";

/// The C library's entry: what the standard library does before a `main` of its own (a signal stack, a look at /proc/self/maps) is a
/// good part of this process's life, and nothing here needs it.
#[cfg(not(test))]
#[unsafe(no_mangle)]
extern "C" fn main(_count: libc::c_int, _words: *const *const libc::c_char) -> libc::c_int {
    sys::begin();
    std::process::exit(run());
}

#[cfg_attr(test, allow(dead_code))]
fn run() -> i32 {
    let words: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    match cli::parse(&words) {
        Ok(call) => {
            report::set_up(&call.global);
            match dispatch(&call) {
                Ok(code) => code,
                Err(error) => {
                    report::error(&format!("{error:#}"));
                    // runc's exec cannot be told from the command's own failure but by this.
                    if call.command == "exec" { 255 } else { 1 }
                }
            }
        }
        Err(error) => {
            report::error(&error.to_string());
            1
        }
    }
}

fn dispatch(call: &Invocation) -> anyhow::Result<i32> {
    if matches!(call.command.as_str(), "create" | "run" | "exec") {
        secure(call)?;
    }
    let code = match call.command.as_str() {
        "create" => create::create(call)?,
        "run" => create::run(call)?,
        "exec" => exec::exec(call)?,
        "start" => lifecycle::start(call)?,
        "state" => lifecycle::state(call)?,
        "kill" => lifecycle::kill(call)?,
        "delete" => lifecycle::delete(call)?,
        "pause" => lifecycle::pause(call)?,
        "resume" => lifecycle::resume(call)?,
        "ps" => inspect::ps(call)?,
        "list" => inspect::list(call)?,
        "events" => inspect::events(call)?,
        "update" => inspect::update(call)?,
        "features" => inspect::features()?,
        "spec" => inspect::spec(call)?,
        "version" => inspect::version()?,
        _ => {
            println!("{HELP}");
            0
        }
    };
    Ok(code)
}

/// Before anything of the container's is near: see [`binary`] for the first two, and no descriptor
/// that we happened to inherit reaches the container.
fn secure(call: &Invocation) -> anyhow::Result<()> {
    binary::protect().context("cannot protect the runtime's own file from the container")?;
    sys::prctl(libc::PR_SET_DUMPABLE, 0).context("cannot become non-dumpable")?;
    sys::cloexec_from(process::first_unkept(create::preserved(call)?));
    Ok(())
}
