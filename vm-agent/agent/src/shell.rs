//! A command in the guest for the host, on a terminal or on pipes.

use crate::channel::Stream;
use crate::watched::{Watched, watch};
use bytes::Bytes;
use longshore_protocol::check_version;
use longshore_protocol::line::{LineError, read_json};
use longshore_protocol::shell::{Frame, FrameError, ShellHeader};
use nix::errno::Errno;
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

const LOGIN_SHELL: &str = "/bin/sh";
/// Reads of what an ended command left in its terminal; a job in the background may go on writing.
const MOST_READS_AT_THE_END: usize = 256;
const PIECE: usize = 32 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    #[error(transparent)]
    Line(#[from] LineError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("pass the command's input and output on: {0}")]
    Pass(#[from] io::Error),
}

pub async fn serve(stream: impl Stream) -> Result<(), ShellError> {
    let mut stream = BufReader::new(stream);
    let Some(header) = read_json::<ShellHeader, _>(&mut stream).await? else {
        return Ok(());
    };
    let started = check_version(header.version)
        .map_err(io::Error::other)
        .and_then(|()| start(&header));
    let (child, terminal) = match started {
        Ok(started) => started,
        Err(error) => {
            let code = if error.kind() == io::ErrorKind::NotFound {
                127
            } else {
                126
            };
            let name = header.command.first().map_or(LOGIN_SHELL, String::as_str);
            let frame = Frame::Error {
                code,
                message: format!("{name}: {error}"),
            };
            frame.write(&mut stream).await?;
            return Ok(stream.shutdown().await?);
        }
    };
    let group = child.id().map(|pid| Pid::from_raw(pid as i32));
    let result = converse(stream, child, terminal).await;
    // Whatever ended the conversation, nothing of the command is left: a shell's jobs have groups of their own and are told
    // by the terminal's hang-up.
    if let Some(group) = group {
        let _ = killpg(group, Signal::SIGHUP);
    }
    result
}

fn start(header: &ShellHeader) -> io::Result<(Child, Option<Terminal>)> {
    let mut command = match header.command.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
        None => {
            let mut command = Command::new(LOGIN_SHELL);
            command.arg("-l");
            command
        }
    };
    command.current_dir("/root").env_clear().kill_on_drop(false);
    command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("TERM", "linux");
    command.envs(header.env.iter().map(|(name, value)| (name, value)));
    let tty = header.tty;
    // SAFETY: between fork and exec only system calls are made, on values made before.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            if tty {
                Errno::result(nix::libc::ioctl(0, nix::libc::TIOCSCTTY, 0))?;
            }
            // The agent is spared by the out-of-memory killer; what people start is not.
            let path = c"/proc/self/oom_score_adj";
            let file = nix::libc::open(path.as_ptr(), nix::libc::O_WRONLY);
            if file >= 0 {
                nix::libc::write(file, c"0".as_ptr().cast(), 1);
                nix::libc::close(file);
            }
            Ok(())
        });
    }
    if !tty {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        return Ok((command.spawn()?, None));
    }
    let size = winsize(header.rows.max(1), header.cols.max(1));
    let pair = openpty(Some(&size), None)?;
    command.stdin(Stdio::from(pair.slave.try_clone()?));
    command.stdout(Stdio::from(pair.slave.try_clone()?));
    command.stderr(Stdio::from(pair.slave));
    let child = command.spawn()?;
    Ok((child, Some(Terminal::new(pair.master)?)))
}

async fn converse(
    stream: BufReader<impl Stream>,
    mut child: Child,
    terminal: Option<Terminal>,
) -> Result<(), ShellError> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (frames, mut outgoing) = mpsc::channel::<Frame>(4);
    let group = child.id().map_or(0, |pid| pid as i32);
    let run = async move {
        let output = Output(frames);
        match &terminal {
            None => run_on_pipes(&mut reader, &mut child, group, &output).await?,
            Some(terminal) => {
                run_on_terminal(&mut reader, &mut child, group, terminal, &output).await?
            }
        };
        Ok::<_, ShellError>(())
    };
    let write = async {
        while let Some(frame) = outgoing.recv().await {
            frame.write(&mut writer).await?;
        }
        Ok::<_, ShellError>(writer.shutdown().await?)
    };
    tokio::try_join!(run, write).map(drop)
}

