//! What the agent and the engine answer: JSON lines, shell frames, HTTP, and the guest's console.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use longshore_channel::{BoxStream, Channel, ChannelError, Listener, hybrid};
use longshore_host::{engine, guest, layers, ports};
use longshore_protocol::control::{Reply, Request};
use longshore_protocol::dial::DialReply;
use longshore_protocol::logs::LogsReply;
use longshore_protocol::{line, shell};
use longshore_vm::console::{Console, Signs};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;

use crate::memory::Bound;

/// A line of 256 KiB, or an answer of 1 MiB, and what JSON makes of so many bytes.
const BOUND: usize = 4 << 20;
/// As long as the guest's words are there already, nothing waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who reads (1 byte, see the code), then what the guest says.
pub fn run(input: &[u8]) -> usize {
    let Some((who, said)) = input.split_first() else {
        return 0;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let bound = Bound::new(BOUND);
    let understood = runtime.block_on(hear(who % 13, said));
    bound.check();
    usize::from(understood)
}

async fn hear(who: u8, said: &[u8]) -> bool {
    let once = |stream| Once(Mutex::new(Some(Box::new(stream))));
    match who {
        0 => guest::exchange(says(said), Request::Status).await.is_ok(),
        1 => longshore_vm::guest::hello(&once(says(said))).await.is_ok(),
        2 => frames(said).await,
        3 => line::read_json::<DialReply, _>(&mut &said[..])
            .await
            .is_ok(),
        4 => line::read_json::<LogsReply, _>(&mut &said[..])
            .await
            .is_ok(),
        5 => engine::version(says(said), PATIENCE).await.is_ok(),
        6 => engine::store(says(said), PATIENCE).await.is_ok(),
        7 => engine::value(says(said), "/info", PATIENCE).await.is_ok(),
        8 => console(said).await,
        9 => hybrid::greet(&mut says(said), 1024).await.is_ok(),
        10 => hybrid::read_port(&mut &said[..]).await.is_ok(),
        11 => datagrams(said).await,
        _ => passed_on(said).await,
    }
}

/// A stream on which the guest says all this once it is asked, and hangs up.
fn says(said: &[u8]) -> DuplexStream {
    let (host, mut guest) = duplex(64 * 1024);
    let said = said.to_vec();
    tokio::spawn(async move {
        // An answer before the question is an error to HTTP.
        let _asked = guest.read(&mut [0; 4096]).await?;
        guest.write_all(&said).await?;
        guest.shutdown().await?;
        tokio::io::copy(&mut guest, &mut tokio::io::sink()).await
    });
    host
}

async fn frames(mut said: &[u8]) -> bool {
    let mut any = false;
    while let Ok(Some(frame)) = shell::Frame::read(&mut said).await {
        let mut bytes = Vec::new();
        frame.write(&mut bytes).await.expect("memory");
        // No data makes no frame.
        if !bytes.is_empty() {
            let again = shell::Frame::read(&mut &bytes[..]).await;
            assert_eq!(again.expect("a frame"), Some(frame));
        }
        any = true;
    }
    any
}

/// What the guest sends to the clients of a published UDP port.
async fn datagrams(mut said: &[u8]) -> bool {
    let mut buffer = vec![0; ports::LARGEST];
    let (all, mut told) = (said.len(), 0);
    while let Ok(datagram) = ports::datagram(&mut said, &mut buffer).await {
        told += 2 + datagram.len();
    }
    assert!(told <= all, "{told} bytes of {all}");
    told > 0
}

/// What the window shows of the guest's layers and of its requests.
async fn passed_on(said: &[u8]) -> bool {
    let short = |text: &str| assert!(text.chars().count() <= layers::LONGEST);
    match guest::exchange(says(said), Request::Layers).await {
        Ok(Reply::Layers(found)) => {
            let told = layers::told(found);
            told.services.iter().for_each(|s| short(&s.name));
            let processes = told.processes.iter();
            processes.for_each(|p| [&p.layer, &p.name].into_iter().for_each(|text| short(text)));
            true
        }
        Ok(Reply::Spans(found)) => {
            let told = found.into_iter().map(layers::span);
            told.for_each(|span| {
                [span.name, span.service]
                    .iter()
                    .for_each(|text| short(text))
            });
            true
        }
        _ => false,
    }
}

async fn console(said: &[u8]) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let console = Console::open(&folder.path().join("console.log")).expect("a log");
    let (signs, _) = watch::channel(Signs::default());
    console.follow(said, signs).await;
    let lines = console.lines.get();
    assert!(lines.len() <= 41, "{} lines", lines.len());
    let clean = |line: &String| !line.chars().any(|c| c.is_ascii_control() && c != '\t');
    assert!(lines.iter().all(clean), "{lines:?}");
    !lines.is_empty()
}

/// A channel that leads to one stream.
struct Once(Mutex<Option<BoxStream>>);

#[async_trait]
impl Channel for Once {
    async fn connect(&self, port: u32) -> Result<BoxStream, ChannelError> {
        let stream = self.0.lock().expect("one thread").take();
        stream.ok_or(ChannelError::Lost { port })
    }

    fn listen(&self, _: u32) -> Result<Listener, ChannelError> {
        Err(ChannelError::SetUp(io::ErrorKind::Unsupported.into()))
    }

    fn name(&self) -> &'static str {
        "once"
    }
}
