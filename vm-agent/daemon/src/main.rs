//! `longshore-daemon`: the Docker Engine API on a unix socket.

use anyhow::Context;
use clap::Parser;
use longshore_daemon::config::Options;
use longshore_daemon::container::closing;
use longshore_daemon::{Daemon, docker_init, server};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The guest has few CPUs, and each worker costs memory.
const WORKERS: usize = 2;
/// Free memory at the heap's end that is kept.
const KEEP: u32 = 256 << 10;

fn main() -> anyhow::Result<()> {
    let name = std::env::args_os().next().unwrap_or_default();
    if std::path::Path::new(&name)
        .file_name()
        .is_some_and(|name| name == docker_init::NAME)
    {
        std::process::exit(docker_init::run());
    }
    longshore_heap::keep_little(KEEP);
    longshore_trace::init("daemon").context("setting up the log")?;
    let options = Options::parse();
    // The only provider that is compiled in; registries are asked over it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    longshore_heap::give_back_when_idle(&mut runtime, WORKERS);
    let runtime = runtime
        .worker_threads(WORKERS)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .enable_all()
        .build()?;
    runtime.block_on(run(options))
}

async fn run(options: Options) -> anyhow::Result<()> {
    let listener = server::listen(&options.address).context("listening for the Docker API")?;
    let daemon = Daemon::open(options)
        .await
        .context("opening the daemon's state")?;
    let stop = CancellationToken::new();
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = tokio::spawn(server::serve(daemon.clone(), listener, stop.clone()));
    loop {
        tokio::select! {
            _ = hangup.recv() => daemon.reload(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    stop.cancel();
    if closing::is_wanted() {
        closing::run(&daemon).await;
    }
    server.await.context("serving the Docker API")
}
