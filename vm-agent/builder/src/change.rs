//! Instructions that only change the configuration: in a Dockerfile, and for `commit --change` and `import --change`.

use std::path::Path;

use crate::config::{Config, Nothing};
use crate::dockerfile::{self, Instruction};
use crate::error::{Error, Result};
use crate::health;
use crate::lexer::{self, Lookup};

/// Applies instructions as `docker commit --change` takes them.
pub fn change(config: &mut Config, lines: &[String]) -> Result<()> {
    for line in lines
        .iter()
        .flat_map(|text| text.lines())
        .filter(|line| !line.trim().is_empty())
    {
        let keyword = line.split_whitespace().next().unwrap_or_default();
        if !dockerfile::is_instruction(keyword) {
            return Err(Error::instruction(format!(
                "{keyword} is not a valid change command"
            )));
        }
        let instruction = dockerfile::instruction(line, 1)?;
        const ALLOWED: [&str; 13] = [
            "CMD",
            "ENTRYPOINT",
            "ENV",
            "EXPOSE",
            "HEALTHCHECK",
            "LABEL",
            "ONBUILD",
            "SHELL",
            "STOPSIGNAL",
            "USER",
            "VOLUME",
            "WORKDIR",
            "MAINTAINER",
        ];
        if !ALLOWED.contains(&instruction.keyword.as_str()) {
            let name = instruction.keyword.to_ascii_lowercase();
            return Err(Error::instruction(format!(
                "{name} is not a valid change command"
            )));
        }
        let known = config.env.clone();
        let lookup = |name: &str| variable(&known, name);
        apply(config, &instruction, '\\', &lookup, true)?;
    }
    Ok(())
}

pub fn variable(env: &[String], name: &str) -> Option<String> {
    let pairs = env.iter().filter_map(|entry| entry.split_once('='));
    pairs
        .filter(|(known, _)| *known == name)
        .map(|(_, value)| value.to_owned())
        .next_back()
}

/// Applies one instruction. Returns the text that the history shows for it; `None`: it is not one of these.
/// `cmd_set`: ENTRYPOINT leaves CMD alone.
pub fn apply(
    config: &mut Config,
    instruction: &Instruction,
    escape: char,
    lookup: Lookup<'_>,
    cmd_set: bool,
) -> Result<Option<String>> {
    if instruction.keyword != "HEALTHCHECK" {
        instruction.allow_flags(&[])?;
    }
    let rest = instruction.rest.as_str();
    let keyword = instruction.keyword.as_str();
    let bad = |why: String| Error::Parse {
        line: instruction.line,
        why,
    };
    let word = |text: &str| lexer::word(text, escape, lookup);
    let comment = match keyword {
        "ENV" | "LABEL" => {
            let pairs = pairs(rest, escape, lookup).map_err(|error| match error {
                Error::Instruction(why) => bad(why),
                other => other,
            })?;
            let mut shown = keyword.to_owned();
            for (name, value) in pairs {
                if name.is_empty() {
                    return Err(bad(format!("{keyword} names can not be blank")));
                }
                shown += &format!(" {name}={value}");
                match keyword {
                    "ENV" => config.set_env(&name, &value),
                    _ => drop(config.labels.insert(name, value)),
                }
            }
            shown
        }
        "CMD" | "ENTRYPOINT" => {
            let words = command(config, instruction);
            let shown = serde_json::to_string(&words).unwrap_or_default();
            let words = (!words.is_empty()).then_some(words);
            match keyword {
                "CMD" => config.cmd = words,
                _ => {
                    config.entrypoint = words;
                    if !cmd_set {
                        config.cmd = None;
                    }
                }
            }
            format!("{keyword} {shown}")
        }
        "WORKDIR" => {
            config.working_dir = join(&config.working_dir, &word(rest)?);
            format!("WORKDIR {}", config.working_dir)
        }
        "USER" => {
            config.user = word(rest)?;
            format!("USER {}", config.user)
        }
        "STOPSIGNAL" => {
            config.stop_signal = word(rest)?;
            format!("STOPSIGNAL {}", config.stop_signal)
        }
        "EXPOSE" => {
            let mut shown = Vec::new();
            for port in lexer::words(rest, escape, lookup)? {
                for port in
                    ports(&port).ok_or_else(|| bad(format!("invalid containerPort: {port}")))?
                {
                    shown.push(port.clone());
                    config.exposed_ports.insert(port, Nothing {});
                }
            }
            format!("EXPOSE {}", shown.join(" "))
        }
        "VOLUME" => {
            let volumes = match &instruction.json {
                Some(list) => list.iter().map(|v| word(v)).collect::<Result<Vec<_>>>()?,
                None => lexer::words(rest, escape, lookup)?,
            };
            for volume in &volumes {
                if volume.trim().is_empty() {
                    return Err(bad("VOLUME specified can not be an empty string".into()));
                }
                config.volumes.insert(volume.clone(), Nothing {});
            }
            format!("VOLUME [{}]", volumes.join(" "))
        }
        "ONBUILD" => {
            let trigger = dockerfile::instruction(rest, instruction.line)?;
            if matches!(trigger.keyword.as_str(), "ONBUILD") {
                return Err(bad(
                    "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into()
                ));
            }
            if matches!(trigger.keyword.as_str(), "FROM" | "MAINTAINER") {
                return Err(bad(format!(
                    "{} isn't allowed as an ONBUILD trigger",
                    trigger.keyword
                )));
            }
            config.on_build.push(rest.to_owned());
            format!("ONBUILD {rest}")
        }
        "SHELL" => {
            let shell = instruction.json.clone().filter(|words| !words.is_empty());
            let shell = shell
                .ok_or_else(|| bad("SHELL requires the arguments to be in JSON form".into()))?;
            let shown = format!("SHELL [{}]", shell.join(" "));
            config.shell = Some(shell);
            shown
        }
        "HEALTHCHECK" => {
            let health = health::parse(instruction)?;
            let shown = serde_json::to_string(&health.test).unwrap_or_default();
            config.healthcheck = Some(health);
            format!("HEALTHCHECK {shown}")
        }
        _ => return Ok(None),
    };
    Ok(Some(comment))
}

