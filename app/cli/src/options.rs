//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use longshore_host_api::types::LogSource;

/// Linux containers in a small VM, driven by the ordinary docker command.
#[derive(Parser)]
#[command(
    name = "longshore",
    version,
    arg_required_else_help = true,
    after_help = "\
State lives in $LONGSHORE_HOME (default: the platform's data folder); each such folder is an instance of its own.
Exit codes: 0 done, 2 bad input, 3 not found, 4 not in this state, 5 something is missing on this machine,
6 the VM did not start, 7 no host service, 8 new settings did not work and those before are back, 1 anything else; `shell` passes on its command's code."
)]
pub struct Options {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Start the VM; returns when docker works
    Start(StartFlags),
    /// Stop the containers and the VM
    Stop,
    /// Stop and start again
    Restart,
    /// Show the state of the VM, its shares and published ports
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a log, or where a request's time went
    Logs(LogFlags),
    /// Run a shell, or a command, in the VM itself
    Shell {
        /// The command and its arguments; a login shell when left out
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Check every link between docker and the containers
    Doctor {
        /// Read every image, container and volume instead, and say whether each is whole
        #[arg(long)]
        store: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write what somebody who helps needs to see into an archive: versions, settings, state, logs; secrets are removed
    Diagnose {
        /// The archive [default: longshore-diagnostics-TIME.tar.gz here]
        #[arg(long, short, value_name = "FILE")]
        output: Option<std::path::PathBuf>,
    },
    /// Print the value for DOCKER_HOST
    #[command(after_help = "Use it as: export DOCKER_HOST=$(longshore docker-host)")]
    DockerHost,
    /// Open the window
    App,
    /// Open the window's pages in a browser
    #[command(
        after_help = "The address works once, for two minutes; the pages stay open until the host service ends, or --close."
    )]
    Ui(UiFlags),
    /// Run a first container, a page on a port of this machine; it needs no registry
    Welcome,
    /// Show or change settings
    #[command(subcommand)]
    Settings(SettingsCommand),
}

#[derive(Args, Default)]
#[command(after_help = "What is given here is remembered, as with `longshore settings set`.")]
pub struct StartFlags {
    /// Virtual CPUs [default: as many as the host has]
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// Memory, such as 2g [default: half of the host's, at most 4g]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Largest size of the data disk, which grows as it is used [default: 64g]
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<String>,
    /// How the VM's CPUs run
    #[arg(long, value_name = "auto|kvm|hvf|whpx|tcg", value_parser = ["auto", "kvm", "hvf", "whpx", "tcg"], hide_possible_values = true)]
    pub accel: Option<String>,
    /// How host and VM talk
    #[arg(long, value_name = "auto|vsock|serial", value_parser = ["auto", "vsock", "serial"], hide_possible_values = true)]
    pub channel: Option<String>,
    /// One more folder that containers may mount; PATH:ro for reading only
    #[arg(long = "share", value_name = "PATH")]
    pub shares: Vec<String>,
    /// Try the installed guest image again, which did not start (this once; not remembered)
    #[arg(long)]
    pub retry_image: bool,
}

#[derive(Args)]
pub struct UiFlags {
    /// Only print the address
    #[arg(long)]
    pub no_open: bool,
    /// Close the pages, for every browser that shows them
    #[arg(long, conflicts_with = "no_open")]
    pub close: bool,
}

#[derive(Args)]
pub struct LogFlags {
    /// Go on as the log grows
    #[arg(long, short)]
    pub follow: bool,
    /// Show where the time of one request went; its id is in the response header Traceparent
    #[arg(long, value_name = "ID", conflicts_with_all = ["follow", "source"])]
    pub trace: Option<String>,
    #[arg(default_value = "host")]
    pub source: Source,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Source {
    /// The host service
    Host,
    /// The VM's serial console
    Console,
    /// The Docker daemon in the VM
    Daemon,
    /// The containerd-like supervisor in the VM
    Supervisor,
    /// The guest's agent
    Agent,
}

impl From<Source> for LogSource {
    fn from(source: Source) -> Self {
        match source {
            Source::Host => LogSource::Host,
            Source::Console => LogSource::Console,
            Source::Daemon => LogSource::Daemon,
            Source::Supervisor => LogSource::Supervisor,
            Source::Agent => LogSource::Agent,
        }
    }
}

#[derive(Subcommand)]
pub enum SettingsCommand {
    /// Print one setting, or all
    Get {
        key: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Change settings: KEY=VALUE, KEY= for the default; for lists also KEY+=VALUE and KEY-=VALUE
    #[command(after_help = settings_help())]
    Set {
        #[arg(required = true, value_name = "KEY=VALUE")]
        assignments: Vec<String>,
    },
    /// Move the data of images, containers and volumes into another folder
    #[command(
        after_help = "The engine is stopped for it and started again. Until the copy is whole, and was compared, the old data counts."
    )]
    MoveData { folder: std::path::PathBuf },
}

fn settings_help() -> String {
    let mut help = "Settings:\n".to_owned();
    for key in longshore_host_api::settings::KEYS {
        help.push_str(&format!("  {:<20} {}\n", key.name, key.help));
    }
    help
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn a_shell_command_keeps_its_own_flags() {
        for line in ["longshore shell -- ls -l", "longshore shell ls -l"] {
            let options = Options::try_parse_from(line.split(' ')).unwrap();
            let Command::Shell { command } = options.command else {
                panic!("not shell")
            };
            assert_eq!(command, ["ls", "-l"]);
        }
    }
}
