//! The process around the machine: its session, lock, sockets and log.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use async_trait::async_trait;
use clap::Parser;
use longshore_channel::{BoxStream, Channel, ChannelError, Listener, relay};
use longshore_local_socket::Listener as SocketListener;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use crate::{
    config::VmConfig,
    control::{Request, Stage, VmState},
    machine::{Command, Machine},
    server::{self, Handle},
};

/// What a process that is told to end by a signal gives its guest.
const SIGNAL_DEADLINE_MS: u64 = 10_000;
/// Watchers read the last state within this time.
const FAREWELL: Duration = Duration::from_secs(1);
/// Exit code when another process owns this home.
const ALREADY_RUNNING: u8 = 3;

/// Owns one VM. Prints `listening` on standard output once its sockets answer, and ends with the VM: exit code 0 when it
/// stopped in order, 1 when it failed, 3 when another process owns the VM of this home.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// The VM's configuration, JSON.
    #[arg(long)]
    config: PathBuf,
}

pub fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("LONGSHORE_LOG")
                .unwrap_or_else(|_| "info".into()),
        )
        .init();
    match prepare(&options.config).and_then(run) {
        Ok(VmState::Failed(failure)) => {
            eprintln!("longshore-vm: {}", failure.reason);
            ExitCode::from(1)
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("longshore-vm: {error:#}");
            let running = error.downcast_ref::<AlreadyRunning>().is_some();
            ExitCode::from(if running { ALREADY_RUNNING } else { 1 })
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the VM of {0} is running already (process {1})")]
struct AlreadyRunning(String, String);

/// What is held while the VM lives.
struct Prepared {
    config: VmConfig,
    /// Locked; released when QEMU and the sockets are gone.
    lock: File,
}

fn prepare(path: &Path) -> anyhow::Result<Prepared> {
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let config: VmConfig =
        serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))?;
    stand_alone();
    let vm_dir = config.home.join("vm");
    for dir in [&vm_dir, &config.sockets()] {
        create_private(dir).with_context(|| format!("make {}", dir.display()))?;
    }
    let lock = lock(&vm_dir.join("lock"), &config.home)?;
    Ok(Prepared { config, lock })
}

/// A terminal's Ctrl-C and the death of whoever started us end nothing here, and what we make is private.
#[cfg(unix)]
fn stand_alone() {
    // It fails only when we lead a session already.
    let _ = nix::unistd::setsid();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
}

/// Whoever starts us says so when it starts us, and the folders of a user are private to begin with.
#[cfg(not(unix))]
fn stand_alone() {}

fn create_private(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// The lock holds the process id for people; the kernel releases it with the process.
fn lock(path: &Path, home: &Path) -> anyhow::Result<File> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(path).unwrap_or_default();
            return Err(AlreadyRunning(home.display().to_string(), pid.trim().into()).into());
        }
        Err(fs::TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("lock {}", path.display()));
        }
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

/// Everything runs on this thread, which lives as long as the process: children are tied to it.
fn run(prepared: Prepared) -> anyhow::Result<VmState> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(FAREWELL)
        .build()
        .context("make the runtime")?;
    let config = prepared.config.clone();
    let end = runtime.block_on(serve(prepared));
    let _ = fs::remove_file(config.sockets().join("initramfs"));
    end
}

fn keep_last_state(path: &Path, state: &VmState) {
    let text = serde_json::to_vec_pretty(state).unwrap_or_default();
    if let Err(error) = fs::write(path, text) {
        tracing::warn!(%error, "the last state is not kept");
    }
}

async fn serve(Prepared { config, lock }: Prepared) -> anyhow::Result<VmState> {
    let last_state = config.last_state();
    // An earlier VM's says nothing of this one.
    let _ = fs::remove_file(&last_state);
    let control = SocketListener::bind(&config.control_socket()).await?;
    let channel = SocketListener::bind(&config.channel_socket()).await?;
    let (state, states) = watch::channel(VmState::Starting {
        stage: Stage::Check,
    });
    let (commands_sender, commands) = mpsc::channel(16);
    let (channel_sender, channels) = watch::channel(None);
    let handle = Handle {
        state: states,
        commands: commands_sender.clone(),
    };
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(server::serve(control, handle));
    tasks.spawn(relay::serve(channel, Arc::new(WhenUp(channels))));
    tasks.spawn(stop_on_signals(commands_sender)?);
    // Whoever started us waits for this line.
    println!("listening");
    let watchers = state.clone();
    Machine {
        config,
        state,
        commands,
        channel: channel_sender,
    }
    .run()
    .await;
    let last = watchers.borrow().clone();
    // Before the sockets close: whoever loses its connection finds the reason there.
    keep_last_state(&last_state, &last);
    tasks.shutdown().await;
    // Before the connections end: who sees that may start the next one.
    drop(lock);
    // Connections hold receivers of the state; they end once the last sender is gone, after the last state is read.
    let closed = watchers.clone();
    drop(watchers);
    let _ = timeout(FAREWELL, farewell(closed)).await;
    Ok(last)
}

/// Lets connection tasks write the last state out.
async fn farewell(state: watch::Sender<VmState>) {
    // Every task that is woken by the last state runs before this one goes on twice.
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
    drop(state);
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

/// The signals that stop the VM in order: SIGTERM and SIGINT.
#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn watch() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("watch SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("watch SIGINT")?,
        })
    }

    async fn next(&mut self) {
        tokio::select! { _ = self.terminate.recv() => {}, _ = self.interrupt.recv() => {} }
    }
}

/// What stands for them on Windows: Ctrl-C in a console, when run by hand, and the end of the user's session.
#[cfg(windows)]
struct Signals {
    interrupt: tokio::signal::windows::CtrlC,
    shutdown: tokio::signal::windows::CtrlShutdown,
}

#[cfg(windows)]
impl Signals {
    fn watch() -> anyhow::Result<Self> {
        use tokio::signal::windows::{ctrl_c, ctrl_shutdown};
        Ok(Self {
            interrupt: ctrl_c().context("watch Ctrl-C")?,
            shutdown: ctrl_shutdown().context("watch the session's end")?,
        })
    }

    async fn next(&mut self) {
        tokio::select! { _ = self.interrupt.recv() => {}, _ = self.shutdown.recv() => {} }
    }
}

fn stop_on_signals(
    commands: mpsc::Sender<Command>,
) -> anyhow::Result<impl Future<Output = ()> + Send> {
    let mut signals = Signals::watch()?;
    Ok(async move {
        loop {
            signals.next().await;
            let request = Request::Stop {
                deadline_ms: SIGNAL_DEADLINE_MS,
                force: false,
            };
            let (answer, _) = oneshot::channel();
            if commands.send(Command { request, answer }).await.is_err() {
                return;
            }
        }
    })
}

/// The channel of a guest that may still be booting: connections wait for it.
struct WhenUp(watch::Receiver<Option<Arc<dyn Channel>>>);

#[async_trait]
impl Channel for WhenUp {
    async fn connect(&self, port: u32) -> Result<BoxStream, ChannelError> {
        let mut receiver = self.0.clone();
        let channel = match receiver.wait_for(Option::is_some).await {
            Ok(channel) => channel.clone(),
            Err(_) => None,
        };
        channel
            .ok_or(ChannelError::Lost { port })?
            .connect(port)
            .await
    }

    fn listen(&self, port: u32) -> Result<Listener, ChannelError> {
        match &*self.0.borrow() {
            Some(channel) => channel.listen(port),
            None => Err(ChannelError::Lost { port }),
        }
    }

    fn name(&self) -> &'static str {
        "auto"
    }
}
