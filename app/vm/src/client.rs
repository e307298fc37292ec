//! A client of `vm/vm.sock`.

use std::path::{Path, PathBuf};

use longshore_local_socket::{self as local_socket, ReadHalf, WriteHalf};
use longshore_protocol::line::{self, LineError};
use tokio::io::BufReader;

use crate::control::{
    ControlError, Outcome, Reply, ReplyLine, Request, RequestLine, ShareConfig, VersionInfo,
    VmState,
};

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
}

impl Client {
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = local_socket::connect(path)
            .await
            .map_err(|source| ClientError::Connect {
                path: path.into(),
                source,
            })?;
        let (reader, writer) = local_socket::split(stream);
        Ok(Self {
            reader: BufReader::new(reader),
            writer,
            last_id: 0,
        })
    }

    pub async fn version(&mut self) -> Result<VersionInfo, ClientError> {
        match self.request(Request::Version).await? {
            Reply::Version(version) => Ok(version),
            _ => Err(ClientError::Unexpected),
        }
    }

    pub async fn state(&mut self) -> Result<VmState, ClientError> {
        match self.request(Request::State).await? {
            Reply::State(state) => Ok(state),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Turns the connection into a stream of states, the present one first.
    pub async fn watch(mut self) -> Result<Watch, ClientError> {
        self.send(Request::Watch).await?;
        Ok(Watch(self))
    }

    /// Returns when QEMU is gone.
    pub async fn stop(&mut self, deadline_ms: u64, force: bool) -> Result<(), ClientError> {
        self.done(Request::Stop { deadline_ms, force }).await
    }

    pub async fn pause(&mut self) -> Result<(), ClientError> {
        self.done(Request::Pause).await
    }

    pub async fn resume(&mut self) -> Result<(), ClientError> {
        self.done(Request::Resume).await
    }

    pub async fn add_share(&mut self, share: ShareConfig) -> Result<(), ClientError> {
        self.done(Request::AddShare(share)).await
    }

    pub async fn remove_share(&mut self, tag: impl Into<String>) -> Result<(), ClientError> {
        self.done(Request::RemoveShare { tag: tag.into() }).await
    }

    pub async fn grow_disk(&mut self, bytes: u64) -> Result<(), ClientError> {
        self.done(Request::GrowDisk { bytes }).await
    }

    /// Returns when `longshore-vm` has given up its lock and its sockets: the next one can start.
    pub async fn gone(mut self) {
        while matches!(
            line::read_json::<ReplyLine, _>(&mut self.reader).await,
            Ok(Some(_))
        ) {}
    }

    async fn done(&mut self, request: Request) -> Result<(), ClientError> {
        match self.request(request).await? {
            Reply::Done => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    async fn request(&mut self, request: Request) -> Result<Reply, ClientError> {
        self.send(request).await?;
        self.reply().await
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
pub struct Watch(Client);

impl Watch {
    /// The next state; nothing once `longshore-vm` has ended.
    pub async fn next(&mut self) -> Result<Option<VmState>, ClientError> {
        match self.0.reply().await {
            Ok(Reply::State(state)) => Ok(Some(state)),
            Ok(_) => Err(ClientError::Unexpected),
            Err(ClientError::Closed) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
