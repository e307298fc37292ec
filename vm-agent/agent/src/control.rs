//! The host's requests on the control port.

use crate::channel::Stream;
use crate::setup::Agent;
use crate::{clock, config, layers, shares, stats, status, traces};
use longshore_protocol::control::*;
use longshore_protocol::line::{LineError, read_json, write_json};
use longshore_protocol::{VERSION, check_version};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::sync::Arc;
use tokio::io::BufReader;
use tokio::sync::mpsc;

/// Requests that one connection may have in work.
const AT_ONCE: usize = 64;

/// Answers requests side by side until the host closes.
pub async fn serve(agent: Arc<Agent>, stream: impl Stream) -> Result<(), LineError> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = BufReader::new(reader);
    let (replies, mut outgoing) = mpsc::channel::<ReplyLine>(AT_ONCE);
    let read = async move {
        while let Some(line) = read_json::<RequestLine, _>(&mut reader).await? {
            // Waits while too many are in work: each holds a place until it has answered.
            let Ok(place) = replies.clone().reserve_owned().await else {
                break;
            };
            let agent = agent.clone();
            tokio::spawn(async move {
                let id = line.id;
                let outcome = match check_version(line.version) {
                    Ok(()) => answer(&agent, line.request).await,
                    Err(mismatch) => Outcome::Error(mismatch.to_string()),
                };
                place.send(ReplyLine {
                    version: VERSION,
                    id,
                    outcome,
                });
            });
        }
        Ok(())
    };
    let write = async {
        while let Some(reply) = outgoing.recv().await {
            write_json(&mut writer, &reply).await?;
        }
        Ok(())
    };
    // The writer ends by itself when the reader and all answers are done.
    tokio::try_join!(read, write).map(drop)
}

async fn answer(agent: &Agent, request: Request) -> Outcome {
    let result: anyhow::Result<Reply> = match request {
        Request::Hello => Ok(Reply::Hello(hello())),
        Request::Status => Ok(Reply::Status(status::gather(agent))),
        Request::WaitReady => agent
            .settled()
            .await
            .map(|()| Reply::Status(status::gather(agent)))
            .map_err(Into::into),
        // A mount asks the host's file server, which may take its time.
        Request::MountShare(share) => blocking(move || shares::add(&share)).await,
        Request::UnmountShare { tag } => blocking(move || shares::remove(&tag)).await,
        Request::SetTime { unix_ns } => clock::follow(unix_ns)
            .map(|()| Reply::Done)
            .map_err(Into::into),
        Request::Configure { daemon_json } => configure(daemon_json).map(|()| Reply::Done),
        Request::Shutdown => kill(Pid::from_raw(1), Signal::SIGTERM)
            .map(|()| Reply::Done)
            .map_err(Into::into),
        Request::Stats => Ok(Reply::Stats(stats::gather())),
        Request::Trace { trace_id } => Ok(Reply::Spans(traces::spans(&trace_id))),
        Request::Requests { most } => Ok(Reply::Spans(traces::requests(most))),
        Request::Layers => Ok(Reply::Layers(layers::gather())),
        Request::KillService { service } => layers::kill_service(service).map(|()| Reply::Done),
    };
    match result {
        Ok(reply) => Outcome::Ok(reply),
        Err(error) => {
            tracing::warn!("{error:#}");
            Outcome::Error(format!("{error:#}"))
        }
    }
}

async fn blocking<E>(work: impl FnOnce() -> Result<(), E> + Send + 'static) -> anyhow::Result<Reply>
where
    E: std::error::Error + Send + Sync + 'static,
{
    tokio::task::spawn_blocking(work).await??;
    Ok(Reply::Done)
}

fn hello() -> Hello {
    let names = nix::sys::utsname::uname();
    let text = |name: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        names.as_ref().map_or_else(
            |_| String::new(),
            |names| name(names).to_string_lossy().into_owned(),
        )
    };
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Hello {
        agent: env!("CARGO_PKG_VERSION").into(),
        kernel: text(|names| names.release()),
        architecture: text(|names| names.machine()),
        boot_id: boot_id.trim().into(),
    }
}

/// The daemon reads its part of the configuration again on SIGHUP; one that is being restarted reads it anyway.
fn configure(daemon_json: serde_json::Value) -> anyhow::Result<()> {
    let mut config = config::load();
    config.daemon_json = daemon_json;
    config::save(&config)?;
    let daemon = status::services()
        .into_iter()
        .find(|service| service.name == "daemon");
    if let Some(pid) = daemon.and_then(|daemon| daemon.pid) {
        kill(Pid::from_raw(pid as i32), Signal::SIGHUP)?;
    }
    Ok(())
}
