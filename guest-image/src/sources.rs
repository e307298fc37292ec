//! Where this machine gets Debian from: the mirror and keyring of its own apt configuration.

use std::path::{Path, PathBuf};

/// Debian's main archive, as this machine is configured to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    pub uri: String,
    pub keyring: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    #[error("read apt's sources in {path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "no source in {0} names Debian's main archive; add one (a `deb` line with component `main`)"
    )]
    NoDebian(PathBuf),
}

const SYSTEM_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One entry of the sources, whichever syntax it was written in.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    uri: String,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
}

/// Finds the mirror in `folder` (`/etc/apt`): `sources.list` and `sources.list.d`.
pub fn find_mirror(folder: &Path) -> Result<Mirror, SourcesError> {
    let mut files = vec![folder.join("sources.list")];
    let parts = folder.join("sources.list.d");
    if let Ok(entries) = std::fs::read_dir(&parts) {
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        files.extend(paths);
    }
    for path in files {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(SourcesError::Read { path, source }),
        };
        let entries = match path.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => parse_deb822(&text),
            Some("list") => text.lines().filter_map(parse_line).collect(),
            _ => continue,
        };
        if let Some(entry) = entries.into_iter().find(is_debian_main) {
            let keyring = entry.signed_by.unwrap_or_else(|| SYSTEM_KEYRING.into());
            return Ok(Mirror {
                uri: entry.uri,
                keyring: keyring.into(),
            });
        }
    }
    Err(SourcesError::NoDebian(folder.to_owned()))
}

/// The main archive: a release's own suite (not security's, whose path ends in `-security`) with component main.
fn is_debian_main(entry: &Entry) -> bool {
    const RELEASES: [&str; 8] = [
        "bullseye", "bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable",
    ];
    entry.uri.trim_end_matches('/').ends_with("debian")
        && entry.components.iter().any(|component| component == "main")
        && entry
            .suites
            .iter()
            .any(|suite| RELEASES.contains(&suite.as_str()))
}

fn parse_deb822(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let without_comments = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect::<Vec<_>>()
        .join("\n");
    for stanza in without_comments.split("\n\n") {
        let field = |name: &str| stanza_field(stanza, name);
        let words = |name: &str| {
            field(name)
                .split_whitespace()
                .map(String::from)
                .collect::<Vec<_>>()
        };
        if !words("Types").iter().any(|kind| kind == "deb") || field("Enabled").trim() == "no" {
            continue;
        }
        // A key block instead of a path stays with the system's keyring.
        let signed_by = words("Signed-By")
            .into_iter()
            .next()
            .filter(|path| path.starts_with('/'));
        for uri in words("URIs") {
            let (suites, components) = (words("Suites"), words("Components"));
            entries.push(Entry {
                uri,
                suites,
                components,
                signed_by: signed_by.clone(),
            });
        }
    }
    entries
}

/// A field of a deb822 stanza with its continuation lines; empty when it is not there.
pub fn stanza_field(stanza: &str, name: &str) -> String {
    let mut value = String::new();
    let mut inside = false;
    for line in stanza.lines() {
        if line.starts_with([' ', '\t']) {
            if inside {
                value.push('\n');
                value.push_str(line.trim());
            }
            continue;
        }
        inside = false;
        if let Some((key, rest)) = line.split_once(':')
            && key.eq_ignore_ascii_case(name)
        {
            inside = true;
            value = rest.trim().to_owned();
        }
    }
    value
}

/// `deb [options] uri suite components…`
fn parse_line(line: &str) -> Option<Entry> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(String::from);
    Some(Entry {
        uri: words.next()?,
        suites: vec![words.next()?],
        components: words.take_while(|word| !word.starts_with('#')).collect(),
        signed_by: options
            .split_whitespace()
            .find_map(|o| o.strip_prefix("signed-by="))
            .map(String::from),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_syntaxes_are_read() {
        let deb822 = "Types: deb\n# old\nURIs: http://m.invalid/debian\nSuites: bookworm\n bookworm-updates\n\
            Components: main\nSigned-By: /k.gpg\n\nTypes: deb\nURIs: http://m.invalid/debian-security\n\
            Suites: bookworm-security\nComponents: main\n\nTypes: deb-src\nURIs: http://s.invalid/debian\n";
        let entries = parse_deb822(deb822);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(entries[0].signed_by.as_deref(), Some("/k.gpg"));
        assert_eq!(
            entries.iter().map(is_debian_main).collect::<Vec<_>>(),
            [true, false]
        );

        let line =
            parse_line("deb [arch=amd64 signed-by=/k] http://m.invalid/debian trixie main # note")
                .unwrap();
        assert!(is_debian_main(&line));
        assert_eq!(line.components, ["main"]);
        assert_eq!(line.signed_by.as_deref(), Some("/k"));
        let others = [
            "deb https://other.invalid/apt stable main",
            "deb http://m.invalid/debian x/updates main",
        ];
        assert!(
            others
                .iter()
                .all(|line| !is_debian_main(&parse_line(line).unwrap()))
        );
        assert_eq!(
            parse_line("# deb http://m.invalid/debian trixie main"),
            None
        );
    }
}
