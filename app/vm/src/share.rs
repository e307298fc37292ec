//! Shared folders: a file server process for each, and the slot that its device sits in.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::process::{Child, Command};

use crate::{arguments::SPARE_PORTS, control::ShareConfig, process};

const MAX_TAG: usize = 36;

#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    #[error("the share's tag {0:?} is not 1 to {MAX_TAG} of letters, digits, `-`, `_` and `.`")]
    Tag(String),
    #[error("a share with the tag {0:?} exists already")]
    Exists(String),
    #[error("no share has the tag {0:?}")]
    Unknown(String),
    #[error("the shared folder {path} cannot be used: {reason}", path = path.display())]
    Folder { path: PathBuf, reason: String },
    #[error(
        "all {SPARE_PORTS} places for shares are taken; remove one first, or share a folder above several"
    )]
    Full,
    #[error("{path} cannot be shared: folders are shared with the guest on Linux only so far", path = path.display())]
    NoServer { path: PathBuf },
    #[error("make the share's socket {path}: {source}", path = path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("start the file server {program}: {source}", program = program.display())]
    Server { program: PathBuf, source: io::Error },
}

/// A share and who serves it.
pub struct Share {
    pub tag: String,
    pub slot: usize,
    pub socket: PathBuf,
    /// Ended with the share, and with this process.
    server: Option<Child>,
}

/// The shares of one VM.
pub struct Shares {
    dir: PathBuf,
    shares: Vec<Share>,
}

impl Shares {
    /// `dir` is where the sockets go.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.into(),
            shares: Vec::new(),
        }
    }

    pub fn list(&self) -> &[Share] {
        &self.shares
    }

    /// Starts the share's server, so that a device can be connected to it.
    pub fn add(&mut self, config: &ShareConfig) -> Result<&Share, ShareError> {
        check_tag(&config.tag)?;
        if self.shares.iter().any(|share| share.tag == config.tag) {
            return Err(ShareError::Exists(config.tag.clone()));
        }
        let taken = |slot: &usize| self.shares.iter().any(|share| share.slot == *slot);
        let slot = (0..SPARE_PORTS)
            .find(|slot| !taken(slot))
            .ok_or(ShareError::Full)?;
        let (socket, server) = match &config.socket {
            Some(socket) => (socket.clone(), None),
            None => {
                let socket = self.dir.join(format!("share-{slot}.sock"));
                let server = start_server(config, &socket)?;
                (socket, Some(server))
            }
        };
        self.shares.push(Share {
            tag: config.tag.clone(),
            slot,
            socket,
            server,
        });
        Ok(self.shares.last().expect("just pushed"))
    }

    /// The slot of a share that is to be unplugged.
    pub fn slot(&self, tag: &str) -> Result<usize, ShareError> {
        let share = self.shares.iter().find(|share| share.tag == tag);
        share
            .map(|share| share.slot)
            .ok_or_else(|| ShareError::Unknown(tag.into()))
    }

    /// Ends the server of a share whose device is gone.
    pub fn remove(&mut self, tag: &str) {
        self.shares.retain(|share| share.tag != tag);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // The child ends by `kill_on_drop`; a socket of somebody else stays.
        if self.server.is_some() {
            let _ = std::fs::remove_file(&self.socket);
        }
    }
}

fn check_tag(tag: &str) -> Result<(), ShareError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if tag.is_empty() || tag.len() > MAX_TAG || !tag.chars().all(allowed) {
        return Err(ShareError::Tag(tag.into()));
    }
    Ok(())
}

/// The server gets a listening socket, so QEMU can connect before the server is ready.
fn start_server(config: &ShareConfig, socket: &Path) -> Result<Child, ShareError> {
    if !cfg!(target_os = "linux") {
        // The portable server, over the channel, will be started here.
        return Err(ShareError::NoServer {
            path: config.path.clone(),
        });
    }
    let folder = |reason: String| ShareError::Folder {
        path: config.path.clone(),
        reason,
    };
    if !config.path.is_absolute() {
        return Err(folder("the path is not absolute".into()));
    }
    let metadata = std::fs::metadata(&config.path).map_err(|error| folder(error.to_string()))?;
    if !metadata.is_dir() {
        return Err(folder("it is not a folder".into()));
    }
    let _ = std::fs::remove_file(socket);
    let listener = process::listen(socket).map_err(|source| ShareError::Socket {
        path: socket.into(),
        source,
    })?;
    let program = beside_us("longshore-file-share");
    let mut command = Command::new(&program);
    command
        .args(["--fd", &process::FIRST_FD.to_string(), "--shared-dir"])
        .arg(&config.path)
        .args(["--tag", &config.tag]);
    if config.read_only {
        command.arg("--read-only");
    }
    for masked in &config.masks {
        command.arg("--mask").arg(masked);
    }
    process::spawn(command, vec![listener]).map_err(|source| ShareError::Server { program, source })
}

/// A program of ours in the folder of this one.
fn beside_us(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.parent().unwrap_or(Path::new("")).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        for (tag, good) in [
            ("home", true),
            ("", false),
            ("a,b", false),
            ("x/y", false),
            ("a.b-c_1", true),
        ] {
            assert_eq!(check_tag(tag).is_ok(), good, "{tag:?}");
        }
        assert!(check_tag(&"x".repeat(37)).is_err());
    }

    #[test]
    fn places_are_counted_and_names_are_unique() {
        let mut shares = Shares::new(Path::new("/nonexistent"));
        let config = |tag: String| ShareConfig {
            tag,
            path: "/tmp".into(),
            read_only: false,
            masks: Vec::new(),
            socket: Some("/tmp/other.sock".into()),
        };
        for slot in 0..SPARE_PORTS {
            assert_eq!(shares.add(&config(format!("s{slot}"))).unwrap().slot, slot);
        }
        assert!(matches!(
            shares.add(&config("more".into())),
            Err(ShareError::Full)
        ));
        assert!(matches!(
            shares.add(&config("s1".into())),
            Err(ShareError::Exists(_))
        ));
        shares.remove("s1");
        assert_eq!(shares.add(&config("again".into())).unwrap().slot, 1);
        assert!(matches!(shares.slot("s1"), Err(ShareError::Unknown(_))));
    }
}
