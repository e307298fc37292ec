//! One attempt to boot: QEMU's process, its monitor, the channel, and the guest's first words.

use std::{
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

#[cfg(target_os = "linux")]
use longshore_channel::vsock::VsockChannel;
use longshore_channel::{Channel, ChannelError, serial::SerialChannel};
use longshore_local_socket::Stream;
use tokio::{
    process::{Child, Command},
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{
    accelerator::Accelerator,
    arguments::{self, ChannelArguments, Machine, ShareArguments},
    config::{ChannelChoice, VmConfig},
    console::{Console, Signs},
    control::{Stage, StageTime},
    guest::{self, GuestError},
    image::GuestImage,
    process,
    qemu::Qemu,
    qmp::{self, Event, Qmp, QmpError},
    share::Shares,
};

/// QEMU answers its monitor as soon as its devices are made.
const MONITOR_LIMIT: Duration = Duration::from_secs(20);
/// An emulated guest on a busy machine; a real accelerator has `accelerator::PROBE_LIMIT`.
pub const TCG_KERNEL_LIMIT: Duration = Duration::from_secs(30);
/// From the kernel's first byte to the agent's answer.
const AGENT_LIMIT: Duration = Duration::from_secs(120);

/// A process that was killed ends at once, unless the kernel still works for it (under KVM).
const GONE_LIMIT: Duration = Duration::from_secs(10);

/// How soon an agent that did not listen is greeted again.
const GREETING_INTERVAL: Duration = Duration::from_millis(20);

pub type Monitor = Qmp<Stream>;

/// A guest whose agent has answered.
pub struct Guest {
    pub child: Child,
    pub pid: u32,
    pub monitor: Arc<Monitor>,
    pub events: mpsc::Receiver<Event>,
    pub channel: Arc<dyn Channel>,
    pub accelerator: Accelerator,
    pub stages: Vec<StageTime>,
}

#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("connect QEMU with this process: {0}")]
    SocketPair(#[source] std::io::Error),
    #[error("start {program}: {source}", program = program.display())]
    Spawn {
        program: PathBuf,
        source: std::io::Error,
    },
    #[error("QEMU ended at once ({status}): {line}")]
    Ended { status: String, line: String },
    #[error("QEMU's monitor did not answer within {}", seconds(*.0))]
    NoMonitor(Duration),
    #[error(transparent)]
    Monitor(#[from] QmpError),
    #[error("no guest showed a sign of life within {}", seconds(*.0))]
    NoLife(Duration),
    #[error("the guest's agent did not answer within {}", seconds(*.0))]
    NoAgent(Duration),
    #[error("the first words with the guest: {0}")]
    Agent(#[from] GuestError),
    #[error("the guest ended while it booted: {0}")]
    GuestEnded(String),
    #[error("the guest's kernel says that one of its CPUs has stalled")]
    Stalled,
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[cfg(not(target_os = "linux"))]
    #[error("this system has no vsock channel; use `--channel serial`")]
    NoVsock,
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

impl BootError {
    /// The stage in which it happened.
    pub fn stage(&self) -> Stage {
        match self {
            Self::NoLife(_) => Stage::Kernel,
            Self::NoAgent(_) | Self::Agent(_) | Self::GuestEnded(_) | Self::Stalled => {
                Stage::Channel
            }
            _ => Stage::Qemu,
        }
    }
}

/// What every attempt is made from.
pub struct Recipe<'a> {
    pub config: &'a VmConfig,
    pub qemu: &'a Qemu,
    pub image: &'a GuestImage,
    pub initramfs: PathBuf,
    pub data: PathBuf,
    pub console: &'a Console,
    pub shares: &'a Shares,
    /// Told as stages are reached.
    pub stage: &'a (dyn Fn(Stage) + Send + Sync),
}

/// The time since the last stage ended.
struct Clock {
    since: Instant,
    stages: Vec<StageTime>,
}

impl Clock {
    fn done(&mut self, stage: Stage) {
        let ms = self.since.elapsed().as_millis() as u64;
        self.since = Instant::now();
        self.stages.push(StageTime { stage, ms });
    }
}

/// How long one attempt to boot is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until the first sign of life.
    pub life: Duration,
    /// Whether a kernel that says that it stalls is waited for all the same.
    pub stalls: bool,
}

/// Boots on one accelerator, within limits. On an error QEMU is gone again.
pub async fn boot(
    recipe: &Recipe<'_>,
    accelerator: Accelerator,
    patience: Patience,
) -> Result<Guest, BootError> {
    let mut clock = Clock {
        since: Instant::now(),
        stages: Vec::new(),
    };
    (recipe.stage)(Stage::Qemu);
    recipe.console.lines.clear();
    recipe.console.errors.clear();
    let (mut started, monitor) = start(recipe, accelerator)?;
    match come_up(recipe, &mut started, monitor, patience, &mut clock).await {
        Ok((monitor, events)) => Ok(Guest {
            pid: started.pid,
            child: started.child,
            monitor: Arc::new(monitor),
            events,
            channel: started.channel,
            accelerator,
            stages: clock.stages,
        }),
        Err(error) => {
            // The next attempt needs the data disk, which this one has locked.
            // Refused for one that has ended by itself.
            let _ = started.child.start_kill();
            if timeout(GONE_LIMIT, started.child.wait()).await.is_err() {
                tracing::warn!(pid = started.pid, "QEMU was killed and does not end");
            }
            Err(error)
        }
    }
}

/// From QEMU's start to the agent's answer.
async fn come_up(
    recipe: &Recipe<'_>,
    started: &mut Started,
    monitor: Stream,
    patience: Patience,
    clock: &mut Clock,
) -> Result<(Monitor, mpsc::Receiver<Event>), BootError> {
    let greeted = timeout(MONITOR_LIMIT, qmp::connect(monitor));
    let (monitor, events) = tokio::select! {
        greeted = greeted => match greeted {
            Ok(Ok(greeted)) => greeted,
            // Its stderr says more than a closed socket.
            Ok(Err(error)) => match timeout(Duration::from_secs(1), started.child.wait()).await {
                Ok(status) => return Err(ended(recipe, status).await),
                Err(_) => return Err(error.into()),
            },
            Err(_) => return Err(BootError::NoMonitor(MONITOR_LIMIT)),
        },
        status = started.child.wait() => return Err(ended(recipe, status).await),
    };
    clock.done(Stage::Qemu);
    (recipe.stage)(Stage::Kernel);
    let life = started.signs.wait_for(|signs| signs.life);
    tokio::select! {
        life = timeout(patience.life, life) => match life {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(ended(recipe, started.child.wait().await).await),
            Err(_) => return Err(BootError::NoLife(patience.life)),
        },
        status = started.child.wait() => return Err(ended(recipe, status).await),
    }
    clock.done(Stage::Kernel);
    (recipe.stage)(Stage::Channel);
    tokio::select! {
        hello = timeout(AGENT_LIMIT, greet(&*started.channel)) => match hello {
            Ok(Ok(())) => {}
            // A guest that panics takes the channel with it, and says more itself.
            Ok(Err(error)) => match timeout(Duration::from_secs(1), started.child.wait()).await {
                Ok(_) => return Err(guest_ended(recipe.console)),
                Err(_) => return Err(error.into()),
            },
            Err(_) => return Err(BootError::NoAgent(AGENT_LIMIT)),
        },
        _ = started.child.wait() => return Err(guest_ended(recipe.console)),
        // When the console has ended, so has QEMU.
        Ok(_) = started.signs.wait_for(|signs| signs.stall), if !patience.stalls => {
            return Err(BootError::Stalled);
        }
    }
    clock.done(Stage::Channel);
    Ok((monitor, events))
}

/// Greets the agent as soon as it listens.
async fn greet(channel: &dyn Channel) -> Result<(), GuestError> {
    loop {
        match guest::hello(channel).await {
            // Over vsock, a kernel without an agent refuses at once, and nothing tells when that changes.
            Err(GuestError::Channel(ChannelError::Refused { .. })) => {
                tokio::time::sleep(GREETING_INTERVAL).await;
            }
            other => return other,
        }
    }
}

/// Why a guest that had begun to boot is gone: its kernel's last words, if it had any.
fn guest_ended(console: &Console) -> BootError {
    let lines = console.lines.get();
    let panic = lines
        .iter()
        .rev()
        .find(|line| line.contains("Kernel panic"));
    let words = panic.or(lines.last()).cloned();
    BootError::GuestEnded(words.unwrap_or_else(|| "it said nothing".into()))
}

struct Started {
    child: Child,
    pid: u32,
    channel: Arc<dyn Channel>,
    signs: watch::Receiver<Signs>,
}

/// QEMU's process, and our end of its monitor.
fn start(recipe: &Recipe<'_>, accelerator: Accelerator) -> Result<(Started, Stream), BootError> {
    static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
    let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
    let (monitor, monitor_far) = process::socket_pair().map_err(BootError::SocketPair)?;
    let mut fds = vec![monitor_far];
    // Each attempt has its own: what ends of the attempt before may still remove its name.
    let vsock_socket = recipe.config.sockets().join(format!("vsock{attempt}.sock"));
    let (channel, channel_arguments) =
        open_channel(recipe.config.channel, &vsock_socket, &mut fds)?;
    let shares: Vec<ShareArguments<'_>> = recipe
        .shares
        .list()
        .iter()
        .map(|share| ShareArguments {
            tag: &share.tag,
            socket: &share.socket,
        })
        .collect();
    let arguments = arguments::build(&Machine {
        accelerator,
        x2apic: recipe.qemu.emulates_x2apic(),
        cpus: recipe.config.cpus,
        memory_bytes: recipe.config.memory_bytes,
        kernel: &recipe.image.kernel,
        initramfs: &recipe.initramfs,
        root: &recipe.image.root,
        data: &recipe.data,
        selftest: recipe.config.selftest,
        channel: channel_arguments,
        monitor_fd: process::FIRST_FD,
        shares: &shares,
    });
    tracing::info!(program = %recipe.qemu.program.display(), arguments = arguments.join(" "), "start QEMU");
    let mut command = Command::new(&recipe.qemu.program);
    command.args(arguments);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = process::spawn(command, fds).map_err(|source| BootError::Spawn {
        program: recipe.qemu.program.clone(),
        source,
    })?;
    let (sender, signs) = watch::channel(Signs::default());
    if let Some(stdout) = child.stdout.take() {
        let console = recipe.console.clone();
        tokio::spawn(async move { console.follow(stdout, sender).await });
    }
    if let Some(stderr) = child.stderr.take() {
        let console = recipe.console.clone();
        tokio::spawn(async move { console.follow_errors(stderr).await });
    }
    let pid = child.id().unwrap_or(0);
    let started = Started {
        child,
        pid,
        channel,
        signs,
    };
    Ok((started, monitor))
}

/// Our end of the channel, and what QEMU is told of its own.
#[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
fn open_channel<'a>(
    choice: ChannelChoice,
    vsock_socket: &'a Path,
    fds: &mut Vec<process::Inherited>,
) -> Result<(Arc<dyn Channel>, ChannelArguments<'a>), BootError> {
    // A vhost-user device needs Linux's shared memory file descriptors; elsewhere the port is what there is.
    match choice {
        #[cfg(target_os = "linux")]
        ChannelChoice::Auto | ChannelChoice::Vsock => {
            let channel = Arc::new(VsockChannel::new(vsock_socket)?);
            Ok((
                channel,
                ChannelArguments::Vsock {
                    socket: vsock_socket,
                },
            ))
        }
        #[cfg(not(target_os = "linux"))]
        ChannelChoice::Vsock => Err(BootError::NoVsock),
        #[cfg(not(target_os = "linux"))]
        ChannelChoice::Auto => serial(fds),
        ChannelChoice::Serial => serial(fds),
    }
}

fn serial<'a>(
    fds: &mut Vec<process::Inherited>,
) -> Result<(Arc<dyn Channel>, ChannelArguments<'a>), BootError> {
    let (port, port_far) = process::socket_pair().map_err(BootError::SocketPair)?;
    let fd = process::FIRST_FD + fds.len() as i32;
    fds.push(port_far);
    Ok((
        Arc::new(SerialChannel::new(port)),
        ChannelArguments::Serial { fd },
    ))
}

/// QEMU is gone: its exit status, and the last line that it said.
async fn ended(recipe: &Recipe<'_>, status: std::io::Result<ExitStatus>) -> BootError {
    // The reader of its stderr runs on this thread; let it take what is there.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let line = recipe
        .console
        .errors
        .get()
        .pop()
        .unwrap_or_else(|| "it said nothing".into());
    let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    BootError::Ended { status, line }
}
