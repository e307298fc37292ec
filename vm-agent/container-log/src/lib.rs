//! The container log writer and live attach: library of our shim, binary for others.
//!
//! It does not know who reads, nor Docker's API, nor containerd's store.
//!
//! # How a task's stdio is wired
//!
//! The client (our daemon) gives the task `stdout == stderr ==` [`LogConfig::to_uri`], a URI
//! `binary:///usr/bin/longshore-log?id=…&dir=…&driver=…&max-size=…&max-file=…`. Any containerd shim
//! starts that binary and connects the container's output to its descriptors 3 and 4; our shim
//! sees that the program is `longshore-log` and runs the same code inside itself.
//!
//! The log writer writes `<dir>/<id>-json.log` (Docker's json-file format, rotated) and listens on
//! `<dir>/attach.sock` from the task's creation to the end of its output. It depends on no other
//! process: while the daemon is dead, every line still reaches the file.
//!
//! # Live attach
//!
//! [`AttachClient::connect`] after the task (or exec) is created and before it is started sees
//! every byte. A reader is one of
//! * *blocking* ([`Overflow::Block`], Docker's behaviour): when it lags by more than 256 KiB the
//!   container's output is no longer read until it catches up or goes away, so nothing is lost;
//! * *skipping* ([`Overflow::Skip`]): it never holds the container up and is told how many bytes
//!   it has missed.
//!
//! Without readers the last 64 KiB are kept. Terminal output is stdout, raw.
//!
//! # Stdin
//!
//! A FIFO, made by the client, given as the task's `stdin` path. Our shim opens it for reading
//! *and* writing, so the daemon may die and come back without the container seeing the end of its
//! input; the `CloseIO` call is that end. Containerd's own runc shim gives no stdin to a process
//! without a terminal whose output is a `binary://` URI. On foreign shims such a container gets plain FIFOs for all three, and the
//! client starts `longshore-log` itself (`longshore-log id … dir … stdout FIFO stderr FIFO`).
//!
//! # Exec processes
//!
//! The same with a `dir` of their own and `driver=none`.
//!
//! # Reading back
//!
//! [`LogReader::read`] yields [`LogLine`]s over all rotated files, filtered, and follows the live
//! log through the attach socket's wake-ups until the writer ends: no polling, no line lost or
//! seen twice over a rotation.

mod attach_client;
mod attach_protocol;
mod attach_server;
mod config;
mod error;
mod file;
mod line;
mod log_files;
mod log_task;
mod packed;
mod reader;
mod ring;
mod sink;
mod splitter;
mod time;

pub use attach_client::{AttachClient, AttachEvent, AttachOptions};
pub use attach_protocol::{Overflow, Start, StreamKind, Streams};
pub use config::{BINARY, Driver, LogConfig};
pub use error::{Error, Result};
pub use log_task::LogTask;
pub use reader::{LogLine, LogLines, LogReader, ReadOptions, Tail};
pub use time::Timestamp;
