//! Serves `vm/vm.sock`.

use longshore_local_socket::{Listener, Stream, WriteHalf, split};
use longshore_protocol::line;
use tokio::{
    io::BufReader,
    sync::{mpsc, oneshot, watch},
};

use crate::{
    control::{
        self, ControlError, ErrorCode, Outcome, Reply, ReplyLine, Request, RequestLine,
        VersionInfo, VmState,
    },
    machine::Command,
};

/// What a connection needs of the machine.
#[derive(Clone)]
pub struct Handle {
    pub state: watch::Receiver<VmState>,
    pub commands: mpsc::Sender<Command>,
}

/// Serves until the task is dropped; connections end with the machine.
pub async fn serve(mut listener: Listener, handle: Handle) {
    loop {
        match listener.accept().await {
            Ok(stream) => {
                let handle = handle.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve_client(stream, handle).await {
                        tracing::debug!(%error, "a client of the control socket");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors: some must be closed first.
                tracing::warn!(%error, "accept on the control socket");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_client(stream: Stream, mut handle: Handle) -> Result<(), line::LineError> {
    let (reader, mut writer) = split(stream);
    let mut reader = BufReader::new(reader);
    loop {
        let line: RequestLine = match line::read_json(&mut reader).await {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(()),
            Err(line::LineError::Parse(error)) => {
                let message = format!("the line is no request: {error}");
                let error = ControlError {
                    code: ErrorCode::BadRequest,
                    message,
                };
                reply(&mut writer, 0, Outcome::Error(error)).await?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let outcome = match line.request {
            Request::Version => Outcome::Ok(Reply::Version(version())),
            Request::State => Outcome::Ok(Reply::State(handle.state.borrow().clone())),
            Request::Watch => return watch(&mut writer, line.id, &mut handle.state).await,
            request => execute(&handle, request).await,
        };
        reply(&mut writer, line.id, outcome).await?;
    }
}

fn version() -> VersionInfo {
    VersionInfo {
        protocol: control::VERSION,
        vm: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
    }
}

async fn reply(writer: &mut WriteHalf, id: u64, outcome: Outcome) -> Result<(), line::LineError> {
    line::write_json(writer, &ReplyLine { id, outcome }).await
}

async fn watch(
    writer: &mut WriteHalf,
    id: u64,
    state: &mut watch::Receiver<VmState>,
) -> Result<(), line::LineError> {
    loop {
        let now = state.borrow_and_update().clone();
        reply(writer, id, Outcome::Ok(Reply::State(now))).await?;
        if state.changed().await.is_err() {
            return Ok(());
        }
    }
}

async fn execute(handle: &Handle, request: Request) -> Outcome {
    let stops = matches!(request, Request::Stop { .. });
    let (answer, answered) = oneshot::channel();
    // A machine that has ended drops the command, and with it the answer's sender.
    let _ = handle.commands.send(Command { request, answer }).await;
    match answered.await {
        Ok(Ok(())) => Outcome::Ok(Reply::Done),
        Ok(Err(error)) => Outcome::Error(error),
        // The machine has ended: what was to be stopped is.
        Err(_) if stops => Outcome::Ok(Reply::Done),
        Err(_) => {
            let message = "the VM has ended".into();
            Outcome::Error(ControlError {
                code: ErrorCode::WrongState,
                message,
            })
        }
    }
}
