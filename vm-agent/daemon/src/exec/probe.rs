//! A command that the daemon itself runs in a container: a health check's.

use super::{Exec, ExecConfig, process, publish};
use crate::container::{Container, Output};
use crate::error::{ApiError, ApiResult};
use crate::state::Daemon;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a killed command may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// What is to be run.
pub struct Probe {
    pub command: Vec<String>,
    /// From the command's start on.
    pub timeout: Duration,
    /// Bytes of output that are kept.
    pub output_limit: usize,
}

/// What came of it.
pub struct Ran {
    /// `None`: it was killed when its time was up.
    pub exit_code: Option<i32>,
    /// Both outputs; `...` at its end stands for what was too much.
    pub output: String,
}

/// Runs a command to its end. `None` when `stop` came first; the command is killed then.
pub async fn probe(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    wanted: Probe,
    stop: &CancellationToken,
) -> ApiResult<Option<Ran>> {
    let config = ExecConfig {
        attach_stdout: true,
        attach_stderr: true,
        cmd: wanted.command.clone(),
        ..ExecConfig::default()
    };
    let exec = Exec::new(container, config);
    publish(daemon, container, &exec, "exec_create");
    daemon.execs.insert(exec.clone());
    let ran = run(daemon, container, &exec, &wanted, stop).await;
    daemon.execs.forget(&exec.id);
    ran
}

async fn run(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    exec: &Exec,
    wanted: &Probe,
    stop: &CancellationToken,
) -> ApiResult<Option<Ran>> {
    daemon.execs.change(&exec.id, |exec| {
        exec.started = true;
        exec.running = true;
    });
    let process = process::launch(daemon, container, exec, true).await?;
    publish(daemon, container, exec, "exec_start");
    let mut ended = process::monitor(daemon, container, exec);
    let mut kept = Kept::new(wanted.output_limit);
    let to_the_end = async {
        if let Some(output) = process.output {
            kept.read(output).await;
        }
        let _ = ended.wait_for(|ended| *ended).await;
    };
    let in_time = tokio::select! {
        in_time = tokio::time::timeout(wanted.timeout, to_the_end) => in_time.is_ok(),
        () = stop.cancelled() => {
            kill(daemon, exec, ended).await;
            return Ok(None);
        }
    };
    let exit_code = match in_time {
        true => {
            let exit_code = daemon.execs.get(&exec.id)?.exit_code;
            Some(exit_code.ok_or_else(|| {
                ApiError::internal(format!(
                    "healthcheck for container {} has no exit code",
                    container.id
                ))
            })?)
        }
        false => {
            // The next one must not start beside it.
            kill(daemon, exec, ended).await;
            None
        }
    };
    let output = kept.text();
    Ok(Some(Ran { exit_code, output }))
}

async fn kill(daemon: &Daemon, exec: &Exec, mut ended: watch::Receiver<bool>) {
    process::kill(daemon, exec).await;
    let _ = tokio::time::timeout(KILL_PATIENCE, ended.wait_for(|ended| *ended)).await;
}

/// The beginning of an output.
struct Kept {
    bytes: Vec<u8>,
    limit: usize,
    cut: bool,
}

impl Kept {
    fn new(limit: usize) -> Self {
        Kept {
            bytes: Vec::new(),
            limit,
            cut: false,
        }
    }

    /// Reads to the end: what is too much is thrown away, so that the command is not held up.
    async fn read(&mut self, mut output: Output) {
        while let Some((_, bytes)) = output.next().await {
            self.add(&bytes);
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = self.limit - self.bytes.len();
        self.cut |= bytes.len() > room;
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn text(&self) -> String {
        let dots = if self.cut { "..." } else { "" };
        String::from_utf8_lossy(&self.bytes).into_owned() + dots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_outputs_are_cut() {
        let mut kept = Kept::new(4);
        kept.add(b"ab");
        assert_eq!(kept.text(), "ab");
        kept.add(b"cd");
        assert_eq!(kept.text(), "abcd");
        kept.add(b"e");
        assert_eq!(kept.text(), "abcd...");
    }
}
