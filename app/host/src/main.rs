//! `longshore-host`: one background service for each `LONGSHORE_HOME`, started by `longshore` when it is needed.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use longshore_host::service::Service;
use longshore_host::{api, data_place, docker_proxy, settings_file};
use longshore_host_api::{Home, program, spawn};
use longshore_local_socket::Listener;
use tokio_util::sync::CancellationToken;

/// Requests under way may take so long to end when the service does.
const GRACE: Duration = Duration::from_millis(300);

/// Longshore's background service. `longshore` starts it; there is no need to run it by hand.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// The folder of the instance [default: $LONGSHORE_HOME, or the platform's data folder]
    #[arg(long)]
    home: Option<PathBuf>,
    /// Stay in this session and write the log to standard error
    #[arg(long)]
    foreground: bool,
}

fn main() -> std::process::ExitCode {
    let options = Options::parse();
    match run(options) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            // Whoever started us reads one line: why not.
            println!("{error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> anyhow::Result<()> {
    let level = tracing_subscriber::EnvFilter::try_from_env("LONGSHORE_LOG")
        .unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(level)
        .with_ansi(options.foreground)
        .with_writer(std::io::stderr)
        .init();
    let home = Home::open(options.home)?;
    home.create()?;
    #[cfg(unix)]
    if !options.foreground {
        // Fails only for the leader of a process group, which already stands alone.
        let _ = nix::unistd::setsid();
    }
    raise_descriptor_limit();
    let _lock = lock(&home)?;
    if let Err(error) = program::remember(&home) {
        tracing::warn!(%error, "an update of this program will not be known as one");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(home))?;
    runtime.shutdown_timeout(GRACE);
    Ok(())
}

async fn serve(home: Home) -> anyhow::Result<()> {
    data_place::settle(&home);
    let stored = settings_file::load(&home.settings_file())?;
    let end = CancellationToken::new();
    let service = Service::new(home.clone(), stored, end.clone());
    let docker = Listener::bind(&home.docker_socket()).await?;
    let host = Listener::bind(&home.host_socket()).await?;
    tracing::info!(home = %home.root().display(), version = env!("CARGO_PKG_VERSION"), "serving");
    if home.socket_folder() != home.root() {
        tracing::info!(sockets = %home.socket_folder().display(), "the home's path is too long for sockets");
    }
    tokio::spawn(service.vm().clone().reconnect());
    let docker = tokio::spawn(docker_proxy::serve(
        docker,
        service.vm().phase(),
        home.channel_socket(),
        end.clone(),
    ));
    let api = tokio::spawn(api::serve(host, service, end.clone()));
    say_ready()?;
    tokio::select! {
        () = end.cancelled() => {}
        signal = ended_by_signal() => signal?,
    }
    tracing::info!("ending; a running VM goes on");
    end.cancel();
    docker.await?;
    api.await?;
    // The answer to the request that ended us is still on its way.
    tokio::time::sleep(GRACE).await;
    Ok(())
}

/// Two services of one home would fight over its sockets; the second waits for the first that is ending, not for ever.
fn lock(home: &Home) -> anyhow::Result<File> {
    let path = home.host_lock();
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(&path)?;
    let deadline = std::time::Instant::now() + 10 * GRACE;
    while let Err(error) = file.try_lock() {
        match error {
            std::fs::TryLockError::Error(e) => {
                return Err(e).with_context(|| format!("cannot lock {}", path.display()));
            }
            std::fs::TryLockError::WouldBlock if std::time::Instant::now() > deadline => {
                bail!("a host service already runs for {}", home.root().display());
            }
            std::fs::TryLockError::WouldBlock => std::thread::sleep(GRACE / 10),
        }
    }
    Ok(file)
}

/// Tells whoever started us, then lets go of the pipe.
fn say_ready() -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{}", spawn::READY)?;
    out.flush()?;
    #[cfg(unix)]
    nix::unistd::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    Ok(())
}

/// Each forwarded connection is two descriptors, and many systems start programs with 1024.
fn raise_descriptor_limit() {
    #[cfg(unix)]
    {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(1 << 16), hard);
        }
    }
}

#[cfg(unix)]
async fn ended_by_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(not(unix))]
async fn ended_by_signal() -> anyhow::Result<()> {
    Ok(tokio::signal::ctrl_c().await?)
}
