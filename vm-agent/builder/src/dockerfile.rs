//! A Dockerfile's instructions: lines joined, comments dropped, flags and JSON forms told apart.

use crate::error::{Error, Result};

/// Longer files are refused: nobody's Dockerfile, and each instruction costs memory.
const LIMIT: usize = 4 << 20;

#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// In capitals.
    pub keyword: String,
    /// `--name=value` and `--name`, in front of the arguments.
    pub flags: Vec<(String, String)>,
    /// What follows the flags, variables unreplaced.
    pub rest: String,
    /// `rest`, when it is a JSON array of strings.
    pub json: Option<Vec<String>>,
    /// The whole instruction on one line, as the builder prints it.
    pub original: String,
    pub line: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Dockerfile {
    pub instructions: Vec<Instruction>,
    pub escape: char,
}

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// `name` is for the message about an empty file.
pub fn parse(text: &str, name: &str) -> Result<Dockerfile> {
    if text.len() > LIMIT {
        return Err(Error::Parse {
            line: 1,
            why: "the Dockerfile is too large".into(),
        });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut escape = '\\';
    let mut directives = true;
    let mut instructions = Vec::new();
    let (mut joined, mut first): (String, usize) = (String::new(), 0);
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let trimmed = line.trim();
        if directives {
            match directive(trimmed) {
                Some(("escape", value)) => {
                    escape = match value {
                        "`" => '`',
                        "\\" => '\\',
                        _ => {
                            let why =
                                format!("invalid escape token '{value}' does not match ` or \\");
                            return Err(Error::Parse { line: number, why });
                        }
                    };
                    continue;
                }
                Some(_) => continue,
                None => directives = false,
            }
        }
        // Comments and blank lines stand also between the lines of one instruction.
        if trimmed.starts_with('#') || trimmed.is_empty() {
            continue;
        }
        if joined.is_empty() {
            first = number;
        }
        let line = if joined.is_empty() {
            line.trim_start()
        } else {
            line
        };
        let end = line.trim_end();
        match end.strip_suffix(escape) {
            Some(head) => {
                joined.push_str(head);
                continue;
            }
            None => joined.push_str(end),
        }
        instructions.push(instruction(&std::mem::take(&mut joined), first)?);
    }
    if !joined.trim().is_empty() {
        instructions.push(instruction(&joined, first)?);
    }
    if instructions.is_empty() {
        return Err(Error::Empty(name.to_owned()));
    }
    Ok(Dockerfile {
        instructions,
        escape,
    })
}

/// `# escape=x`, `# syntax=x`: only before everything else.
fn directive(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix('#')?.split_once('=')?;
    let name = name.trim();
    ["escape", "syntax", "check"]
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(name))
        .map(|known| (known, value.trim()))
}

/// Whether a word, in either case, begins an instruction.
pub fn is_instruction(keyword: &str) -> bool {
    KEYWORDS.contains(&keyword.to_ascii_uppercase().as_str())
}

/// Parses one instruction, also those that stand behind ONBUILD.
pub fn instruction(text: &str, line: usize) -> Result<Instruction> {
    let text = text.trim();
    let (keyword, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let original = text.to_owned();
    let upper = keyword.to_ascii_uppercase();
    if !is_instruction(keyword) {
        let why = format!("unknown instruction: {keyword}");
        return Err(Error::Parse { line, why });
    }
    let (flags, rest) = flags(rest.trim());
    if rest.is_empty() && !matches!(upper.as_str(), "CMD" | "ENTRYPOINT" | "SHELL") {
        let why = match upper.as_str() {
            "ARG" | "LABEL" | "ENV" | "RUN" | "EXPOSE" | "VOLUME" | "MAINTAINER" | "ONBUILD" => {
                format!("{upper} requires at least one argument")
            }
            "FROM" => "FROM requires either one or three arguments".to_owned(),
            "COPY" | "ADD" => format!(
                "{upper} requires at least two arguments, but only one was provided. Destination could not be determined"
            ),
            _ => format!("{upper} requires exactly one argument"),
        };
        return Err(Error::Parse { line, why });
    }
    let takes_json = matches!(
        upper.as_str(),
        "ADD" | "COPY" | "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" | "VOLUME"
    );
    let json = match takes_json && rest.starts_with('[') {
        true => serde_json::from_str(rest).ok(),
        false => None,
    };
    Ok(Instruction {
        keyword: upper,
        flags,
        rest: rest.to_owned(),
        json,
        original,
        line,
    })
}

fn flags(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut flags = Vec::new();
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, tail) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        if flag.is_empty() {
            return (flags, tail.trim_start());
        }
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        flags.push((name.to_owned(), value.to_owned()));
        rest = tail.trim_start();
    }
    (flags, rest)
}

impl Instruction {
    pub fn flag(&self, name: &str) -> Option<&str> {
        let found = self.flags.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Refuses flags that the instruction does not have, and those that only BuildKit has.
    pub fn allow_flags(&self, names: &[&str]) -> Result<()> {
        for (name, _) in &self.flags {
            let buildkit = matches!(
                (self.keyword.as_str(), name.as_str()),
                ("RUN", "mount" | "network" | "security" | "device")
                    | ("COPY", "link" | "parents" | "exclude" | "chmod")
                    | (
                        "ADD",
                        "link" | "checksum" | "keep-git-dir" | "exclude" | "chmod" | "unpack"
                    )
            );
            if buildkit && !names.contains(&name.as_str()) {
                return Err(Error::instruction(format!(
                    "the --{name} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled"
                )));
            }
            if !names.contains(&name.as_str()) {
                return Err(Error::Parse {
                    line: self.line,
                    why: format!("unknown flag: --{name}"),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_and_comments_dropped() {
        let text = "# syntax=docker/dockerfile:1\n# a comment\nFROM busybox AS b\n\nRUN echo a && \\\n  # inside\n\n  echo b\ncopy --from=b --chown=1:2 [\"a b\", \"/c\"]\nCMD [\"sh\"]\n";
        let file = parse(text, "Dockerfile").unwrap();
        let found: Vec<(&str, &str, usize)> = file
            .instructions
            .iter()
            .map(|i| (i.keyword.as_str(), i.rest.as_str(), i.line))
            .collect();
        assert_eq!(
            found,
            [
                ("FROM", "busybox AS b", 3),
                ("RUN", "echo a &&   echo b", 5),
                ("COPY", "[\"a b\", \"/c\"]", 9),
                ("CMD", "[\"sh\"]", 10),
            ]
        );
        assert_eq!(file.instructions[2].flag("from"), Some("b"));
        assert_eq!(file.instructions[2].json.as_ref().unwrap()[0], "a b");
    }

    #[test]
    fn nonsense_is_refused_in_dockers_words() {
        for (text, expected) in [
            (
                "FROM x\nFOO y",
                "dockerfile parse error on line 2: unknown instruction: FOO",
            ),
            ("", "the Dockerfile (Dockerfile) cannot be empty"),
            ("# only\n", "the Dockerfile (Dockerfile) cannot be empty"),
            (
                "FROM x\nRUN",
                "dockerfile parse error on line 2: RUN requires at least one argument",
            ),
            ("# escape=x\nFROM x", "invalid escape token 'x'"),
        ] {
            let error = parse(text, "Dockerfile").unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let windows = parse("# escape=`\nFROM x\nRUN a `\n b", "Dockerfile").unwrap();
        assert_eq!(
            (windows.escape, windows.instructions[1].rest.as_str()),
            ('`', "a  b")
        );
    }
}