/// The exec form as it is, the shell form under the configuration's shell.
pub fn command(config: &Config, instruction: &Instruction) -> Vec<String> {
    match &instruction.json {
        Some(words) => words.clone(),
        None if instruction.rest.is_empty() => Vec::new(),
        None => {
            let mut words = config.shell();
            words.push(instruction.rest.clone());
            words
        }
    }
}

/// A path inside the image, from its working folder.
pub fn join(working_dir: &str, path: &str) -> String {
    let base = if path.starts_with('/') {
        ""
    } else {
        working_dir
    };
    let whole = crate::root::clean(&Path::new("/").join(base.trim_start_matches('/')).join(path));
    format!("/{}", whole.display())
}

/// `NAME=VALUE …`, or the old form `NAME VALUE`.
fn pairs(text: &str, escape: char, lookup: Lookup<'_>) -> Result<Vec<(String, String)>> {
    let text = text.trim();
    let first_end = text
        .find(|c: char| c.is_whitespace() || c == '=')
        .unwrap_or(text.len());
    let is_new = text.starts_with(['"', '\'']) || text[first_end..].starts_with('=');
    if !is_new {
        let (name, value) = text
            .split_once(char::is_whitespace)
            .ok_or_else(|| Error::instruction(format!("{text} must have two arguments")))?;
        let value = lexer::word(value.trim(), escape, lookup)?;
        return Ok(vec![(lexer::word(name, escape, lookup)?, value)]);
    }
    lexer::words(text, escape, lookup)?
        .into_iter()
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(Error::instruction(format!(
                "Syntax error - can't find = in {pair:?}. Must be of the form: name=value"
            ))),
        })
        .collect()
}

/// `80`, `80/udp`, `8000-8002`: with their protocol, one by one.
fn ports(text: &str) -> Option<Vec<String>> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return None;
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then(|| {
        (first..=last)
            .map(|port| format!("{port}/{protocol}"))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_edit_the_configuration() {
        let lines = [
            "CMD [\"x\"]",
            "ENV A=1 B=\"two words\"",
            "env C old form",
            "LABEL k=\"v\"",
            "EXPOSE 80 53/udp 90-91",
            "VOLUME /d",
            "ENTRYPOINT run it",
            "WORKDIR /w",
            "WORKDIR sub",
            "ENV D=$A",
            "USER web",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN x",
        ];
        let mut config = Config::default();
        change(&mut config, &lines.map(str::to_owned)).unwrap();
        assert_eq!(config.cmd.as_deref(), Some(&["x".to_owned()][..]));
        assert_eq!(config.env, ["A=1", "B=two words", "C=old form", "D=1"]);
        assert_eq!(config.labels["k"], "v");
        let ports: Vec<&str> = config.exposed_ports.keys().map(String::as_str).collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "90/tcp", "91/tcp"]);
        assert_eq!(config.entrypoint.as_ref().unwrap()[2], "run it");
        assert_eq!(
            (config.working_dir.as_str(), config.user.as_str()),
            ("/w/sub", "web")
        );
        assert_eq!(config.on_build, ["RUN x"]);
        for (bad, words) in [
            ("RUN x", "run is not a valid change command"),
            ("ENV A", "must have two arguments"),
            ("EXPOSE x", "invalid containerPort: x"),
            ("FOO", "FOO is not a valid change command"),
            ("SHELL sh", "JSON form"),
            ("ONBUILD FROM x", "isn't allowed"),
        ] {
            let error = change(&mut Config::default(), &[bad.to_owned()])
                .unwrap_err()
                .to_string();
            assert!(error.contains(words), "{bad}: {error}");
        }
    }

    #[test]
    fn working_folders_are_joined() {
        for (base, path, expected) in [
            ("", "/a", "/a"),
            ("/a", "b", "/a/b"),
            ("/a", "../b", "/b"),
            ("", "x", "/x"),
            ("/a", "/", "/"),
        ] {
            assert_eq!(join(base, path), expected);
        }
    }
}
