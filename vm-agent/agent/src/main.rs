//! The guest's hands for the host: network, clock, disk, mounts, port dialling.
//!
//! `longshore-agent` serves the channel's ports; `longshore-agent prepare-disk` makes the data disk usable and mounts the
//! configured shares, before any service needs them. Everything that must outlive the process is a file under `/run/longshore`.

mod carrier;
mod channel;
mod clock;
mod config;
mod contract;
mod control;
mod dial;
mod disk;
mod edge;
mod environment;
mod layers;
mod local;
mod logs;
mod network;
mod new_disk;
mod news;
mod setup;
mod shares;
mod shell;
mod splice;
mod stats;
mod status;
mod swap;
mod traces;
mod uevents;
mod watched;

use anyhow::{Context, bail};
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match std::env::args().nth(1).as_deref() {
        None => serve(),
        Some("prepare-disk") => prepare_disk(),
        Some("--version") => {
            println!("longshore-agent {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Some(other) => Err(anyhow::anyhow!(
            "unknown command {other}; there are: prepare-disk, --version"
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The last line of the log is what the host shows.
            eprintln!("longshore-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn prepare_disk() -> anyhow::Result<()> {
    let config = config::load();
    if let Err(error) = environment::prepare(&config.daemon_json) {
        tracing::error!("the services start without the options of their environment: {error}");
    }
    // A share that does not answer must not hold up the disk; a disk that fails must not hide the shares.
    std::thread::scope(|scope| {
        scope.spawn(|| shares::mount_configured(&config.shares));
        disk::prepare().context("prepare the data disk")?;
        // Less memory is no reason not to start.
        if let Err(error) = swap::set_up(config.swap_bytes) {
            tracing::error!("the guest does not swap: {error}");
        }
        Ok(())
    })
}

fn serve() -> anyhow::Result<()> {
    longshore_trace::init("agent")?;
    // Copying bytes and small messages: one thread does it, and costs the least memory.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let agent = setup::Agent::start().await?;
        tokio::select! {
            served = local::serve(agent.clone()) => served.context("serve the local socket")?,
            served = channel::serve(agent) => served.context("serve the channel")?,
        }
        bail!("the channel has ended")
    })
}
