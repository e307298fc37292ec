//! The few words that this process says to the guest's agent: hello at boot, the time, shutdown at the end.

use longshore_channel::{BoxStream, Channel, ChannelError};
use longshore_protocol::{
    VERSION,
    control::{Outcome, Reply, ReplyLine, Request, RequestLine},
    line::{self, LineError},
    ports,
};
use tokio::io::BufReader;

#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("speak with the guest's agent: {0}")]
    Line(#[from] LineError),
    #[error("the guest's agent hung up")]
    Closed,
    #[error("the guest's agent refused: {0}")]
    Refused(String),
}

/// Asks one thing on a connection of its own.
async fn ask(channel: &dyn Channel, request: Request) -> Result<Reply, GuestError> {
    let mut stream: BufReader<BoxStream> = BufReader::new(channel.connect(ports::CONTROL).await?);
    let line = RequestLine {
        version: VERSION,
        id: 1,
        request,
    };
    line::write_json(stream.get_mut(), &line).await?;
    let reply: ReplyLine = line::read_json(&mut stream)
        .await?
        .ok_or(GuestError::Closed)?;
    match reply.outcome {
        Outcome::Ok(reply) => Ok(reply),
        Outcome::Error(reason) => Err(GuestError::Refused(reason)),
    }
}

/// Returns when the agent has answered.
pub async fn hello(channel: &dyn Channel) -> Result<(), GuestError> {
    ask(channel, Request::Hello).await.map(drop)
}

/// Sets its clock, nanoseconds since 1970.
pub async fn set_time(channel: &dyn Channel, unix_ns: u64) -> Result<(), GuestError> {
    ask(channel, Request::SetTime { unix_ns }).await.map(drop)
}

/// Begins an orderly power-off.
pub async fn shut_down(channel: &dyn Channel) -> Result<(), GuestError> {
    ask(channel, Request::Shutdown).await.map(drop)
}
