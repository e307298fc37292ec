//! The channel's two transports, and who serves which port.

use crate::setup::Agent;
use crate::{carrier, config, contract, control, dial, logs, shell, splice, status};
use longshore_protocol::config::{CHANNEL_PARAMETER, SELFTEST_PARAMETER};
use longshore_protocol::mux::{Limits, Mux, Refusal, Role};
use longshore_protocol::ports;
use nix::sys::socket::{Backlog, listen};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener};

/// A stream from the host, whatever carries it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

const PORTS: &[u32] = &[
    ports::CONTROL,
    ports::DOCKER,
    ports::CONTAINERD,
    ports::DIAL,
    ports::SHELL,
    ports::LOGS,
    ports::PORT_NEWS,
];

#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("open the virtio-serial port: {0}")]
    Open(#[source] io::Error),
    #[error("watch the virtio-serial port: {0}")]
    Watch(#[source] io::Error),
    #[error("listen on vsock port {port}: {source}")]
    Listen { port: u32, source: io::Error },
    #[error("accept on vsock port {port}: {source}")]
    Accept { port: u32, source: io::Error },
    #[error("the kernel command line's {CHANNEL_PARAMETER}={0} is neither serial nor vsock")]
    Unknown(String),
}

/// Serves for ever.
pub async fn serve(agent: Arc<Agent>) -> Result<(), ChannelError> {
    let selftest = config::kernel_parameter(SELFTEST_PARAMETER).as_deref() == Some("1");
    match config::kernel_parameter(CHANNEL_PARAMETER).as_deref() {
        None | Some("serial") => serve_serial(agent, selftest).await,
        Some("vsock") => serve_vsock(agent, selftest).await,
        Some(other) => Err(ChannelError::Unknown(other.into())),
    }
}

/// One multiplexer for each connection of the host to the port.
async fn serve_serial(agent: Arc<Agent>, selftest: bool) -> Result<(), ChannelError> {
    let port = carrier::open().await.map_err(ChannelError::Open)?;
    status::stage("channel");
    loop {
        let (reader, writer) = carrier::halves(&port).map_err(ChannelError::Watch)?;
        let mux = Mux::from_halves(reader, writer, Role::Guest, Limits::default());
        while let Some(incoming) = mux.accept().await {
            let number = incoming.port();
            if listens(number, selftest) {
                spawn(agent.clone(), number, incoming.accept());
            } else {
                incoming.refuse(Refusal::NoListener);
            }
        }
        tracing::info!("the host has left the channel");
    }
}

async fn serve_vsock(agent: Arc<Agent>, selftest: bool) -> Result<(), ChannelError> {
    let tests = (ports::CONTRACT_TEST..ports::CONTRACT_TEST + 99)
        .filter(|port| selftest && contract::listens(*port));
    let mut accepting = tokio::task::JoinSet::new();
    for port in PORTS.iter().copied().chain(tests) {
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))
            .and_then(|listener| lengthen_backlog(&listener).map(|()| listener))
            .map_err(|source| ChannelError::Listen { port, source })?;
        accepting.spawn(accept_vsock(agent.clone(), port, listener));
    }
    status::stage("channel");
    match accepting.join_next().await {
        Some(Ok(result)) => result,
        _ => Ok(()),
    }
}

/// The crate's 128 are soon full when many clients come at once, and who finds no place there is told that nobody listens.
fn lengthen_backlog(listener: &VsockListener) -> io::Result<()> {
    Ok(listen(&listener.as_fd(), Backlog::MAXALLOWABLE)?)
}

async fn accept_vsock(
    agent: Arc<Agent>,
    port: u32,
    listener: VsockListener,
) -> Result<(), ChannelError> {
    loop {
        match std::future::poll_fn(|context| listener.poll_accept(context)).await {
            Ok((stream, peer)) if peer.cid() == VMADDR_CID_HOST => {
                spawn(agent.clone(), port, stream)
            }
            Ok((_, peer)) => tracing::warn!(
                port,
                cid = peer.cid(),
                "a connection that is not the host's was dropped"
            ),
            // The connection that was to be accepted is gone already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(source) => return Err(ChannelError::Accept { port, source }),
        }
    }
}

fn listens(port: u32, selftest: bool) -> bool {
    PORTS.contains(&port) || (selftest && contract::listens(port))
}

fn spawn(agent: Arc<Agent>, port: u32, stream: impl Stream) {
    tokio::spawn(async move {
        let result: anyhow::Result<()> = match port {
            ports::CONTROL => control::serve(agent, stream).await.map_err(Into::into),
            ports::DOCKER => splice::to_socket(stream, "/run/docker.sock")
                .await
                .map_err(Into::into),
            ports::CONTAINERD => splice::to_socket(stream, "/run/containerd/containerd.sock")
                .await
                .map_err(Into::into),
            ports::DIAL => dial::serve(stream).await.map_err(Into::into),
            ports::SHELL => shell::serve(stream).await.map_err(Into::into),
            ports::LOGS => logs::serve(stream).await.map_err(Into::into),
            ports::PORT_NEWS => {
                agent.news.host_connected(stream).await;
                Ok(())
            }
            test => contract::serve(test, stream).await.map_err(Into::into),
        };
        if let Err(error) = result {
            // A peer that goes away in mid-stream is everyday life.
            tracing::debug!(port, "{error:#}");
        }
    });
}
