//! The conversation about published ports, kept for as long as the VM runs.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::line::{self, LineError};
use longshore_protocol::port_news::{News, NewsLine, NewsReply};
use longshore_protocol::{VERSION, ports};
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::sync::watch;

use super::Ports;
use super::policy::MAX_PUBLICATIONS;
use crate::channel::{self, DialError};

/// Between two tries to reach an agent that keeps going away.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum NewsError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the guest's news are not understood: {0}")]
    Line(#[from] LineError),
    #[error("the guest's news have version {0}, this program speaks {VERSION}")]
    Version(u32),
    #[error("the guest asks for {0} ports at once")]
    TooMany(usize),
}

/// Talks to the agent, and to the next one when it dies; never ends by itself.
///
/// The agent opens each conversation with its whole set, so that nothing is lost on either side.
pub async fn follow(channel: &Path, open: Arc<Ports>, default: watch::Receiver<IpAddr>) {
    loop {
        let conversed = async {
            let stream = channel::dial(channel, ports::PORT_NEWS).await?;
            converse(stream, &open, &default).await
        };
        match conversed.await {
            Ok(()) => tracing::info!("the agent closed the news of ports; asking again"),
            Err(error) => tracing::warn!(%error, "the news of ports broke off; asking again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Does what one agent asks for, until it hangs up.
pub async fn converse<S>(
    stream: S,
    ports: &Ports,
    default: &watch::Receiver<IpAddr>,
) -> Result<(), NewsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = BufReader::new(stream);
    while let Some(line) = line::read_json::<NewsLine, _>(&mut stream).await? {
        if line.version != VERSION {
            return Err(NewsError::Version(line.version));
        }
        let address = *default.borrow();
        let results = match line.news {
            News::Publish(publication) => vec![ports.publish(publication, address).await],
            News::Withdraw { key } => {
                ports.withdraw(&key);
                Vec::new()
            }
            News::Sync(set) if set.len() > MAX_PUBLICATIONS => {
                return Err(NewsError::TooMany(set.len()));
            }
            News::Sync(set) => ports.sync(set, address).await,
        };
        line::write_json(
            &mut stream,
            &NewsReply {
                version: VERSION,
                id: line.id,
                results,
            },
        )
        .await?;
    }
    Ok(())
}
