//! containerd shim v2: one per container; stdio, reaping, exit status.
//!
//! It does not know images, snapshots, networks, nor Docker.

mod args;
mod cgroup;
mod cleanup;
mod console;
mod container;
mod copy;
mod error;
mod events;
mod exit_file;
mod info;
mod linger;
mod logger;
mod metrics;
mod mount;
mod options;
mod process;
mod reaper;
mod runtime;
mod serve;
mod service;
mod spec;
mod start;
mod stdio;

use std::io::Write;

use anyhow::Context;
use containerd_shim_protos::protobuf::Message;

use crate::args::{Action, Args};

fn main() -> anyhow::Result<()> {
    let args = Args::parse(std::env::args().skip(1))?;
    match args.action {
        Action::Version => {
            println!("containerd-shim-longshore-v2 {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Action::Info => print_message(&info::runtime_info()),
        Action::Delete => print_message(&cleanup::clean_up(&args)?),
        Action::Start => match start::start(&args)? {
            Some(serving) => serve::serve(&args, serving).context("serve"),
            None => Ok(()),
        },
    }
}

/// containerd reads the answers of `delete` and `-info` from stdout as messages.
fn print_message(message: &impl Message) -> anyhow::Result<()> {
    let bytes = message.write_to_bytes()?;
    std::io::stdout()
        .write_all(&bytes)
        .context("print the answer")
}
