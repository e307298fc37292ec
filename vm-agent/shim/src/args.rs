//! The shim's command line, as containerd writes it (Go's flag syntax).

use std::path::PathBuf;

/// What containerd asks of this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start serving and print the address.
    Start,
    /// Clean up after a shim that is gone.
    Delete,
    /// Print the runtime's information (a `RuntimeInfo` message).
    Info,
    /// Print the version.
    Version,
}

/// The parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Args {
    pub action: Action,
    pub namespace: String,
    pub id: String,
    /// containerd's gRPC socket.
    pub address: String,
    pub bundle: Option<PathBuf>,
    pub debug: bool,
}

/// Why a command line was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ArgsError {
    #[error("flag -{0} is not known")]
    UnknownFlag(String),
    #[error("flag -{0} needs a value")]
    MissingValue(String),
    #[error("action {0:?} is not start or delete")]
    UnknownAction(String),
    #[error("action is missing: start or delete")]
    MissingAction,
    #[error("flag -{0} is missing")]
    MissingFlag(&'static str),
    #[error("-{0} {1:?} is not a valid identifier")]
    BadIdentifier(&'static str, String),
}

impl Args {
    /// Parses everything after the program's name.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Args, ArgsError> {
        let mut parsed = Args {
            action: Action::Version,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            bundle: None,
            debug: false,
        };
        let mut action = None;
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
                action = Some(match arg.as_str() {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    _ => return Err(ArgsError::UnknownAction(arg)),
                });
                continue;
            };
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let on = inline.as_deref() != Some("false");
            match name {
                "debug" => parsed.debug = on,
                "info" => action = Some(Action::Info),
                "v" | "version" => action = Some(Action::Version),
                _ => {
                    let missing = || ArgsError::MissingValue(name.to_owned());
                    let value = inline.or_else(|| args.next()).ok_or_else(missing)?;
                    parsed.set(name, value)?;
                }
            }
        }
        parsed.action = action.ok_or(ArgsError::MissingAction)?;
        parsed.check()
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), ArgsError> {
        match name {
            "namespace" => self.namespace = value,
            "id" => self.id = value,
            "address" => self.address = value,
            "bundle" => self.bundle = Some(value.into()),
            // Events go over ttrpc instead of the binary; the socket's place is ours to choose.
            "publish-binary" | "socket" => {}
            _ => return Err(ArgsError::UnknownFlag(name.to_owned())),
        }
        Ok(())
    }

    fn check(self) -> Result<Args, ArgsError> {
        if matches!(self.action, Action::Start | Action::Delete) {
            for (name, value) in [("namespace", &self.namespace), ("id", &self.id)] {
                if value.is_empty() {
                    return Err(ArgsError::MissingFlag(name));
                }
                // They become parts of paths.
                let bad = value.contains('/') || value.starts_with('.') || value.len() > 128;
                if bad {
                    return Err(ArgsError::BadIdentifier(name, value.clone()));
                }
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, ArgsError> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn start_as_containerd_writes_it() {
        let args = parse(
            "-namespace moby -address /run/containerd/containerd.sock -publish-binary \
             /usr/bin/containerd -id c1 -debug start",
        )
        .unwrap();
        assert_eq!(
            (args.action, args.namespace.as_str(), args.id.as_str()),
            (Action::Start, "moby", "c1")
        );
        assert!(args.debug);
        let args = parse("--namespace=n --id=x --bundle=/b delete").unwrap();
        assert_eq!(
            (args.action, args.bundle),
            (Action::Delete, Some("/b".into()))
        );
    }

    #[test]
    fn refused() {
        for (line, error) in [
            ("-namespace n -id x", ArgsError::MissingAction),
            ("-id x start", ArgsError::MissingFlag("namespace")),
            (
                "-namespace n -id ../x start",
                ArgsError::BadIdentifier("id", "../x".into()),
            ),
            ("-what x start", ArgsError::UnknownFlag("what".into())),
            ("-id", ArgsError::MissingValue("id".into())),
            ("serve", ArgsError::UnknownAction("serve".into())),
        ] {
            assert_eq!(parse(line), Err(error), "{line}");
        }
    }
}
