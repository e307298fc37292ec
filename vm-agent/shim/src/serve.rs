//! The serving process: one thread that answers, reaps and publishes until it is told to stop.

use std::collections::HashMap;
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use containerd_shim_protos::shim_async::{Task, create_task};
use ttrpc::asynchronous::{Server, Service as Methods};

use crate::args::Args;
use crate::container::Surroundings;
use crate::events::Publisher;
use crate::linger::Linger;
use crate::reaper::Reaper;
use crate::service::Service;
use crate::start::Serving;

/// How long events may wait for the supervisor after the shim was told to stop.
const LAST_EVENTS: Duration = Duration::from_secs(30);

/// Free memory that a shim holds on to: most of its life is waiting.
const KEEP: u32 = 64 << 10;

/// Serves until the supervisor asks for the end.
pub fn serve(args: &Args, serving: Serving) -> anyhow::Result<()> {
    longshore_heap::keep_little(KEEP);
    // Spans are a help, not a need.
    drop(longshore_trace::init("shim"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(args, serving))
}

async fn run(args: &Args, serving: Serving) -> anyhow::Result<()> {
    let reaper = Reaper::default();
    let publisher = Publisher::new(&args.namespace);
    let linger = Linger::new();
    let service = Service::new(Surroundings {
        namespace: args.namespace.clone(),
        reaper: reaper.clone(),
        publisher: publisher.clone(),
        linger: linger.clone(),
    });
    tokio::spawn(reaper.run());
    tokio::spawn(publisher.clone().run(events_address(&args.address)));
    // SAFETY: the descriptor is a listener and is handed over for good.
    let server = unsafe { Server::new().add_unix_listener(serving.listener.into_raw_fd()) };
    let mut server = server
        .context("listen")?
        .register_service(methods(&service));
    server.start().await.context("serve")?;
    service.stopped().await;
    // Before anything else: a restarted container's shim takes the same path.
    drop(std::fs::remove_file(&serving.socket));
    // Lets the answer to the shutdown call out.
    drop(server.shutdown().await);
    drop(tokio::time::timeout(LAST_EVENTS, publisher.drained()).await);
    linger.done().await;
    Ok(())
}

/// The supervisor's ttrpc socket: containerd gives it in the environment.
fn events_address(grpc: &str) -> String {
    let given = std::env::var("TTRPC_ADDRESS")
        .ok()
        .filter(|address| !address.is_empty());
    given.unwrap_or_else(|| format!("{grpc}.ttrpc"))
}

/// Versions 2 and 3 of the task API differ only in the service's name.
fn methods(service: &Service) -> HashMap<String, Methods> {
    let create = || create_task(Arc::new(service.clone()) as Arc<dyn Task + Send + Sync>);
    let renamed = create()
        .into_values()
        .map(|m| ("containerd.task.v2.Task".to_owned(), m));
    create().into_iter().chain(renamed).collect()
}
