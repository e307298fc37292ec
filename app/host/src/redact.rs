//! Takes secrets out of texts that a user hands to others: passwords, tokens and keys by what stands around them, and those that are
//! known by themselves.

use std::path::Path;
use std::sync::LazyLock;

use regex_lite::Regex;

/// What stands in the place of a secret.
const REMOVED: &str = "(removed)";
/// A shorter text is in many words that are no secret.
const SHORTEST: usize = 4;

macro_rules! named {
    () => {
        r#"(?i)([\w.-]*(?:passw|pwd|secret|token|credential|api[_-]?key|access[_-]?key|private[_-]?key|authorization|registry-auth)[\w.-]*\\?["']?\s*[:=]\s*)"#
    };
}

/// A pattern, and what takes the place of its match.
const PATTERNS: [(&str, &str); 7] = [
    (
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)",
        REMOVED,
    ),
    // `scheme://user:password@`: what is before the last `@` of an authority (RFC 3986, 3.2.1).
    (
        r#"([A-Za-z][A-Za-z0-9+.-]*://)[^\s/"'<>\\]*@"#,
        "${1}(removed)@",
    ),
    // The schemes of an `Authorization` header (RFC 9110, 11.4).
    (
        r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{6,}",
        "${1} (removed)",
    ),
    // JSON Web Tokens (RFC 7519).
    (
        r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?",
        REMOVED,
    ),
    // `name: value`, `name=value`, `"name": "value"` where the name is that of a secret: in quotes that are escaped, in others, in none.
    (
        concat!(named!(), r#"\\"(?:[^"\\]|\\[^"])*\\""#),
        r#"${1}\"(removed)\""#,
    ),
    (
        concat!(named!(), r#"(?:"(?:[^"\\]|\\.)*"|'[^']*')"#),
        r#"${1}"(removed)""#,
    ),
    (concat!(named!(), r#"[^\s,;"'}&\]\\]+"#), "${1}(removed)"),
];

static COMPILED: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let compiled = PATTERNS.iter().filter_map(|(pattern, instead)| {
        let regex = Regex::new(pattern).ok()?;
        Some((regex, *instead))
    });
    compiled.collect()
});

/// What is taken out of every text.
#[derive(Debug, Default)]
pub struct Redactor {
    known: Vec<String>,
    home: Option<String>,
}

impl Redactor {
    /// Writes the user's folder, which has the user's name, as `~`.
    pub fn with_home(mut self, home: Option<&Path>) -> Self {
        self.home = home
            .map(|home| home.display().to_string())
            .filter(|home| home.len() > 1);
        self
    }

    /// Takes out the user and the password of an address wherever they stand.
    pub fn know_address(&mut self, address: &str) {
        let Some((_, rest)) = address.split_once("://") else {
            return;
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if let Some((info, _)) = authority.rsplit_once('@') {
            let password = info.split_once(':').map_or(info, |(_, password)| password);
            self.know(password);
        }
    }

    /// Takes out this text wherever it stands.
    pub fn know(&mut self, secret: &str) {
        if secret.len() >= SHORTEST && !self.known.iter().any(|known| known == secret) {
            self.known.push(secret.to_owned());
            // A secret that holds another goes first.
            self.known
                .sort_by_key(|known| std::cmp::Reverse(known.len()));
        }
    }

    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (regex, instead) in COMPILED.iter() {
            text = regex.replace_all(&text, *instead).into_owned();
        }
        for known in &self.known {
            text = text.replace(known.as_str(), REMOVED);
        }
        match &self.home {
            Some(home) => text.replace(home.as_str(), "~"),
            None => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        assert_eq!(COMPILED.len(), PATTERNS.len());
        let redactor = Redactor::default();
        for (text, wanted) in [
            (
                "proxy http://me:s3cr3t@proxy:3128/x",
                "proxy http://(removed)@proxy:3128/x",
            ),
            ("https://me:p@ss@host/", "https://(removed)@host/"),
            ("https://host/a@b", "https://host/a@b"),
            (
                r#"{"http-proxy": "http://u:p@h", "mtu": 1500}"#,
                r#"{"http-proxy": "http://(removed)@h", "mtu": 1500}"#,
            ),
            (
                r#"{"splunk-token": "abc", "labels": ["db_password=xyz", "tier=web"]}"#,
                r#"{"splunk-token": "(removed)", "labels": ["db_password=(removed)", "tier=web"]}"#,
            ),
            (
                r#"msg="{\"identitytoken\":\"abc\",\"user\":\"me\"}""#,
                r#"msg="{\"identitytoken\":\"(removed)\",\"user\":\"me\"}""#,
            ),
            ("API_KEY=abc123 next", "API_KEY=(removed) next"),
            ("Authorization: Basic bWU6c2VjcmV0", "Authorization: "),
            ("got bearer abcdef.ghi", "got bearer (removed)"),
            ("X-Registry-Auth: eyJhIjoiYiJ9AAAA", "X-Registry-Auth: "),
            ("id eyJhbGciOiJI.eyJzdWIi.sig end", "id (removed) end"),
            (
                "a\n-----BEGIN RSA PRIVATE KEY-----\nMII\nxyz\n-----END RSA PRIVATE KEY-----\nb",
                "a\n(removed)\nb",
            ),
            (
                "the engine answers version=28.5.2 api=1.51",
                "the engine answers version=28.5.2 api=1.51",
            ),
        ] {
            let redacted = redactor.text(text);
            let fits =
                redacted == wanted || (wanted.ends_with(": ") && redacted.starts_with(wanted));
            assert!(fits, "{text:?} became {redacted:?}");
            for secret in ["s3cr3t", "p@ss", "abc", "xyz", "bWU6", "eyJ", "MII"] {
                assert!(!redacted.contains(secret), "{redacted:?}");
            }
        }
    }

    #[test]
    fn what_is_known_goes_from_everywhere() {
        let mut redactor = Redactor::default().with_home(Some(Path::new("/home/jane")));
        redactor.know_address("http://jane:hunter2@proxy:3128");
        redactor.know_address("http://proxy:3128");
        redactor.know("ab");
        assert_eq!(
            redactor.text("grab hunter2 in /home/jane/x"),
            "grab (removed) in ~/x"
        );
    }
}
