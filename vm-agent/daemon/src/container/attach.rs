//! `POST /containers/{id}/attach`: the container's output to a client and the client's input to the container.

use super::output::Output;
use super::record::{Container, Status};
use super::stdio;
use super::store::Entry;
use crate::error::{ApiError, ApiResult};
use crate::http_message::{ApiRequest, ApiResponse};
use crate::server::hijack;
use crate::state::Daemon;
use crate::supervisor::api;
use bytes::{BufMut, Bytes, BytesMut};
use longshore_container_log::{AttachClient, AttachOptions, Start, StreamKind, Streams};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

pub const RAW: &str = "application/vnd.docker.raw-stream";
pub const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
const CHUNK: usize = 32 << 10;

/// Ctrl-P, Ctrl-Q.
const DEFAULT_DETACH_KEYS: [u8; 2] = [16, 17];

/// Docker's frame: stream number, three zeros, length big-endian, payload.
pub fn frame(stream: StreamKind, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + payload.len());
    out.put_slice(&[stream as u8, 0, 0, 0]);
    out.put_u32(payload.len() as u32);
    out.put_slice(payload);
    out.freeze()
}

/// `ctrl-p,ctrl-q`, `a`, `ctrl-@` … → the bytes that a terminal sends.
pub fn parse_detach_keys(text: &str) -> ApiResult<Vec<u8>> {
    let invalid = || ApiError::bad_request(format!("Invalid detach keys ({text}) provided"));
    text.split(',')
        .map(|key| match key.as_bytes() {
            [single] => Ok(*single),
            [b'c', b't', b'r', b'l', b'-', letter] => match letter {
                b'a'..=b'z' => Ok(letter - b'a' + 1),
                b'@' => Ok(0),
                b'[' | b'\\' | b']' | b'^' | b'_' => Ok(letter - b'[' + 27),
                _ => Err(invalid()),
            },
            _ => Err(invalid()),
        })
        .collect()
}

pub async fn serve(daemon: Arc<Daemon>, request: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    // Docker has the connection by then, so its refusals are text.
    let session = Session::new(daemon, &request, &id);
    let mut session = session.map_err(ApiError::as_text)?;
    let tty = session.entry.now().config.tty;
    session.framed = !tty;
    let kind = if tty { RAW } else { MULTIPLEXED };
    // Registered before the client hears anything: it starts the container right after.
    let joining = session.join();
    hijack(request, kind, |connection| async move {
        if let Err(error) = session.run(connection, joining).await {
            tracing::debug!(%error, "attach ended");
        }
    })
}

/// Where the output comes from.
pub enum Joining {
    /// The container runs.
    Now,
    /// It is to be started.
    WhenStarted(oneshot::Receiver<oneshot::Sender<()>>),
}

pub struct Session {
    daemon: Arc<Daemon>,
    entry: Arc<Entry>,
    stream: bool,
    logs: bool,
    stdin: bool,
    streams: Streams,
    detach_keys: Vec<u8>,
    /// Docker's frames say which output a piece is of; a terminal and a WebSocket have none.
    framed: bool,
}

impl Session {
    /// As the query asks; refused in Docker's words when the container is paused or restarting.
    pub fn new(daemon: Arc<Daemon>, request: &ApiRequest, id: &str) -> ApiResult<Self> {
        let entry = daemon.containers.entry(id)?;
        let container = entry.now();
        let query = &request.query;
        let detach_keys = match query.non_empty("detachKeys") {
            Some(text) => parse_detach_keys(text)?,
            None => DEFAULT_DETACH_KEYS.to_vec(),
        };
        if container.state.status == Status::Paused {
            return Err(ApiError::conflict(format!(
                "container {id} is paused, unpause the container before attach"
            )));
        }
        if container.state.status == Status::Restarting {
            return Err(ApiError::conflict(format!(
                "container {id} is restarting, wait until the container is running"
            )));
        }
        Ok(Session {
            daemon,
            stream: query.flag("stream"),
            logs: query.flag("logs"),
            stdin: query.flag("stdin") && container.config.open_stdin,
            streams: Streams {
                stdout: query.flag("stdout"),
                stderr: query.flag("stderr"),
                wake: false,
            },
            detach_keys,
            entry,
            framed: false,
        })
    }

    /// Takes the place in the output from which on nothing is missed.
    pub fn join(&self) -> Joining {
        let mut live = self.entry.live();
        match self.entry.now().running {
            true => Joining::Now,
            false => {
                let (sender, receiver) = oneshot::channel();
                live.attaching.push(sender);
                Joining::WhenStarted(receiver)
            }
        }
    }

