//! Requests to the agent in the guest, on its control port.

use std::path::Path;
use std::time::Duration;

use longshore_protocol::control::{Outcome, Reply, ReplyLine, Request, RequestLine};
use longshore_protocol::line::{self, LineError};
use longshore_protocol::{VERSION, ports};
use tokio::io::{AsyncRead, AsyncWrite, BufReader};

use crate::channel::{self, DialError};

#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the agent's answer is not understood: {0}")]
    Line(#[from] LineError),
    #[error("the agent closed the connection without an answer")]
    Closed,
    #[error("the agent speaks version {0}, this program {VERSION}")]
    Version(u32),
    #[error("{0}")]
    Refused(String),
    #[error("the agent gave another answer than was asked for")]
    Unexpected,
    #[error("the agent did not answer within {} s", .0.as_secs())]
    Silent(Duration),
}

/// One request on a connection of its own.
pub async fn ask(
    channel: &Path,
    request: Request,
    patience: Duration,
) -> Result<Reply, GuestError> {
    let exchange = async {
        let stream = channel::dial(channel, ports::CONTROL).await?;
        exchange(stream, request).await
    };
    tokio::time::timeout(patience, exchange)
        .await
        .map_err(|_| GuestError::Silent(patience))?
}

/// One request to whatever the agent's port leads to; waits as long as other answers come.
pub async fn exchange<S>(stream: S, request: Request) -> Result<Reply, GuestError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = BufReader::new(stream);
    let id = 1;
    line::write_json(
        &mut stream,
        &RequestLine {
            version: VERSION,
            id,
            request,
        },
    )
    .await?;
    while let Some(reply) = line::read_json::<ReplyLine, _>(&mut stream).await? {
        if reply.version != VERSION {
            return Err(GuestError::Version(reply.version));
        }
        if reply.id != id {
            continue;
        }
        return match reply.outcome {
            Outcome::Ok(reply) => Ok(reply),
            Outcome::Error(why) => Err(GuestError::Refused(why)),
        };
    }
    Err(GuestError::Closed)
}
