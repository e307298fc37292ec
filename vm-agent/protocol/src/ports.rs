//! Numbers of the guest's ports; the host dials, the guest listens.

/// JSON lines, [`crate::control`].
pub const CONTROL: u32 = 1024;
/// Raw bytes to `/run/docker.sock`.
pub const DOCKER: u32 = 1025;
/// Raw bytes to `/run/containerd/containerd.sock`.
pub const CONTAINERD: u32 = 1026;
/// A connection to an address inside the guest, [`crate::dial`].
pub const DIAL: u32 = 1027;
/// A command in the guest, [`crate::shell`].
pub const SHELL: u32 = 1028;
/// A service's log, [`crate::logs`].
pub const LOGS: u32 = 1029;
/// Published ports: the guest asks, the host decides, [`crate::port_news`].
pub const PORT_NEWS: u32 = 1030;

/// First port of the channel's contract tests; they exist only when the guest was booted for them
/// (`longshore.selftest=1` on the kernel command line).
pub const CONTRACT_TEST: u32 = 1100;

/// Services of the contract tests. Nobody listens on `CONTRACT_TEST + 99`.
pub mod contract {
    use super::CONTRACT_TEST;

    /// Sends back what it receives; EOF after EOF.
    pub const ECHO: u32 = CONTRACT_TEST;
    /// Reads to EOF, then answers `<bytes> <sha256 hex>\n` and closes.
    pub const SINK: u32 = CONTRACT_TEST + 1;
    /// Reads a line `<bytes> <chunk>\n`, then sends that many bytes of [`pattern`] in writes of `chunk`, then EOF.
    pub const SOURCE: u32 = CONTRACT_TEST + 2;
    /// Accepts and never reads; closes when the peer vanishes.
    pub const STALL: u32 = CONTRACT_TEST + 3;
    /// Sends `hello\n`, half-closes at once, then counts what comes until EOF and prints nothing more.
    pub const CLOSE_FIRST: u32 = CONTRACT_TEST + 4;
    /// Reads one line, then drops the stream without reading on (a peer that vanishes in mid-stream).
    pub const VANISH: u32 = CONTRACT_TEST + 5;
    /// Reads one line, then the agent aborts (a peer whose process dies).
    pub const DIE: u32 = CONTRACT_TEST + 6;
    /// Nobody listens here.
    pub const NOBODY: u32 = CONTRACT_TEST + 99;

    /// The byte at `offset` of the stream that [`SOURCE`] sends: a period that no power of two divides.
    pub fn pattern(offset: u64) -> u8 {
        (offset % 251) as u8
    }
}

/// Clients of the Docker socket at once. Docker has no such limit, and Docker's SDK for Python keeps a connection for each path
/// that it asked: two dozen for each of its users.
pub const MAX_DOCKER_CLIENTS: usize = 4096;
/// Clients of the channel at once, whatever they want: so many more that the VM's control gets through when Docker's are all there.
pub const MAX_CHANNEL_CLIENTS: usize = MAX_DOCKER_CLIENTS + 904;
/// Streams of a transport at once: more than it has clients, for those that are just closing and those of published ports.
pub const MAX_STREAMS: usize = MAX_CHANNEL_CLIENTS + 1000;
