//! Child processes that die with us.

use std::{io, path::Path, process::Stdio};

use longshore_local_socket::Stream;
use tokio::process::{Child, Command};

#[cfg(unix)]
pub use descriptors::{Inherited, listen, socket_pair, spawn};
#[cfg(windows)]
pub use no_descriptors::{Inherited, listen, socket_pair, spawn};

/// First descriptor that a child gets beside the standard three.
pub const FIRST_FD: i32 = 3;

#[cfg(unix)]
mod descriptors {
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// What a child gets beside the standard three.
    pub type Inherited = OwnedFd;

    /// A connected pair: our end, and the one that a child inherits.
    pub fn socket_pair() -> io::Result<(Stream, Inherited)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Stream::from_std(ours)?, theirs.into()))
    }

    /// A listening socket that a child inherits.
    pub fn listen(path: &Path) -> io::Result<Inherited> {
        UnixListener::bind(path).map(Into::into)
    }

    /// Starts `command` with `fds` as its descriptors 3, 4, …, and nothing on its standard input.
    ///
    /// The kernel ends the child when the *thread* that started it ends (prctl(2), PR_SET_PDEATHSIG): call this only on the main
    /// thread, which lives as long as the process (the runtime has one thread, so every task runs there).
    pub fn spawn(mut command: Command, fds: Vec<Inherited>) -> io::Result<Child> {
        command.stdin(Stdio::null()).kill_on_drop(true);
        let numbers: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        #[cfg(target_os = "linux")]
        let parent = nix::unistd::getpid();
        // SAFETY: between fork and exec only async-signal-safe calls are made (prctl, getppid, fcntl, dup2), and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                #[cfg(target_os = "linux")]
                {
                    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
                    if nix::unistd::getppid() != parent {
                        // We died before the line above: nothing would end the child.
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                }
                pass_descriptors(&numbers)
            });
        }
        let child = command.spawn();
        drop(fds);
        child
    }

    /// Gives the descriptors their numbers in the child.
    fn pass_descriptors(numbers: &[i32]) -> io::Result<()> {
        // Two steps, so that no descriptor is overwritten before its turn: the copies lie far above the targets.
        const FAR: i32 = 200;
        for (index, number) in numbers.iter().enumerate() {
            let index = index as i32;
            // SAFETY: plain system calls on descriptors that are open in this process.
            let copied = unsafe { libc::fcntl(*number, libc::F_DUPFD_CLOEXEC, FAR + index) };
            if copied != FAR + index {
                return Err(io::Error::last_os_error());
            }
        }
        for index in 0..numbers.len() as i32 {
            // SAFETY: as above; `dup2` leaves the close-on-exec flag of the new descriptor unset.
            if unsafe { libc::dup2(FAR + index, FIRST_FD + index) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

/// Programs on Windows are not given sockets: QEMU will be reached through pipes, and a job object will end it with us.
#[cfg(windows)]
mod no_descriptors {
    use super::*;

    /// There is none.
    pub enum Inherited {}

    fn not_yet() -> io::Error {
        io::Error::new(
            io::ErrorKind::Unsupported,
            "Longshore does not run VMs on Windows yet",
        )
    }

    pub fn socket_pair() -> io::Result<(Stream, Inherited)> {
        Err(not_yet())
    }

    pub fn listen(_: &Path) -> io::Result<Inherited> {
        Err(not_yet())
    }

    pub fn spawn(mut command: Command, _: Vec<Inherited>) -> io::Result<Child> {
        command.stdin(Stdio::null()).kill_on_drop(true);
        command.spawn()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn descriptors_arrive_in_order() {
        let (near_a, far_a) = UnixStream::pair().unwrap();
        let (near_b, far_b) = UnixStream::pair().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one >&3; echo two >&4"]);
        let mut child = spawn(command, vec![far_b.into(), far_a.into()]).unwrap();
        assert!(child.wait().await.unwrap().success());
        for (stream, expected) in [(near_b, "one\n"), (near_a, "two\n")] {
            stream.set_nonblocking(true).unwrap();
            let mut text = String::new();
            tokio::net::UnixStream::from_std(stream)
                .unwrap()
                .read_to_string(&mut text)
                .await
                .unwrap();
            assert_eq!(text, expected);
        }
    }
}
