//! start, stop, restart: staged progress on a terminal, plain lines otherwise.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use futures::{Stream, StreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use longshore_host_api::types::{Progress, StartRequest, Status};
use longshore_host_api::{ApiError, Client, ErrorCode};

use crate::context;
use crate::options::StartFlags;
use crate::terminal::seconds;

pub async fn start(client: &Client, flags: StartFlags) -> Result<ExitCode, ApiError> {
    let request = StartRequest {
        cpus: flags.cpus,
        memory: flags.memory,
        disk: flags.disk,
        accelerator: flags.accel,
        channel: flags.channel,
        shares: flags
            .shares
            .iter()
            .map(|s| absolute(s))
            .collect::<Result<_, _>>()?,
        retry_image: flags.retry_image,
    };
    let (already, status, elapsed) = follow(client.start(&request).await?).await?;
    if already {
        println!("Longshore is already {}.", status.state.as_str());
    } else {
        println!("Longshore runs, started in {}.", seconds(elapsed));
    }
    introduce(client, &status).await;
    Ok(ExitCode::SUCCESS)
}

pub async fn stop(client: &Client) -> Result<ExitCode, ApiError> {
    let (already, _, elapsed) = follow(client.stop().await?).await?;
    if already {
        println!("Longshore is not running.");
    } else {
        println!("Longshore stopped in {}.", seconds(elapsed));
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn restart(client: &Client) -> Result<ExitCode, ApiError> {
    stop(client).await?;
    start(client, StartFlags::default()).await
}

/// The service does not know in which folder the user stands.
pub fn absolute(share: &str) -> Result<String, ApiError> {
    let (path, read_only) = longshore_host_api::settings::split_share(share);
    let path = std::path::absolute(&path)
        .map_err(|e| ApiError::invalid(format!("cannot share {share:?}: {e}")))?;
    Ok(format!(
        "{}{}",
        without_dots(&path).display(),
        if read_only { ":ro" } else { "" }
    ))
}

/// `/a/../b` as the user's shell would show it; links are left as they are, as `$PWD` does.
fn without_dots(path: &Path) -> std::path::PathBuf {
    let mut clean = std::path::PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                clean.pop();
            }
            std::path::Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean
}

/// What to type next.
async fn introduce(client: &Client, status: &Status) {
    let home = client.home();
    if home.socket_folder() != home.root() {
        println!(
            "Sockets are in {}, as the path of LONGSHORE_HOME is too long.",
            home.socket_folder().display()
        );
    }
    let wanted = match client.settings().await {
        Ok(settings) => settings
            .get("docker_context")
            .and_then(|v| v.as_bool())
            .unwrap_or(true),
        Err(_) => false,
    };
    let context = if wanted && home.is_default() {
        Some(context::offer(home))
    } else {
        None
    };
    match context {
        Some(context::Offer::Ready) if std::env::var_os("DOCKER_HOST").is_none() => {
            println!("Try:  docker --context longshore run --rm hello-world");
            println!("Or make it the default:  docker context use longshore");
            return;
        }
        Some(context::Offer::Other(host)) => {
            println!("The docker context \"longshore\" points to {host} and was left as it is.");
        }
        Some(context::Offer::Failed(why)) => println!("No docker context was made: {why}"),
        _ => {}
    }
    println!("Type:  export DOCKER_HOST={}", status.docker_host);
    println!("Then:  docker run --rm hello-world");
}

/// Shows progress until the end; what was there already, the status and the time it took.
pub async fn follow(
    events: impl Stream<Item = Result<Progress, ApiError>>,
) -> Result<(bool, Status, u64), ApiError> {
    let mut events = std::pin::pin!(events);
    let mut screen = Screen::new();
    while let Some(event) = events.next().await {
        match event? {
            Progress::Stage {
                text, elapsed_ms, ..
            } => screen.stage(&text, elapsed_ms),
            Progress::Notice { text } => screen.notice(&text),
            Progress::Done {
                already,
                status,
                elapsed_ms,
            } => {
                screen.finish(elapsed_ms, true);
                return Ok((already, *status, elapsed_ms));
            }
            Progress::Failed { error } => {
                screen.finish(0, false);
                return Err(error);
            }
        }
    }
    screen.finish(0, false);
    Err(ApiError::new(
        ErrorCode::NoService,
        "the host service ended in the middle of the work",
    )
    .with_hint("longshore logs host"))
}

/// One spinner for the stage under way; finished stages stay above it with their times.
struct Screen {
    bar: Option<ProgressBar>,
    /// The stage under way and when it began.
    stage: Option<(String, u64)>,
}

impl Screen {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}  {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, stage: None }
    }

    fn stage(&mut self, text: &str, elapsed_ms: u64) {
        self.close_stage(elapsed_ms, "✓");
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => eprintln!("[{}] {text}", seconds(elapsed_ms)),
        }
        self.stage = Some((text.to_owned(), elapsed_ms));
    }

    fn close_stage(&mut self, elapsed_ms: u64, mark: &str) {
        if let (Some(bar), Some((text, began))) = (&self.bar, self.stage.take()) {
            let took = seconds(elapsed_ms.saturating_sub(began));
            bar.println(if elapsed_ms > 0 {
                format!("{mark} {text}  {took}")
            } else {
                format!("{mark} {text}")
            });
        }
    }

    fn notice(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(format!("  {text}")),
            None => eprintln!("{text}"),
        }
    }

    fn finish(&mut self, elapsed_ms: u64, well: bool) {
        self.close_stage(elapsed_ms, if well { "✓" } else { "✗" });
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn shares_are_made_absolute_without_following_links() {
        let here = std::env::current_dir().unwrap();
        let table = [
            ("/a/b", "/a/b".to_owned()),
            ("/a/./b/../c:ro", "/a/c:ro".to_owned()),
            ("sub", here.join("sub").display().to_string()),
        ];
        for (text, want) in table {
            assert_eq!(absolute(text).unwrap(), want);
        }
    }
}
