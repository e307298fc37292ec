//! runc's command line: global flags, a command, its flags and its arguments.

use crate::error::{Error, Result};

/// Flags before the command.
#[derive(Debug, PartialEq, Eq)]
pub struct Global {
    pub root: String,
    pub log: Option<String>,
    pub log_json: bool,
    pub debug: bool,
}

/// A command with its flags; each flag knows whether it takes a value.
#[derive(Debug, PartialEq, Eq)]
pub struct Invocation {
    pub global: Global,
    pub command: String,
    pub flags: Vec<(&'static str, String)>,
    pub args: Vec<String>,
}

pub const DEFAULT_ROOT: &str = "/run/longshore-runtime";

type Flag = (&'static str, &'static str, bool);

/// (long name, short name, takes a value)
const GLOBAL: &[Flag] = &[
    ("root", "", true),
    ("log", "", true),
    ("log-format", "", true),
    ("debug", "", false),
    ("systemd-cgroup", "", false),
    ("rootless", "", true),
    ("criu", "", true),
    ("version", "v", false),
    ("help", "h", false),
];
const CREATE: &[Flag] = &[
    ("bundle", "b", true),
    ("console-socket", "", true),
    ("pid-file", "", true),
    ("pidfd-socket", "", true),
    ("no-pivot", "", false),
    ("no-new-keyring", "", false),
    ("preserve-fds", "", true),
    ("detach", "d", false),
    ("keep", "", false),
    ("no-subreaper", "", false),
];
const EXEC: &[Flag] = &[
    ("console-socket", "", true),
    ("pidfd-socket", "", true),
    ("cwd", "", true),
    ("env", "e", true),
    ("tty", "t", false),
    ("user", "u", true),
    ("additional-gids", "g", true),
    ("process", "p", true),
    ("detach", "d", false),
    ("pid-file", "", true),
    ("process-label", "", true),
    ("apparmor", "", true),
    ("no-new-privs", "", false),
    ("cap", "c", true),
    ("preserve-fds", "", true),
    ("cgroup", "", true),
    ("ignore-paused", "", false),
    ("no-subreaper", "", false),
];
const UPDATE: &[Flag] = &[
    ("resources", "r", true),
    ("blkio-weight", "", true),
    ("cpu-period", "", true),
    ("cpu-quota", "", true),
    ("cpu-burst", "", true),
    ("cpu-share", "", true),
    ("cpu-rt-period", "", true),
    ("cpu-rt-runtime", "", true),
    ("cpuset-cpus", "", true),
    ("cpuset-mems", "", true),
    ("memory", "", true),
    ("memory-reservation", "", true),
    ("memory-swap", "", true),
    ("pids-limit", "", true),
    ("cpu-idle", "", true),
];

/// The flags of a command, or None for a command that does not exist.
fn flags_of(command: &str) -> Option<&'static [Flag]> {
    Some(match command {
        "create" | "run" => CREATE,
        "exec" => EXEC,
        "update" => UPDATE,
        "kill" => &[("all", "a", false)],
        "delete" => &[("force", "f", false)],
        "ps" => &[("format", "f", true)],
        "list" => &[("format", "f", true), ("quiet", "q", false)],
        "events" => &[("stats", "", false), ("interval", "", true)],
        "spec" => &[("bundle", "b", true), ("rootless", "", false)],
        "start" | "state" | "pause" | "resume" | "features" | "version" => &[],
        _ => return None,
    })
}

struct Cursor<'a> {
    words: &'a [String],
    next: usize,
}

impl<'a> Cursor<'a> {
    /// The next flag of `known` with its value, or None at the first word that is not a flag.
    fn flag(&mut self, known: &[Flag]) -> Result<Option<(&'static str, String)>> {
        let Some(word) = self.words.get(self.next) else {
            return Ok(None);
        };
        let Some(body) = word.strip_prefix('-').filter(|body| !body.is_empty()) else {
            return Ok(None);
        };
        self.next += 1;
        if body == "-" {
            return Ok(None);
        }
        let body = body.strip_prefix('-').unwrap_or(body);
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let &(long, _, takes_value) = known
            .iter()
            .find(|(long, short, _)| *long == name || (!short.is_empty() && *short == name))
            .ok_or_else(|| Error::Usage(format!("flag provided but not defined: -{name}")))?;
        let value = match inline {
            Some(value) => value,
            None if !takes_value || long == "rootless" => "true".to_owned(),
            None => {
                let value = self.words.get(self.next).cloned();
                self.next += 1;
                value.ok_or_else(|| Error::Usage(format!("flag needs an argument: -{name}")))?
            }
        };
        Ok(Some((long, value)))
    }
}

