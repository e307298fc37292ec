//! The `start` command: listens, forks the serving process and prints the address.
//!
//! The child keeps the parent's listener and its loaded pages, so a shim costs one exec, not two.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::unistd::{ForkResult, fork, setsid};

use crate::args::Args;
use crate::error::{Result, Step};

/// containerd's own place for shim sockets; short, because a socket's path holds 107 bytes.
const SOCKET_DIR: &str = "/run/containerd/s";

/// What the serving child needs.
pub struct Serving {
    pub listener: UnixListener,
    pub socket: PathBuf,
}

/// Returns in the child only; the parent has printed the address and is to exit on `None`.
pub fn start(args: &Args) -> Result<Option<Serving>> {
    let bundle = match &args.bundle {
        Some(bundle) => bundle.clone(),
        None => std::env::current_dir().step("find the bundle")?,
    };
    let socket = socket_path(&args.address, &args.namespace, &args.id);
    if UnixStream::connect(&socket).is_ok() {
        // A shim of this container lives already: containerd asks again after a failed start.
        print_address(&socket)?;
        return Ok(None);
    }
    // A supervisor that dies before it has read our answer finds the shim by this, as it finds containerd's own; and the socket,
    // when the shim is killed.
    let address = bundle.join("address");
    fs::write(&address, format!("unix://{}", socket.display())).at("write", &address)?;
    let listener = listen(&socket)?;
    // SAFETY: this process has one thread, so the child may use everything that the parent could.
    match unsafe { fork() }.step("fork")? {
        ForkResult::Parent { .. } => {
            print_address(&socket)?;
            Ok(None)
        }
        ForkResult::Child => {
            detach(&bundle)?;
            Ok(Some(Serving { listener, socket }))
        }
    }
}

/// The address of a container's shim, the same each time it is asked for.
pub fn socket_path(address: &str, namespace: &str, id: &str) -> PathBuf {
    let key = format!("{address}\0{namespace}\0{id}");
    let name = [0xcbf2_9ce4_8422_2325, 0x9ae1_6a3b_2f90_404f].map(|seed| fnv1a(seed, &key));
    Path::new(SOCKET_DIR).join(format!("{:016x}{:016x}", name[0], name[1]))
}

fn fnv1a(seed: u64, text: &str) -> u64 {
    text.bytes().fold(seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn listen(socket: &Path) -> Result<UnixListener> {
    let mut dir = fs::DirBuilder::new();
    dir.recursive(true)
        .mode(0o711)
        .create(SOCKET_DIR)
        .at("create", SOCKET_DIR)?;
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).at("remove the dead shim's socket", socket);
        }
        _ => {}
    }
    // The mask makes the socket 0600 from its first moment.
    let mask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(socket);
    nix::sys::stat::umask(mask);
    let listener = listener.at("listen on", socket)?;
    listener.set_nonblocking(true).at("listen on", socket)?;
    Ok(listener)
}

/// The answer of protocol version 3: containerd.task.v3 over ttrpc. containerd before 1.7 expects
/// the bare address; those that ask for less than 3 get version 2.
fn print_address(socket: &Path) -> Result<()> {
    let newest = std::env::var("MAX_SHIM_VERSION")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(2);
    let version: u32 = if newest >= 3 { 3 } else { 2 };
    let answer = format!(
        r#"{{"version":{version},"address":"unix://{}","protocol":"ttrpc"}}"#,
        socket.display()
    );
    let mut stdout = io::stdout();
    stdout
        .write_all(answer.as_bytes())
        .and_then(|()| stdout.flush())
        .step("print the address")
}

/// Leaves containerd's session and pipes: its wait for our output must end.
fn detach(bundle: &Path) -> Result<()> {
    setsid().step("start a session")?;
    nix::sys::prctl::set_child_subreaper(true).step("become a subreaper")?;
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .step("open /dev/null")?;
    let log = open_log(bundle);
    for (fd, target) in [(&null, 0), (&null, 1), (log.as_ref().unwrap_or(&null), 2)] {
        // SAFETY: 0, 1 and 2 are the standard descriptors, which nothing here owns.
        if unsafe { libc::dup2(fd.as_raw_fd(), target) } < 0 {
            return Err(io::Error::last_os_error()).step("redirect the standard descriptors");
        }
    }
    std::env::set_current_dir("/").step("leave the bundle")
}

/// containerd reads a shim's log from this FIFO. Opened for both, so that writing never waits for
/// a reader nor fails without one; what does not fit is lost.
fn open_log(bundle: &Path) -> Option<File> {
    let path = bundle.join("log");
    fs::metadata(&path)
        .ok()
        .filter(|meta| meta.file_type().is_fifo())?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .ok()
}
