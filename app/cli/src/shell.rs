//! A shell in the guest: raw terminal, its size, signals, exit code.

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;

use bytes::Bytes;
use longshore_host_api::{ApiError, Client, ErrorCode};
use longshore_protocol::shell::{Frame, FrameError, ShellHeader};
use longshore_protocol::{VERSION, line};
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::sync::mpsc;

use crate::terminal::{self, Raw, Resizes};

pub async fn run(client: &Client, command: Vec<String>) -> Result<ExitCode, ApiError> {
    let stream = client.shell().await?;
    let tty = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let (rows, cols) = terminal::size().unwrap_or((24, 80));
    let term = std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
    let env = if tty {
        vec![("TERM".to_owned(), term)]
    } else {
        Vec::new()
    };
    let header = ShellHeader {
        version: VERSION,
        command,
        tty,
        rows,
        cols,
        env,
    };
    let (from_guest, mut to_guest) = tokio::io::split(stream);
    line::write_json(&mut to_guest, &header)
        .await
        .map_err(|e| ApiError::new(ErrorCode::NoService, e.to_string()))?;
    let raw = if tty { Raw::enter() } else { None };
    let input = forward_input(to_guest, tty);
    let result = tokio::select! {
        result = show_output(BufReader::new(from_guest)) => result,
        // Input ends before output does; only a broken connection gets here.
        error = input => Err(error),
    };
    drop(raw);
    match result? {
        (code, None) => Ok(ExitCode::from(code as u8)),
        (code, Some(message)) => {
            eprintln!("longshore: {}", terminal::printable(&message));
            Ok(ExitCode::from(code as u8))
        }
    }
}

fn broken(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(
        ErrorCode::NoService,
        format!("the shell's connection broke off: {error}"),
    )
}

async fn show_output(mut guest: impl AsyncRead + Unpin) -> Result<(i32, Option<String>), ApiError> {
    loop {
        let frame = Frame::read(&mut guest)
            .await
            .map_err(|e: FrameError| broken(e))?;
        match frame {
            Some(Frame::Stdout(bytes)) => write(std::io::stdout(), &bytes)?,
            Some(Frame::Stderr(bytes)) => write(std::io::stderr(), &bytes)?,
            Some(Frame::Exit(code)) => return Ok((code, None)),
            Some(Frame::Error { code, message }) => return Ok((code, Some(message))),
            Some(_) => {}
            None => return Err(broken("the VM closed it")),
        }
    }
}

fn write(mut to: impl Write, bytes: &[u8]) -> Result<(), ApiError> {
    to.write_all(bytes)
        .and_then(|()| to.flush())
        .map_err(|e| ApiError::internal(format!("cannot write the command's output: {e}")))
}

/// Sends input, size and interrupts to the guest; ends only when the connection breaks.
async fn forward_input(mut guest: impl AsyncWrite + Unpin, tty: bool) -> ApiError {
    let mut input = Some(read_input());
    let mut resizes = Resizes::new();
    loop {
        let frame = tokio::select! {
            chunk = next_chunk(&mut input) => chunk,
            () = resizes.next(), if tty => match terminal::size() {
                Some((rows, cols)) => Frame::Resize { rows, cols },
                None => continue,
            },
            // On a raw terminal Ctrl-C is a byte of the input.
            _ = tokio::signal::ctrl_c(), if !tty => Frame::Signal(2),
        };
        if let Err(error) = frame.write(&mut guest).await {
            return broken(error);
        }
    }
}

async fn next_chunk(input: &mut Option<mpsc::Receiver<Bytes>>) -> Frame {
    match input {
        Some(receiver) => match receiver.recv().await {
            Some(bytes) => Frame::Stdin(bytes),
            None => {
                *input = None;
                Frame::StdinEof
            }
        },
        None => std::future::pending().await,
    }
}

/// A thread, as a read of a terminal cannot be interrupted; the process ends with it still waiting.
fn read_input() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(8);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(length @ 1..) = std::io::stdin().lock().read(&mut buffer) {
            if sender
                .blocking_send(Bytes::copy_from_slice(&buffer[..length]))
                .is_err()
            {
                return;
            }
        }
    });
    receiver
}