    /// Copies both ways until the output ends or the client detaches.
    pub async fn run<C>(self, connection: C, joining: Joining) -> ApiResult<()>
    where
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let container = self.entry.now();
        let (reader, mut writer) = tokio::io::split(connection);
        if self.logs {
            super::logs::replay(&self.daemon, &container, self.streams, &mut writer).await?;
        }
        if !self.stream {
            return Ok(writer.shutdown().await?);
        }
        let (output, acknowledge) = match joining {
            Joining::Now => (self.connect(Start::Now).await?, None),
            Joining::WhenStarted(started) => {
                // The sender is dropped when the start fails or the container is removed.
                let mut removed = self.entry.removed.subscribe();
                let started = tokio::select! {
                    started = started => started,
                    _ = removed.wait_for(|gone| *gone) => return Ok(()),
                };
                let Ok(acknowledge) = started else {
                    return Ok(writer.shutdown().await?);
                };
                (self.connect(Start::Oldest).await?, Some(acknowledge))
            }
        };
        let input = match self.stdin {
            true => Some(stdio::open_stdin(&self.stdin_path(&container))?),
            false => None,
        };
        if let Some(acknowledge) = acknowledge {
            let _ = acknowledge.send(());
        }
        self.daemon.containers.publish(&container, "attach", &[]);
        let copy = copy_output(Output::Log(output), &mut writer, !self.framed);
        let detached = match input {
            None => {
                copy.await;
                false
            }
            Some(input) => {
                let keys = if container.config.tty {
                    self.detach_keys.as_slice()
                } else {
                    &[]
                };
                let feed = self.feed(&container, reader, input, keys);
                tokio::select! {
                    () = copy => false,
                    detached = feed => detached,
                }
            }
        };
        if detached {
            self.daemon.containers.publish(&container, "detach", &[]);
        }
        Ok(writer.shutdown().await?)
    }

    fn stdin_path(&self, container: &Container) -> PathBuf {
        self.daemon
            .containers
            .runtime_folder(&container.id)
            .join("stdin")
    }

    async fn connect(&self, start: Start) -> ApiResult<AttachClient> {
        let folder = self.daemon.containers.folder(&self.entry.now().id);
        let options = AttachOptions {
            streams: self.streams,
            start,
            ..AttachOptions::default()
        };
        AttachClient::connect(&folder, options)
            .await
            .map_err(|error| {
                ApiError::internal(format!("connecting to the container's output: {error}"))
            })
    }

    /// The client's input to the container, until its end (then pends, output goes on) or the detach keys (true).
    async fn feed<R: AsyncRead + Unpin>(
        &self,
        container: &Container,
        reader: R,
        input: pipe::Sender,
        keys: &[u8],
    ) -> bool {
        if copy_input(reader, input, keys).await {
            return true;
        }
        if container.config.stdin_once && !container.config.tty {
            close_stdin(&self.daemon, &container.id, "").await;
        }
        std::future::pending().await
    }
}

/// Tells the shim that no more input comes.
pub async fn close_stdin(daemon: &Daemon, id: &str, exec_id: &str) {
    let request = api::CloseIoRequest {
        container_id: id.to_owned(),
        exec_id: exec_id.to_owned(),
        stdin: true,
    };
    let closed = daemon.supervisor.retry(|supervisor| {
        let request = request.clone();
        async move { supervisor.tasks().close_io(request).await }
    });
    if let Err(status) = closed.await {
        tracing::debug!(%status, id, exec_id, "closing input");
    }
}

/// Copies output until it ends or the client has gone. A terminal's is raw, others' is framed.
pub async fn copy_output<W: AsyncWrite + Unpin>(mut output: Output, writer: &mut W, tty: bool) {
    while let Some((stream, bytes)) = output.next().await {
        let bytes = if tty { bytes } else { frame(stream, &bytes) };
        if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
}

/// Copies input until its end (false) or until the detach keys came in one row (true).
pub async fn copy_input<R: AsyncRead + Unpin>(
    mut reader: R,
    mut input: pipe::Sender,
    keys: &[u8],
) -> bool {
    let mut buffer = vec![0; CHUNK];
    let mut detector = Detector::new(keys);
    loop {
        let count = match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return false,
            Ok(count) => count,
        };
        let (pass, detached) = detector.filter(&buffer[..count]);
        if input.write_all(&pass).await.is_err() {
            return false;
        }
        if detached {
            return true;
        }
    }
}

/// Finds the detach keys in a stream of typed bytes; holds back what may be their beginning.
struct Detector<'a> {
    keys: &'a [u8],
    matched: usize,
}

impl<'a> Detector<'a> {
    fn new(keys: &'a [u8]) -> Self {
        Detector { keys, matched: 0 }
    }

    fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        if self.keys.is_empty() {
            return (typed.to_vec(), false);
        }
        let mut pass = Vec::with_capacity(typed.len());
        for byte in typed {
            if *byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (pass, true);
                }
                continue;
            }
            pass.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(*byte == self.keys[0]);
            if self.matched == 0 {
                pass.push(*byte);
            }
        }
        (pass, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_dockers() {
        assert_eq!(
            &frame(StreamKind::Stderr, b"hi")[..],
            b"\x02\0\0\0\0\0\0\x02hi"
        );
    }

    #[test]
    fn detach_keys_parse() {
        let table = [
            ("ctrl-p,ctrl-q", Some(vec![16, 17])),
            ("a", Some(vec![b'a'])),
            ("ctrl-@,ctrl-[,x", Some(vec![0, 27, b'x'])),
            ("ctrl-1", None),
            ("abc", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_detach_keys(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn the_detector_holds_back_only_what_may_be_keys() {
        let mut detector = Detector::new(&[16, 17]);
        let table: [(&[u8], &[u8], bool); 5] = [
            (b"ab", b"ab", false),
            (b"\x10", b"", false),
            (b"x", b"\x10x", false),
            (b"\x10\x10", b"\x10", false),
            (b"\x11rest", b"", true),
        ];
        for (typed, pass, detached) in table {
            assert_eq!(
                detector.filter(typed),
                (pass.to_vec(), detached),
                "{typed:?}"
            );
        }
    }
}
