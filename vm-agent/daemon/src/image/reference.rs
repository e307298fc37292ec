//! Image references: the short names people type, and the full ones that are stored.

use std::fmt;

const DEFAULT_DOMAIN: &str = "docker.io";
const OFFICIAL: &str = "library/";

/// A reference in full: domain, path, and a tag, a digest, or both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    pub domain: String,
    pub path: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    UpperCase(String),
    #[error("invalid tag format")]
    Tag,
    #[error("invalid reference format: repository name must not have more than 255 characters")]
    TooLong,
}

impl Reference {
    /// Parses what a user typed; adds neither tag nor digest.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let (_, remainder) = split_domain(text);
        let name = remainder.split(':').next().unwrap_or_default();
        let path = name.split("@sha256").next().unwrap_or_default();
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(ReferenceError::UpperCase(path.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(ReferenceError::Format),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it, a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Format);
        }
        let (domain, path) = split_domain(name);
        if !is_domain(&domain) || path.is_empty() || !path.split('/').all(is_component) {
            return Err(ReferenceError::Format);
        }
        if domain.len() + path.len() > 255 {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self {
            domain,
            path,
            tag,
            digest,
        })
    }

    /// A repository and, unless it is empty, a tag, given apart.
    pub fn with_tag(repository: &str, tag: &str) -> Result<Self, ReferenceError> {
        let reference = Self::parse(repository)?;
        match tag {
            "" => Ok(reference),
            tag if !is_tag(tag) => Err(ReferenceError::Tag),
            tag => Ok(Self {
                tag: Some(tag.to_owned()),
                ..reference
            }),
        }
    }

    /// Whether it is kept at Docker Hub, where names lead that name no registry.
    pub fn is_of_docker_hub(&self) -> bool {
        self.domain == DEFAULT_DOMAIN
    }

    /// The same with `latest`, when it names neither tag nor digest.
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// The path without `library/`, for people.
    pub fn familiar_path(&self) -> &str {
        match self.domain == DEFAULT_DOMAIN {
            true => self.path.strip_prefix(OFFICIAL).unwrap_or(&self.path),
            false => &self.path,
        }
    }

    /// The repository as people write it.
    pub fn familiar_name(&self) -> String {
        match self.domain == DEFAULT_DOMAIN {
            true => self.familiar_path().to_owned(),
            false => format!("{}/{}", self.domain, self.path),
        }
    }

    /// The whole reference as people write it.
    pub fn familiar(&self) -> String {
        self.familiar_name() + &self.suffix()
    }

    fn suffix(&self) -> String {
        let tag = self.tag.iter().map(|tag| format!(":{tag}"));
        tag.chain(self.digest.iter().map(|digest| format!("@{digest}")))
            .collect()
    }
}

/// In full, as images are stored.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}{}", self.domain, self.path, self.suffix())
    }
}

fn split_domain(name: &str) -> (String, String) {
    let looks_like_host = |first: &str| {
        first.contains(['.', ':']) || first == "localhost" || first.to_ascii_lowercase() != first
    };
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if looks_like_host(first) => (first, rest),
        _ => (DEFAULT_DOMAIN, name),
    };
    let domain = if domain == "index.docker.io" {
        DEFAULT_DOMAIN
    } else {
        domain
    };
    let official = domain == DEFAULT_DOMAIN && !path.contains('/') && !path.is_empty();
    let prefix = if official { OFFICIAL } else { "" };
    (domain.to_owned(), format!("{prefix}{path}"))
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.contains(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let port_is_fine =
        port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    let v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host_is_fine = match v6 {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        }),
    };
    port_is_fine && host_is_fine
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = component
        .split(alphanumeric)
        .filter(|part| !part.is_empty());
    component.starts_with(alphanumeric)
        && component.ends_with(alphanumeric)
        && separators
            .into_iter()
            .all(|part| matches!(part, "." | "_" | "__") || part.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128
        && tag.starts_with(word)
        && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}

pub fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        matches!((algorithm, hex.len()), ("sha256", 64) | ("sha512", 128))
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_and_made_familiar() {
        for (typed, full, familiar) in [
            (
                "busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            ("user/app:1.0", "docker.io/user/app:1.0", "user/app:1.0"),
            (
                "index.docker.io/busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            ("docker.io/library/x:y", "docker.io/library/x:y", "x:y"),
            (
                "localhost/app",
                "localhost/app:latest",
                "localhost/app:latest",
            ),
            (
                "10.0.2.2:5000/a/b",
                "10.0.2.2:5000/a/b:latest",
                "10.0.2.2:5000/a/b:latest",
            ),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            (
                "a__b/c-d.e_f:T",
                "docker.io/a__b/c-d.e_f:T",
                "a__b/c-d.e_f:T",
            ),
        ] {
            let reference = Reference::parse(typed).unwrap().or_latest();
            assert_eq!(
                (
                    reference.to_string().as_str(),
                    reference.familiar().as_str()
                ),
                (full, familiar)
            );
        }
    }

    #[test]
    fn digests_are_kept_and_checked() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        let reference = Reference::parse(&format!("busybox@{digest}"))
            .unwrap()
            .or_latest();
        assert_eq!(
            (reference.tag, reference.digest),
            (None, Some(digest.clone()))
        );
        let both = Reference::parse(&format!("busybox:1@{digest}")).unwrap();
        assert_eq!(
            both.to_string(),
            format!("docker.io/library/busybox:1@{digest}")
        );
        for bad in ["busybox@sha256:zz", "busybox@"] {
            assert_eq!(Reference::parse(bad), Err(ReferenceError::Format), "{bad}");
        }
        let upper = Reference::parse(&format!("busybox@{}", digest.to_uppercase()));
        assert!(matches!(upper, Err(ReferenceError::UpperCase(_))));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "", ":", "a:", "/a", "a//b", "-a", "a-", "a..b", "a___b", "a:b c", "x.y:z/a", "a b",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
        let upper = Reference::parse("Busybox").unwrap_err();
        assert_eq!(
            upper.to_string(),
            "invalid reference format: repository name (library/Busybox) must be lowercase"
        );
    }
}
