//! The conversation between the runtime and the process that becomes the container's.
//!
//! ```text
//! child                         parent
//! MapUsers                 →    writes uid_map, gid_map
//!                          ←    go
//! RunHooks                 →    prestart, createRuntime
//!                          ←    go
//! Ready (create only)      →    done: the child waits at the fifo
//! Failed(text)             →    cleans up
//! (closed by execve)       →    done (run, exec)
//! ```

use std::os::fd::{AsRawFd, OwnedFd};

use crate::error::{Context, Result};
use crate::sys;

#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    MapUsers,
    RunHooks,
    /// From the intermediate process that joined a user namespace: the real child's number.
    Pid(i32),
    Ready,
    Failed(String),
    Closed,
}

/// Longer error texts are cut.
const MAX: usize = 16 * 1024;

pub struct Channel(pub OwnedFd);

impl Channel {
    pub fn send(&self, message: &Message) -> Result<()> {
        let bytes = match message {
            Message::MapUsers => b"U".to_vec(),
            Message::RunHooks => b"H".to_vec(),
            Message::Pid(pid) => [b"P".as_slice(), &pid.to_ne_bytes()].concat(),
            Message::Ready => b"R".to_vec(),
            Message::Failed(text) => [b"F", &text.as_bytes()[..text.len().min(MAX - 1)]].concat(),
            Message::Closed => return Ok(()),
        };
        sys::send(self.0.as_raw_fd(), &bytes).step(|| "write to sync socket".to_owned())
    }

    pub fn receive(&self) -> Result<Message> {
        let mut buffer = vec![0u8; MAX];
        let length = match sys::read(self.0.as_raw_fd(), &mut buffer) {
            Err(crate::error::Errno(libc::ECONNRESET)) => 0,
            result => result.step(|| "read from sync socket".to_owned())?,
        };
        Ok(match buffer[..length].split_first() {
            None => Message::Closed,
            Some((b'U', _)) => Message::MapUsers,
            Some((b'H', _)) => Message::RunHooks,
            Some((b'R', _)) => Message::Ready,
            Some((b'P', &[a, b, c, d])) => Message::Pid(i32::from_ne_bytes([a, b, c, d])),
            Some((_, text)) => Message::Failed(String::from_utf8_lossy(text).into_owned()),
        })
    }

    pub fn go(&self) -> Result<()> {
        sys::send(self.0.as_raw_fd(), b"G").step(|| "write to sync socket".to_owned())
    }

    /// Asks the parent for something and waits until it is done.
    pub fn ask(&self, message: &Message) -> Result<()> {
        self.send(message)?;
        let mut answer = [0u8; 1];
        match sys::read(self.0.as_raw_fd(), &mut answer) {
            Ok(1) => Ok(()),
            // The parent is gone: nobody wants this container any more.
            _ => sys::exit_now(1),
        }
    }
}

pub fn pair() -> Result<(Channel, Channel)> {
    let (one, other) = sys::socketpair().step(|| "create sync socket".to_owned())?;
    Ok((Channel(one), Channel(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let (one, other) = pair().unwrap();
        for message in [
            Message::MapUsers,
            Message::RunHooks,
            Message::Pid(7),
            Message::Ready,
            Message::Failed("x".into()),
        ] {
            one.send(&message).unwrap();
            assert_eq!(other.receive().unwrap(), message);
        }
        drop(one);
        assert_eq!(other.receive().unwrap(), Message::Closed);
    }
}
