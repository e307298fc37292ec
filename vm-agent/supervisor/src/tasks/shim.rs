//! A living shim: calls of its task API, and news of its death.

use containerd_shim_protos::protobuf::well_known_types::any::Any as ShimAny;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp as ShimTimestamp;
use containerd_shim_protos::protobuf::{Message, MessageField};
use prost_types::{Any, Timestamp};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tonic::Code;

use super::bundle::{Bootstrap, Bundle};
use super::calls::Calls;
use crate::error::{Error, IoStep, Result};

/// How a task ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    pub pid: u32,
    pub status: u32,
    pub at: Option<Timestamp>,
}

/// alive ── delete ──▶ deleted; alive ── its process dies ──▶ dead
#[derive(Clone, Debug, PartialEq)]
pub enum Life {
    Alive,
    /// Deleted on request: its death is no news.
    Deleted,
    Dead(Exit),
}

pub struct Shim {
    pub bundle: Bundle,
    calls: Calls,
    service: &'static str,
    pub life: watch::Sender<Life>,
    /// Held open for the shim's messages: without a reader, writing them would fail.
    _log: Option<tokio::task::AbortHandle>,
}

impl Shim {
    /// Connects to a shim, and gives back a second connection whose end is the shim's death.
    pub async fn connect(bundle: Bundle, bootstrap: &Bootstrap) -> Result<(Self, UnixStream)> {
        if bootstrap.protocol != "ttrpc" {
            let message = format!("shim protocol {:?}", bootstrap.protocol);
            return Err(Error::Unimplemented(message));
        }
        let service = match bootstrap.version {
            2 => "containerd.task.v2.Task",
            3 => "containerd.task.v3.Task",
            other => return Err(Error::Unimplemented(format!("shim version {other}"))),
        };
        let path = bootstrap.socket();
        let dial = || async {
            UnixStream::connect(path)
                .await
                .step(|| format!("connecting to shim {}", path.display()))
        };
        let (calls, watched) = (dial().await?, dial().await?);
        let log = super::shim_log::follow(&bundle);
        let life = watch::Sender::new(Life::Alive);
        Ok((
            Self {
                bundle,
                calls: Calls::new(calls),
                service,
                life,
                _log: log,
            },
            watched,
        ))
    }

    pub async fn call<Q: Message, R: Message>(&self, method: &str, request: &Q) -> Result<R> {
        let payload = request
            .write_to_bytes()
            .map_err(|e| Error::Other(format!("encoding {method}: {e}")))?;
        let mut call = ttrpc::Request::new();
        call.service = self.service.into();
        call.method = method.into();
        call.payload = payload;
        let pair = |key: &str, value: String| {
            let mut pair = ttrpc::proto::KeyValue::new();
            (pair.key, pair.value) = (key.into(), value);
            pair
        };
        call.metadata.push(pair(
            "containerd-namespace-ttrpc",
            self.bundle.namespace.clone(),
        ));
        if let Some(context) = longshore_trace::current() {
            call.metadata.push(pair("traceparent", context.to_string()));
        }
        let response = self
            .calls
            .request(call)
            .await
            .map_err(|e| call_error(method, e))?;
        R::parse_from_bytes(&response.payload)
            .map_err(|e| Error::Other(format!("decoding the answer to {method}: {e}")))
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if let Some(log) = &self._log {
            log.abort();
        }
    }
}

fn call_error(method: &str, error: ttrpc::Error) -> Error {
    match error {
        ttrpc::Error::RpcStatus(status) => Error::Foreign {
            code: Code::from_i32(status.code.value()),
            message: status.message,
        },
        other => Error::Unavailable(format!("shim: {method}: {other}")),
    }
}

/// Returns when the other end is closed.
pub async fn closed(mut watched: UnixStream) {
    let mut byte = [0];
    while matches!(watched.read(&mut byte).await, Ok(1)) {}
}

pub fn to_shim_any(any: Option<Any>) -> MessageField<ShimAny> {
    any.map(|any| ShimAny {
        type_url: any.type_url,
        value: any.value,
        ..ShimAny::default()
    })
    .into()
}

pub fn from_shim_any(any: MessageField<ShimAny>) -> Option<Any> {
    any.into_option().map(|any| Any {
        type_url: any.type_url,
        value: any.value,
    })
}

pub fn from_shim_time(time: MessageField<ShimTimestamp>) -> Option<Timestamp> {
    time.into_option().map(|time| Timestamp {
        seconds: time.seconds,
        nanos: time.nanos,
    })
}
