//! The services' logs and the kernel's, for the host.

use crate::channel::Stream;
use crate::watched::{Watched, watch};
use longshore_protocol::check_version;
use longshore_protocol::line::{LineError, read_json, write_json};
use longshore_protocol::logs::{LogSource, LogsReply, LogsRequest};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs::File;
use std::io::{self, Read};

use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWriteExt, BufReader, Interest};

const FOLDER: &str = "/run/longshore/log";
/// Longest record of /dev/kmsg.
const RECORD: usize = 8192;

#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    #[error(transparent)]
    Line(#[from] LineError),
    #[error("send a log: {0}")]
    Send(#[from] io::Error),
}

pub async fn serve(stream: impl Stream) -> Result<(), LogsError> {
    let mut stream = BufReader::new(stream);
    let Some(request) = read_json::<LogsRequest, _>(&mut stream).await? else {
        return Ok(());
    };
    if let Err(mismatch) = check_version(request.version) {
        return Ok(write_json(&mut stream, &LogsReply::Error(mismatch.to_string())).await?);
    }
    let log = match Log::open(request.source, request.tail) {
        Ok(log) => log,
        Err(error) => {
            let text = format!("open the log of {}: {error}", request.source.name());
            return Ok(write_json(&mut stream, &LogsReply::Error(text)).await?);
        }
    };
    write_json(&mut stream, &LogsReply::Follows).await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut nowhere = tokio::io::sink();
    tokio::select! {
        sent = send(log, request.follow, &mut writer) => sent?,
        // The host sends nothing more: whatever comes is its end.
        _ = tokio::io::copy(&mut reader, &mut nowhere), if request.follow => {}
    }
    Ok(writer.shutdown().await?)
}

async fn send(
    mut log: Log,
    follow: bool,
    writer: &mut (impl tokio::io::AsyncWrite + Unpin),
) -> io::Result<()> {
    writer.write_all(&std::mem::take(&mut log.first)).await?;
    while follow {
        let more = log.more().await?;
        writer.write_all(&more).await?;
        writer.flush().await?;
    }
    Ok(())
}

/// A log, with what it holds already.
struct Log {
    first: Vec<u8>,
    rest: Rest,
}

enum Rest {
    Service {
        file: File,
        path: String,
        watch: AsyncFd<Watched<Inotify>>,
    },
    Kernel(AsyncFd<Watched<File>>),
}

impl Log {
    fn open(source: LogSource, tail: Option<u64>) -> io::Result<Self> {
        let (mut first, rest) = match source {
            LogSource::Kernel => open_kernel()?,
            service => open_service(service.name())?,
        };
        if let Some(lines) = tail {
            first.drain(..first.len() - last_lines(&first, lines).len());
        }
        Ok(Self { first, rest })
    }

    /// Waits for more.
    async fn more(&mut self) -> io::Result<Vec<u8>> {
        match &mut self.rest {
            Rest::Service { file, path, watch } => loop {
                let mut more = Vec::new();
                file.read_to_end(&mut more)?;
                // Turned over: the old file is read to its end, then the new one from its start.
                if let Ok(named) = std::fs::metadata(&*path)
                    && named.ino() != file.metadata()?.ino()
                {
                    *file = File::open(&*path)?;
                    file.read_to_end(&mut more)?;
                }
                if !more.is_empty() {
                    return Ok(more);
                }
                let mut ready = watch.readable().await?;
                let _ = ready
                    .try_io(|inotify| inotify.get_ref().read_events().map_err(io::Error::from));
            },
            Rest::Kernel(file) => loop {
                let mut ready = file.readable().await?;
                let records = read_kernel(file.get_ref())?;
                if !records.is_empty() {
                    return Ok(records);
                }
                ready.clear_ready();
            },
        }
    }
}

fn open_service(name: &str) -> io::Result<(Vec<u8>, Rest)> {
    let path = format!("{FOLDER}/{name}.log");
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    // Watched before it is read, so that nothing falls between.
    inotify.add_watch(FOLDER, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE)?;
    let mut first = std::fs::read(format!("{path}.1")).unwrap_or_default();
    let mut file = File::open(&path)?;
    file.read_to_end(&mut first)?;
    let watch = watch(inotify, Interest::READABLE)?;
    Ok((first, Rest::Service { file, path, watch }))
}

fn open_kernel() -> io::Result<(Vec<u8>, Rest)> {
    let file = File::options()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open("/dev/kmsg")?;
    let first = read_kernel(&file)?;
    Ok((first, Rest::Kernel(watch(file, Interest::READABLE)?)))
}

/// All records that are there, as dmesg shows them.
fn read_kernel(mut file: &File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut record = [0; RECORD];
    loop {
        match file.read(&mut record) {
            Ok(length) => text.extend_from_slice(
                show_record(&String::from_utf8_lossy(&record[..length])).as_bytes(),
            ),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(text),
            // EPIPE: records were overwritten before they were read; the next read goes on after the gap.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// `priority,sequence,microseconds,flags;message\n KEY=value\n` (Documentation/ABI/testing/dev-kmsg).
fn show_record(record: &str) -> String {
    let (head, rest) = record.split_once(';').unwrap_or(("", record));
    let message = rest.lines().next().unwrap_or_default();
    let microseconds: u64 = head
        .split(',')
        .nth(2)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    format!(
        "[{:5}.{:06}] {message}\n",
        microseconds / 1_000_000,
        microseconds % 1_000_000
    )
}

fn last_lines(text: &[u8], lines: u64) -> &[u8] {
    let lines = usize::try_from(lines).unwrap_or(usize::MAX);
    if lines == 0 {
        return &[];
    }
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let newlines = body
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n');
    match newlines.map(|(at, _)| at).nth(lines - 1) {
        Some(at) => &text[at + 1..],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails() {
        let cases: [(&str, u64, &str); 6] = [
            ("a\nb\nc\n", 1, "c\n"),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\nb\n", 0, ""),
            ("", 3, ""),
        ];
        for (text, lines, tail) in cases {
            assert_eq!(
                last_lines(text.as_bytes(), lines),
                tail.as_bytes(),
                "{text:?} {lines}"
            );
        }
    }

    #[test]
    fn kernel_records() {
        assert_eq!(
            show_record("6,12,1500042,-;hello; you\n SUBSYSTEM=x\n"),
            "[    1.500042] hello; you\n"
        );
        assert_eq!(show_record("odd"), "[    0.000000] odd\n");
    }
}
