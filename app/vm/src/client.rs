//! A client of `vm/vm.sock`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use longshore_local_socket::{self as local_socket, ReadHalf, WriteHalf};
use longshore_protocol::line::{self, LineError};
use tokio::io::BufReader;
use tokio::time::timeout;

use crate::control::{
    ControlError, Outcome, Reply, ReplyLine, Request, RequestLine, ShareConfig, VersionInfo,
    VmState,
};

/// What `longshore-vm` knows by itself is told at once; the limit is for a machine that is busy with everything else.
const AT_ONCE: Duration = Duration::from_secs(20);
/// What QEMU has to do first, beside the time that a stop is given: longer than `longshore-vm` itself waits for it.
const WITH_QEMU: Duration = Duration::from_secs(30);

/// Why a request had no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("connect to {path}: {source}", path = path.display())]
    Connect {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("speak with longshore-vm: {0}")]
    Line(#[from] LineError),
    #[error("longshore-vm closed the connection")]
    Closed,
    #[error("longshore-vm takes requests and does not answer")]
    Silent,
    #[error("longshore-vm answered something else than was asked")]
    Unexpected,
    #[error(transparent)]
    Refused(#[from] ControlError),
}

/// One connection; requests go one after the other.
pub struct Client {
    reader: BufReader<ReadHalf>,
    writer: WriteHalf,
    last_id: u64,
    process: Option<u32>,
}

impl Client {
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = local_socket::connect(path)
            .await
            .map_err(|source| ClientError::Connect {
                path: path.into(),
                source,
            })?;
        let process = local_socket::server_process(&stream);
        let (reader, writer) = local_socket::split(stream);
        Ok(Self {
            process,
            reader: BufReader::new(reader),
            writer,
            last_id: 0,
        })
    }

    /// The number of `longshore-vm`'s process, where the system tells.
    pub fn process(&self) -> Option<u32> {
        self.process
    }

    pub async fn version(&mut self) -> Result<VersionInfo, ClientError> {
        match self.request(Request::Version, AT_ONCE).await? {
            Reply::Version(version) => Ok(version),
            _ => Err(ClientError::Unexpected),
        }
    }

    pub async fn state(&mut self) -> Result<VmState, ClientError> {
        match self.request(Request::State, AT_ONCE).await? {
            Reply::State(state) => Ok(state),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Turns the connection into a stream of states, the present one first.
    pub async fn watch(mut self) -> Result<Watch, ClientError> {
        match self.request(Request::Watch, AT_ONCE).await? {
            Reply::State(present) => Ok(Watch {
                client: self,
                present: Some(present),
            }),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Returns when QEMU is gone.
    pub async fn stop(&mut self, deadline_ms: u64, force: bool) -> Result<(), ClientError> {
        let limit = WITH_QEMU + Duration::from_millis(deadline_ms);
        let request = Request::Stop { deadline_ms, force };
        self.done(request, limit).await
    }

    pub async fn pause(&mut self) -> Result<(), ClientError> {
        self.done(Request::Pause, WITH_QEMU).await
    }

    pub async fn resume(&mut self) -> Result<(), ClientError> {
        self.done(Request::Resume, WITH_QEMU).await
    }

    pub async fn add_share(&mut self, share: ShareConfig) -> Result<(), ClientError> {
        self.done(Request::AddShare(share), WITH_QEMU).await
    }

    pub async fn remove_share(&mut self, tag: impl Into<String>) -> Result<(), ClientError> {
        let request = Request::RemoveShare { tag: tag.into() };
        self.done(request, WITH_QEMU).await
    }

    pub async fn grow_disk(&mut self, bytes: u64) -> Result<(), ClientError> {
        self.done(Request::GrowDisk { bytes }, WITH_QEMU).await
    }

    /// Returns when `longshore-vm` has given up its lock and its sockets: the next one can start.
    pub async fn gone(mut self) {
        while matches!(
            line::read_json::<ReplyLine, _>(&mut self.reader).await,
            Ok(Some(_))
        ) {}
    }

    async fn done(&mut self, request: Request, limit: Duration) -> Result<(), ClientError> {
        match self.request(request, limit).await? {
            Reply::Done => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// After an answer that did not come in time, the connection is of no more use.
    async fn request(&mut self, request: Request, limit: Duration) -> Result<Reply, ClientError> {
        let exchange = async {
            self.send(request).await?;
            self.reply().await
        };
        timeout(limit, exchange)
            .await
            .unwrap_or(Err(ClientError::Silent))
    }

    async fn send(&mut self, request: Request) -> Result<(), ClientError> {
        self.last_id += 1;
        let line = RequestLine {
            id: self.last_id,
            request,
        };
        Ok(line::write_json(&mut self.writer, &line).await?)
    }

    async fn reply(&mut self) -> Result<Reply, ClientError> {
        let line: ReplyLine = line::read_json(&mut self.reader)
            .await?
            .ok_or(ClientError::Closed)?;
        if line.id != self.last_id {
            return Err(ClientError::Unexpected);
        }
        match line.outcome {
            Outcome::Ok(reply) => Ok(reply),
            Outcome::Error(error) => Err(error.into()),
        }
    }
}

/// The states of a VM as they come.
pub struct Watch {
    client: Client,
    /// Until it is asked for.
    present: Option<VmState>,
}

impl Watch {
    /// The next state; nothing once `longshore-vm` has ended.
    pub async fn next(&mut self) -> Result<Option<VmState>, ClientError> {
        if let Some(present) = self.present.take() {
            return Ok(Some(present));
        }
        match self.client.reply().await {
            Ok(Reply::State(state)) => Ok(Some(state)),
            Ok(_) => Err(ClientError::Unexpected),
            Err(ClientError::Closed) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
