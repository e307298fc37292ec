//! `GET /containers/{id}/attach/ws`: the same as attach over a WebSocket, both outputs as they come, in binary messages.

use super::attach::Session;
use crate::error::ApiResult;
use crate::http_message::{ApiRequest, ApiResponse};
use crate::server::hijack_websocket;
use crate::state::Daemon;
use bytes::BytesMut;
use futures::{SinkExt, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

const CHUNK: usize = 32 << 10;
/// No client types more at once.
const MESSAGE_LIMIT: usize = 4 << 20;
/// What a client sent right before it went still reaches the container.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub async fn serve(daemon: Arc<Daemon>, request: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    let session = Session::new(daemon, &request, &id)?;
    let joining = session.join();
    hijack_websocket(request, |connection| async move {
        let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_LIMIT));
        let socket = WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await;
        let (ours, theirs) = tokio::io::duplex(CHUNK);
        let attached = async {
            if let Err(error) = session.run(theirs, joining).await {
                tracing::debug!(%error, "attach ended");
            }
        };
        tokio::join!(attached, relay(socket, ours));
    })
}

/// Bytes of `ours` as messages, and messages as bytes, until either side ends.
async fn relay<S, C>(socket: WebSocketStream<S>, ours: C)
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: AsyncRead + AsyncWrite,
{
    let (mut sink, mut messages) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(ours);
    let output = async {
        loop {
            let mut buffer = BytesMut::with_capacity(CHUNK);
            match reader.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            if sink.send(Message::Binary(buffer.freeze())).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    };
    let input = async {
        while let Some(Ok(message)) = messages.next().await {
            let bytes = match message {
                Message::Binary(_) | Message::Text(_) => message.into_data(),
                Message::Close(_) => break,
                _ => continue,
            };
            if writer.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = writer.shutdown().await;
        // A WebSocket is closed both ways.
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::select! {
        () = output => {}
        () = input => {}
    }
}
