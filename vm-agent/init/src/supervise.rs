//! The main loop: starts services when their time has come, reaps everything, ends in an orderly shutdown.

use crate::modprobe::Modules;
use crate::service::{Service, State};
use crate::services::SERVICES;
use crate::sockets::SocketError;
use crate::spawn::{SpawnError, fork};
use crate::system::{self, SystemError};
use crate::{cgroup, log, shutdown, status};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error(transparent)]
    System(#[from] SystemError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Cgroup(#[from] cgroup::CgroupError),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("receive signals: {0}")]
    Signals(Errno),
    #[error("wait for something to happen: {0}")]
    Poll(Errno),
}

/// Loaded while the services start: the network card first, then what a first container will need.
const MODULES: &[&str] = &[
    "virtio_net",
    "bridge",
    "veth",
    "nft_chain_nat",
    "nft_masq",
    "nft_nat",
    "nft_ct",
    "virtio_balloon",
    "button",
    "evdev",
];

pub struct Init {
    pub services: Vec<Service>,
    signals: SignalFd,
    /// The child that loads modules, until it has ended.
    loader: Option<Pid>,
    power_buttons: Vec<File>,
}

enum Event {
    Child,
    PowerOff(&'static str),
}

/// Comes back only when PID 1 cannot go on.
pub fn run() -> InitError {
    match Init::set_up().and_then(Init::serve) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

impl Init {
    fn set_up() -> Result<Self, InitError> {
        status::stage("init");
        let signals = take_signals().map_err(InitError::Signals)?;
        system::set_up()?;
        let loader = fork(&cgroup::open_service("agent")?, load_modules)?;
        let services = SERVICES
            .iter()
            .map(Service::new)
            .collect::<Result<_, _>>()?;
        status::stage("system");
        Ok(Self {
            services,
            signals,
            loader: Some(loader),
            power_buttons: Vec::new(),
        })
    }

    fn serve(mut self) -> Result<std::convert::Infallible, InitError> {
        loop {
            self.start_due();
            match self.wait()? {
                Some(Event::PowerOff(reason)) => shutdown::orderly(self, reason),
                Some(Event::Child) => self.reap(),
                None => {}
            }
        }
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        for index in 0..self.services.len() {
            let service = &self.services[index];
            let due = match service.state {
                State::Waiting => service.plan.after.is_none_or(|name| self.is_done(name)),
                State::BackOff { until } => until <= now,
                _ => false,
            };
            if due {
                self.services[index].start();
            }
        }
    }

    fn is_done(&self, name: &str) -> bool {
        self.services
            .iter()
            .any(|service| service.plan.name == name && service.state == State::Done)
    }

    /// Sleeps until a signal, the power button, or the next start that is due.
    fn wait(&mut self) -> Result<Option<Event>, InitError> {
        let next = self.services.iter().filter_map(Service::due).min();
        let timeout = match next {
            None => PollTimeout::NONE,
            // Rounded up, or the last millisecond would be spent spinning.
            Some(due) => {
                let left = due.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut watched = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        watched.extend(
            self.power_buttons
                .iter()
                .map(|button| PollFd::new(button.as_fd(), PollFlags::POLLIN)),
        );
        match poll(&mut watched, timeout) {
            Ok(0) | Err(Errno::EINTR) => return Ok(None),
            Ok(_) => {}
            Err(errno) => return Err(InitError::Poll(errno)),
        }
        let ready: Vec<bool> = watched.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        if ready[0]
            && let Some(event) = self.signal()
        {
            return Ok(Some(event));
        }
        for index in (0..self.power_buttons.len())
            .rev()
            .filter(|index| ready[index + 1])
        {
            match button_pressed(&mut self.power_buttons[index]) {
                Ok(true) => return Ok(Some(Event::PowerOff("power button"))),
                Ok(false) => {}
                // A device that went away would be ready for ever.
                Err(_) => drop(self.power_buttons.remove(index)),
            }
        }
        Ok(None)
    }

    fn signal(&mut self) -> Option<Event> {
        let signal = self.signals.read_signal().ok()??;
        match Signal::try_from(signal.ssi_signo as i32).ok()? {
            Signal::SIGCHLD => Some(Event::Child),
            Signal::SIGTERM => Some(Event::PowerOff("SIGTERM")),
            Signal::SIGINT => Some(Event::PowerOff("SIGINT")),
            Signal::SIGPWR => Some(Event::PowerOff("SIGPWR")),
            _ => None,
        }
    }

    /// Reaps every dead child: services, and orphans of anybody.
    pub fn reap(&mut self) {
        loop {
            let (pid, exit, well) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, format!("exit {code}"), code == 0),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    (pid, format!("signal {}", signal as i32), false)
                }
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            if let Some(service) = self
                .services
                .iter_mut()
                .find(|service| service.pid() == Some(pid))
            {
                service.ended(exit, well);
                if service.state == State::Done {
                    status::stage(service.plan.name);
                }
            } else if self.loader == Some(pid) {
                self.loader = None;
                self.power_buttons = open_power_buttons();
                status::stage("modules");
            }
        }
    }

    /// Waits until `deadline` for a child's end, and reaps; false when the time is over.
    pub fn wait_for_child(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut watched = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if left.is_zero() || !matches!(poll(&mut watched, timeout), Ok(1..) | Err(Errno::EINTR)) {
            return false;
        }
        let _ = self.signals.read_signal();
        self.reap();
        true
    }
}

fn take_signals() -> Result<SignalFd, Errno> {
    let mut taken = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGPWR,
    ] {
        taken.add(signal);
    }
    taken.thread_block()?;
    SignalFd::with_flags(&taken, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// In a child of its own: init itself stays free to reap.
fn load_modules() {
    let modules = match Modules::of_running_kernel() {
        Ok(modules) => modules,
        Err(error) => return log::error(&error.to_string()),
    };
    let vsock = std::fs::read_to_string("/proc/cmdline")
        .is_ok_and(|line| line.contains("longshore.channel=vsock"));
    let channel = vsock.then_some("vmw_vsock_virtio_transport");
    for name in channel.into_iter().chain(MODULES.iter().copied()) {
        if let Err(error) = modules.load(name) {
            log::error(&error.to_string());
        }
    }
}

fn open_power_buttons() -> Vec<File> {
    let devices = std::fs::read_dir("/sys/class/input")
        .into_iter()
        .flatten()
        .flatten();
    devices
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("event"))
        .filter(|entry| {
            std::fs::read_to_string(entry.path().join("device/name"))
                .is_ok_and(|name| name.trim() == "Power Button")
        })
        .filter_map(|entry| {
            File::open(format!(
                "/dev/input/{}",
                entry.file_name().to_string_lossy()
            ))
            .ok()
        })
        .collect()
}

/// Reads events (linux/input.h: two longs of time, type, code, value) and says whether one is the power key going down.
fn button_pressed(device: &mut File) -> std::io::Result<bool> {
    const EVENT: usize = size_of::<libc::input_event>();
    const KEY: u16 = 1;
    const POWER: u16 = 116;
    const DOWN: i32 = 1;
    let mut events = [0; EVENT * 16];
    let read = device.read(&mut events)?;
    Ok(events[..read].chunks_exact(EVENT).any(|event| {
        let tail = &event[EVENT - 8..];
        u16::from_ne_bytes([tail[0], tail[1]]) == KEY
            && u16::from_ne_bytes([tail[2], tail[3]]) == POWER
            && i32::from_ne_bytes([tail[4], tail[5], tail[6], tail[7]]) == DOWN
    }))
}