/// Parses everything after the program's name.
pub fn parse(words: &[String]) -> Result<Invocation> {
    let mut cursor = Cursor { words, next: 0 };
    let mut global = Global {
        root: DEFAULT_ROOT.to_owned(),
        log: None,
        log_json: false,
        debug: false,
    };
    let mut command = None;
    while let Some((name, value)) = cursor.flag(GLOBAL)? {
        match name {
            "root" => global.root = value,
            "log" => global.log = Some(value).filter(|path| !path.is_empty()),
            "log-format" => global.log_json = log_format(&value)?,
            "debug" => global.debug = value != "false",
            "systemd-cgroup" if value != "false" => {
                return Err(Error::Usage(
                    "--systemd-cgroup is not supported: there is no systemd here, use cgroupfs paths"
                        .to_owned(),
                ));
            }
            "version" | "help" => command = Some(name.to_owned()),
            _ => {}
        }
    }
    let command = match command {
        Some(command) => command,
        None => {
            let word = words
                .get(cursor.next)
                .cloned()
                .unwrap_or_else(|| "help".to_owned());
            cursor.next += 1;
            word
        }
    };
    let mut flags = Vec::new();
    let mut args = Vec::new();
    if command != "help" {
        let known = flags_of(&command)
            .ok_or_else(|| Error::Usage(format!("No help topic for '{command}'")))?;
        flags = command_flags(&mut cursor, known)?;
        args = words.get(cursor.next..).unwrap_or_default().to_vec();
    }
    Ok(Invocation {
        global,
        command,
        flags,
        args,
    })
}

fn log_format(value: &str) -> Result<bool> {
    match value {
        "json" => Ok(true),
        "text" | "" => Ok(false),
        other => Err(Error::Usage(format!("invalid log-format: {other}"))),
    }
}

fn command_flags(cursor: &mut Cursor<'_>, known: &[Flag]) -> Result<Vec<(&'static str, String)>> {
    let mut flags = Vec::new();
    while let Some(flag) = cursor.flag(known)? {
        flags.push(flag);
    }
    Ok(flags)
}

impl Invocation {
    pub fn value(&self, name: &str) -> Option<&str> {
        self.flags
            .iter()
            .rev()
            .find(|(flag, _)| *flag == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.flags
            .iter()
            .filter(move |(flag, _)| *flag == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn is_set(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value != "false")
    }

    pub fn number(&self, name: &str) -> Result<Option<i64>> {
        self.value(name)
            .map(|value| {
                value.parse().map_err(|_| {
                    Error::Usage(format!(
                        "invalid value {value:?} for flag -{name}: parse error"
                    ))
                })
            })
            .transpose()
    }

    /// The container's ID, which every command but a few takes first.
    pub fn id(&self) -> Result<&str> {
        let id = self.args.first().map(String::as_str).unwrap_or_default();
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
        if id.is_empty() {
            return Err(Error::Usage(format!(
                "{}: container id cannot be empty",
                self.command
            )));
        }
        if id == "." || id == ".." || id.len() > 1024 || !id.bytes().all(valid) {
            return Err(Error::InvalidId(id.to_owned()));
        }
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Invocation> {
        parse(
            &line
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn create_as_the_shims_call_it() {
        let call = parse_line(
            "--root /run/r --log /b/log.json --log-format json --rootless=false create \
             --bundle /b --pid-file /b/init.pid --console-socket=/s abc",
        )
        .unwrap();
        assert_eq!(call.global.root, "/run/r");
        assert!(call.global.log_json);
        assert_eq!(call.command, "create");
        assert_eq!(call.value("bundle"), Some("/b"));
        assert_eq!(call.value("console-socket"), Some("/s"));
        assert_eq!(call.id().unwrap(), "abc");
    }

    #[test]
    fn arguments_after_the_id_are_left_alone() {
        let call = parse_line("exec -t -u 1:2 -e A=b c1 ls -l --all").unwrap();
        assert!(call.is_set("tty"));
        assert_eq!(call.values("env").collect::<Vec<_>>(), ["A=b"]);
        assert_eq!(call.args, ["c1", "ls", "-l", "--all"]);
    }

    #[test]
    fn negative_values_and_dash_as_value() {
        let call = parse_line("update --resources - --memory-swap -1 c1").unwrap();
        assert_eq!(call.value("resources"), Some("-"));
        assert_eq!(call.number("memory-swap").unwrap(), Some(-1));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, words) in [
            ("frob c1", "No help topic for 'frob'"),
            ("create --nope c1", "flag provided but not defined: -nope"),
            ("create --bundle", "flag needs an argument: -bundle"),
            (
                "--systemd-cgroup create c1",
                "--systemd-cgroup is not supported",
            ),
            ("--log-format xml state c1", "invalid log-format: xml"),
        ] {
            let error = parse_line(line).unwrap_err().to_string();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn ids_cannot_leave_the_state_directory() {
        for id in ["..", ".", "a/b", "a b", "é"] {
            let call = parse(&["state".to_owned(), id.to_owned()]).unwrap();
            assert!(call.id().is_err(), "{id}");
        }
    }
}
