//! QEMU's monitor: commands of the `qapi` crate's schema, events as they come.
//!
//! The `qapi` crate's own stream ends at the first event that its schema (QEMU 9.1) does not know, and QEMU 11 sends such;
//! so the lines are read here, and only commands and their answers are typed.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
};

use longshore_protocol::line::{self, LineError};
use qapi::Command;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, WriteHalf},
    sync::{mpsc, oneshot},
};

/// `query-…` answers are the longest lines; the bound is the shared reader's.
const EVENTS: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    #[error("read QEMU's greeting: {0}")]
    Greeting(#[source] LineError),
    #[error("QEMU ended before it greeted")]
    NoGreeting,
    #[error("send {command} to QEMU: {source}")]
    Send { command: String, source: io::Error },
    #[error("QEMU refused {command}: {reason}")]
    Refused { command: String, reason: String },
    #[error("QEMU ended before it answered {command}")]
    Gone { command: String },
    #[error("QEMU's answer to {command} is not as expected: {source}")]
    Answer {
        command: String,
        source: serde_json::Error,
    },
}

/// Something that QEMU tells of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub name: String,
    pub data: Value,
}

type Pending = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Result<Value, String>>>>>>;

/// A monitor that has been greeted.
pub struct Qmp<S> {
    writer: tokio::sync::Mutex<(WriteHalf<S>, u64)>,
    pending: Pending,
}

/// Greets QEMU; the receiver gets its events, and ends with QEMU.
pub async fn connect<S>(stream: S) -> Result<(Qmp<S>, mpsc::Receiver<Event>), QmpError>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    let mut reader = BufReader::new(reader);
    let _greeting: Value = line::read_json(&mut reader)
        .await
        .map_err(QmpError::Greeting)?
        .ok_or(QmpError::NoGreeting)?;
    let pending: Pending = Arc::new(Mutex::new(Some(HashMap::new())));
    let (events, receiver) = mpsc::channel(EVENTS);
    let reading = pending.clone();
    tokio::spawn(async move {
        read_lines(reader, &reading, events).await;
        // Drops the senders: whoever waits for an answer learns that QEMU is gone.
        lock(&reading).take();
    });
    let qmp = Qmp {
        writer: tokio::sync::Mutex::new((writer, 0)),
        pending,
    };
    qmp.raw("qmp_capabilities", json!({})).await?;
    Ok((qmp, receiver))
}

fn lock(
    pending: &Pending,
) -> std::sync::MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Result<Value, String>>>>> {
    pending
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

async fn read_lines(
    mut reader: impl tokio::io::AsyncBufRead + Unpin,
    pending: &Pending,
    events: mpsc::Sender<Event>,
) {
    loop {
        let mut message: Value = match line::read_json(&mut reader).await {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "QEMU's monitor is not readable");
                return;
            }
        };
        if let Some(name) = message["event"].as_str() {
            let event = Event {
                name: name.into(),
                data: message["data"].take(),
            };
            if events.send(event).await.is_err() {
                return;
            }
            continue;
        }
        let Some(id) = message["id"].as_u64() else {
            continue;
        };
        let answer = match message.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => Err(message["error"]["desc"]
                .as_str()
                .unwrap_or("no reason given")
                .to_owned()),
        };
        if let Some(sender) = lock(pending)
            .as_mut()
            .and_then(|pending| pending.remove(&id))
        {
            // Nobody waits any more when a request was given up.
            let _ = sender.send(answer);
        }
    }
}

impl<S: AsyncWrite> Qmp<S> {
    /// A command of the schema.
    pub async fn execute<C: Command>(&self, command: C) -> Result<C::Ok, QmpError> {
        let arguments = serde_json::to_value(&command).map_err(|source| QmpError::Answer {
            command: C::NAME.into(),
            source,
        })?;
        let answer = self.raw(C::NAME, arguments).await?;
        serde_json::from_value(answer).map_err(|source| QmpError::Answer {
            command: C::NAME.into(),
            source,
        })
    }

    /// Any command.
    pub async fn raw(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let gone = || QmpError::Gone {
            command: command.into(),
        };
        let (sender, receiver) = oneshot::channel();
        {
            let mut writer = self.writer.lock().await;
            writer.1 += 1;
            let id = writer.1;
            lock(&self.pending)
                .as_mut()
                .ok_or_else(gone)?
                .insert(id, sender);
            let mut line =
                json!({"execute": command, "arguments": arguments, "id": id}).to_string();
            line.push('\n');
            let sent = writer.0.write_all(line.as_bytes()).await;
            sent.map_err(|source| QmpError::Send {
                command: command.into(),
                source,
            })?;
        }
        receiver
            .await
            .map_err(|_| gone())?
            .map_err(|reason| QmpError::Refused {
                command: command.into(),
                reason,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt, duplex};

    #[tokio::test]
    async fn commands_events_and_the_end() {
        let (near, far) = duplex(4096);
        let qemu = tokio::spawn(async move {
            let (reader, mut writer) = tokio::io::split(far);
            let mut lines = BufReader::new(reader).lines();
            let greeting = r#"{"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7}}}}"#;
            writer
                .write_all(format!("{greeting}\n").as_bytes())
                .await
                .unwrap();
            for reply in [
                r#"{"return":{},"id":1}"#,
                "{\"event\":\"NEWER_THAN_US\",\"data\":{\"a\":1}}\n{\"return\":{},\"id\":2}",
                r#"{"error":{"class":"GenericError","desc":"no such device"},"id":3}"#,
            ] {
                lines.next_line().await.unwrap().unwrap();
                writer
                    .write_all(format!("{reply}\n").as_bytes())
                    .await
                    .unwrap();
            }
            lines.next_line().await.unwrap().unwrap();
        });
        let (qmp, mut events) = connect(near).await.unwrap();
        qmp.execute(qapi::qmp::stop {}).await.unwrap();
        let event = events.recv().await.unwrap();
        assert_eq!(
            (event.name.as_str(), &event.data["a"]),
            ("NEWER_THAN_US", &json!(1))
        );
        let refused = qmp.raw("device_del", json!({"id": "x"})).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "QEMU refused device_del: no such device"
        );
        let gone = qmp.execute(qapi::qmp::cont {}).await.unwrap_err();
        assert!(matches!(gone, QmpError::Gone { .. }));
        assert!(events.recv().await.is_none());
        qemu.await.unwrap();
    }
}