struct Output(mpsc::Sender<Frame>);

impl Output {
    async fn send(&self, frame: Frame) -> io::Result<()> {
        self.0
            .send(frame)
            .await
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    async fn exit(&self, status: ExitStatus) -> io::Result<()> {
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        self.send(Frame::Exit(code)).await
    }
}

async fn run_on_pipes<R: AsyncRead + Unpin>(
    reader: &mut R,
    child: &mut Child,
    group: i32,
    output: &Output,
) -> Result<(), ShellError> {
    let mut stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let input = async {
        while let Some(frame) = Frame::read(reader).await? {
            match (frame, &mut stdin) {
                // A command that reads no more is no error; what is left is dropped.
                (Frame::Stdin(data), Some(pipe)) => drop(pipe.write_all(&data).await),
                (Frame::StdinEof, stdin) => *stdin = None,
                (Frame::Signal(number), _) => signal(group, number),
                _ => {}
            }
        }
        Err::<(), ShellError>(io::Error::from(io::ErrorKind::ConnectionAborted).into())
    };
    let run = async {
        tokio::try_join!(
            copy_out(stdout, |data| output.send(Frame::Stdout(data))),
            copy_out(stderr, |data| output.send(Frame::Stderr(data))),
        )?;
        let status = child.wait().await?;
        Ok::<_, ShellError>(output.exit(status).await?)
    };
    tokio::select! {
        ended = run => ended,
        gone = input => gone,
    }
}

async fn copy_out<P, F>(pipe: Option<P>, send: impl Fn(Bytes) -> F) -> io::Result<()>
where
    P: AsyncRead + Unpin,
    F: Future<Output = io::Result<()>>,
{
    let Some(mut pipe) = pipe else { return Ok(()) };
    let mut buffer = vec![0; PIECE];
    loop {
        match pipe.read(&mut buffer).await? {
            0 => return Ok(()),
            read => send(Bytes::copy_from_slice(&buffer[..read])).await?,
        }
    }
}

async fn run_on_terminal<R: AsyncRead + Unpin>(
    reader: &mut R,
    child: &mut Child,
    group: i32,
    terminal: &Terminal,
    output: &Output,
) -> Result<(), ShellError> {
    let input = async {
        while let Some(frame) = Frame::read(reader).await? {
            match frame {
                Frame::Stdin(data) => terminal.write(&data).await?,
                // What a person types to end the input.
                Frame::StdinEof => terminal.write(&[4]).await?,
                Frame::Resize { rows, cols } => terminal.resize(rows, cols),
                Frame::Signal(number) => signal(group, number),
                _ => {}
            }
        }
        Err::<(), ShellError>(io::Error::from(io::ErrorKind::ConnectionAborted).into())
    };
    let run = async {
        let status = tokio::select! {
            status = child.wait() => status?,
            copied = terminal.copy_out(output) => {
                copied?;
                child.wait().await?
            }
        };
        // A background job may hold the terminal for ever; what is there now is the command's. The kernel hands it over in pieces
        // (`flush_to_ldisc`): one read may miss the last.
        for _ in 0..MOST_READS_AT_THE_END {
            let Some(rest) = terminal.drain() else { break };
            output.send(Frame::Stdout(rest)).await?;
        }
        Ok::<_, ShellError>(output.exit(status).await?)
    };
    tokio::select! {
        ended = run => ended,
        gone = input => gone,
    }
}

fn signal(group: i32, number: u8) {
    if let Ok(signal) = Signal::try_from(i32::from(number))
        && group > 1
    {
        let _ = killpg(Pid::from_raw(group), signal);
    }
}

/// The master side of a pseudo-terminal.
struct Terminal(AsyncFd<Watched<File>>);

impl Terminal {
    fn new(master: OwnedFd) -> io::Result<Self> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        fcntl(
            &master,
            FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_RDWR),
        )?;
        Ok(Self(watch(
            File::from(master),
            Interest::READABLE | Interest::WRITABLE,
        )?))
    }

    async fn write(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|file| (&**file.get_ref()).write(data)) {
                Ok(written) => data = &data[written?..],
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    /// Ends when nobody has the terminal open any more.
    async fn copy_out(&self, output: &Output) -> io::Result<()> {
        loop {
            let mut buffer = vec![0; PIECE];
            let mut ready = self.0.readable().await?;
            match ready.try_io(|file| (&**file.get_ref()).read(&mut buffer)) {
                Ok(Ok(0)) => return Ok(()),
                Ok(Ok(read)) => {
                    buffer.truncate(read);
                    output.send(Frame::Stdout(buffer.into())).await?;
                }
                // EIO is a terminal's end of file.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::EIO as i32) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }

    fn drain(&self) -> Option<Bytes> {
        let mut rest = vec![0; PIECE];
        let mut file: &File = self.0.get_ref();
        let read = file.read(&mut rest).ok().filter(|read| *read > 0)?;
        rest.truncate(read);
        Some(rest.into())
    }

    fn resize(&self, rows: u16, cols: u16) {
        let size = winsize(rows, cols);
        // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call. A terminal that refuses keeps its size.
        unsafe { nix::libc::ioctl(self.0.get_ref().as_raw_fd(), nix::libc::TIOCSWINSZ, &size) };
    }
}

fn winsize(rows: u16, cols: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_protocol::VERSION;
    use longshore_protocol::line::write_json;

    /// Runs a command with the input and gives its output, errors and last frame.
    async fn run(command: &[&str], tty: bool, input: &'static [u8]) -> (String, String, Frame) {
        let (host, guest) = tokio::io::duplex(1 << 20);
        tokio::spawn(serve(guest));
        let mut host = BufReader::new(host);
        let command = command.iter().map(|word| (*word).into()).collect();
        let header = ShellHeader {
            version: VERSION,
            command,
            tty,
            rows: 24,
            cols: 80,
            env: vec![],
        };
        write_json(&mut host, &header).await.unwrap();
        Frame::Stdin(Bytes::from_static(input))
            .write(&mut host)
            .await
            .unwrap();
        Frame::StdinEof.write(&mut host).await.unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        loop {
            match Frame::read(&mut host).await.unwrap().unwrap() {
                Frame::Stdout(data) => out.push_str(&String::from_utf8_lossy(&data)),
                Frame::Stderr(data) => err.push_str(&String::from_utf8_lossy(&data)),
                last => return (out, err, last),
            }
        }
    }

    #[tokio::test]
    async fn commands_on_pipes() {
        let (out, err, last) =
            run(&["sh", "-c", "cat; echo bad >&2; exit 3"], false, b"hello").await;
        assert_eq!(
            (out.as_str(), err.as_str(), last),
            ("hello", "bad\n", Frame::Exit(3))
        );
        let (_, _, last) = run(&["sh", "-c", "kill -9 $$"], false, b"").await;
        assert_eq!(last, Frame::Exit(137));
        let (_, _, last) = run(&["no-such-command"], false, b"").await;
        let Frame::Error { code: 127, message } = last else {
            panic!("{last:?}")
        };
        assert!(
            message.starts_with("no-such-command: No such file"),
            "{message}"
        );
        let (_, _, last) = run(&["/etc/passwd"], false, b"").await;
        assert!(matches!(last, Frame::Error { code: 126, .. }), "{last:?}");
    }

    #[tokio::test]
    async fn commands_on_a_terminal() {
        let (out, _, last) = run(
            &["sh", "-c", "stty size; read line; echo got $line; exit 5"],
            true,
            b"hi\n",
        )
        .await;
        assert!(
            out.contains("24 80\r\n") && out.contains("got hi\r\n"),
            "{out:?}"
        );
        assert_eq!(last, Frame::Exit(5));
    }
}
