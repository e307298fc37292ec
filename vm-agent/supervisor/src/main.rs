//! containerd's part: content, images, snapshots, containers, tasks, events, garbage collection.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use longshore_supervisor::core::{Core, Paths};
use longshore_supervisor::listen::Listeners;

/// Serves containerd's API.
#[derive(Parser)]
#[command(name = "longshore-supervisor", version)]
struct Arguments {
    /// What lasts: content, snapshots, metadata
    #[arg(long, default_value = "/var/lib/containerd")]
    root: PathBuf,
    /// What a reboot clears: bundles
    #[arg(long, default_value = "/run/containerd")]
    state: PathBuf,
    /// gRPC socket; the ttrpc socket has `.ttrpc` behind it. Bound unless init passed the listeners
    #[arg(long, default_value = "/run/containerd/containerd.sock")]
    address: PathBuf,
}

/// The guest has few CPUs, and each worker costs memory.
const WORKERS: usize = 2;
/// Free memory at the heap's end that is kept.
const KEEP: u32 = 256 << 10;

fn main() -> anyhow::Result<()> {
    longshore_heap::keep_little(KEEP);
    let arguments = Arguments::parse();
    longshore_trace::init("supervisor")?;
    // Fails only when one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listeners = Listeners::open(&arguments.address)?;
    let paths = Paths {
        root: arguments.root,
        state: arguments.state,
        address: arguments.address,
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    longshore_heap::give_back_when_idle(&mut runtime, WORKERS);
    let runtime = runtime
        .worker_threads(WORKERS)
        .max_blocking_threads(32)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async {
        let core = Core::open(paths)?;
        longshore_supervisor::serve::serve(core, listeners).await?;
        Ok(())
    })
}
