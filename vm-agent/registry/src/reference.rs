//! Image references: `host[:port]/repository[:tag][@digest]`.

use crate::digest::Digest;
use crate::error::{Error, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub host: String,
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

fn invalid(text: &str, why: &str) -> Error {
    Error::InvalidArgument(format!("invalid reference {text:?}: {why}"))
}

impl Reference {
    /// Parses a full reference: the host must be there, as in containerd.
    pub fn parse(text: &str) -> Result<Self> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let (host, path) = rest
            .split_once('/')
            .ok_or_else(|| invalid(text, "no host"))?;
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (path, None),
        };
        let host_ok = !host.is_empty()
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
        let name_ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let part_ok = |part: &str| !part.trim_matches('.').is_empty() && part.bytes().all(name_ok);
        let tag_ok = |tag: &String| {
            (1..=128).contains(&tag.len())
                && tag
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        if !host_ok || !repository.split('/').all(part_ok) || !tag.iter().all(tag_ok) {
            return Err(invalid(text, "invalid reference format"));
        }
        Ok(Self {
            host: host.into(),
            repository: repository.into(),
            tag,
            digest,
        })
    }

    /// What a registry's manifest endpoint is asked for.
    pub fn object(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }
}

/// Docker Hub's registry answers under another name than its images carry.
pub(crate) fn api_host(host: &str) -> &str {
    match host {
        "docker.io" => "registry-1.docker.io",
        host => host,
    }
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let name = host.split(':').next().unwrap_or_default();
    name == "localhost" || name.starts_with("127.") || host.starts_with("[::1]")
}

/// Docker's short names in full: `busybox` is `docker.io/library/busybox:latest`.
pub fn normalize(name: &str) -> String {
    let (first, has_path) = match name.split_once('/') {
        Some((first, _)) => (first, true),
        None => (name, false),
    };
    let is_host = has_path && (first.contains(['.', ':']) || first == "localhost");
    let full = match (is_host, has_path) {
        (true, _) => name.to_owned(),
        (false, true) => format!("docker.io/{name}"),
        (false, false) => format!("docker.io/library/{name}"),
    };
    let last = full.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) {
        full
    } else {
        format!("{full}:latest")
    }
}

/// The short form of [`normalize`]'s names, as people write them.
pub fn familiar(reference: &Reference) -> String {
    let repository = match reference.host.as_str() {
        "docker.io" => reference
            .repository
            .strip_prefix("library/")
            .unwrap_or(&reference.repository)
            .to_owned(),
        host => format!("{host}/{}", reference.repository),
    };
    match &reference.tag {
        Some(tag) => format!("{repository}:{tag}"),
        None => repository,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        let digest = Digest::of(b"x");
        let cases = [
            (
                "docker.io/library/busybox:1.36",
                "docker.io",
                "library/busybox",
                "1.36",
            ),
            ("10.0.2.2:5000/a/b:latest", "10.0.2.2:5000", "a/b", "latest"),
            ("localhost:5000/a", "localhost:5000", "a", "latest"),
            (&format!("r.io/a@{digest}"), "r.io", "a", digest.as_str()),
            (
                &format!("r.io/a:tag@{digest}"),
                "r.io",
                "a",
                digest.as_str(),
            ),
        ];
        for (text, host, repository, object) in cases {
            let parsed = Reference::parse(text).unwrap();
            assert_eq!(
                (parsed.host.as_str(), parsed.repository.as_str()),
                (host, repository)
            );
            assert_eq!(parsed.object(), object, "{text}");
        }
        for bad in [
            "busybox",
            "r.io/",
            "r.io/A",
            "r.io/a:",
            "r.io/a b",
            "r.io/../x",
            "r.io/a@sha256:1",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn normalizes() {
        let cases = [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1", "docker.io/library/busybox:1"),
            ("me/app", "docker.io/me/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("10.0.2.2:5000/app:2", "10.0.2.2:5000/app:2"),
        ];
        for (name, full) in cases {
            assert_eq!(normalize(name), full);
        }
    }
}
