//! Where a registry is asked: at itself or at mirrors, over TLS or not, in the format of containerd's `hosts.toml`
//! (its docs/hosts.md), of which this is the part that an engine's options need: `server`, `capabilities`, `skip_verify`.

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;
use toml::{Table, Value};

use crate::error::{Error, Result};
use crate::reference::{api_host, is_loopback};

const FILE: &str = "hosts.toml";
/// A file of hosts is small; more is a mistake.
const LIMIT: u64 = 1 << 20;

/// One place that answers for a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Scheme, host and path prefix, without a slash at the end: `https://registry.example.org`.
    pub url: String,
    /// TLS without a look at the certificate: what the user has declared insecure.
    pub skip_verify: bool,
    /// Whether it is the registry itself: mirrors hear nothing of its credentials, and nothing is pushed to them.
    pub is_origin: bool,
}

impl Endpoint {
    fn origin(scheme: &str, host: &str) -> Self {
        Self {
            url: format!("{scheme}://{}", api_host(host)),
            skip_verify: false,
            is_origin: true,
        }
    }

    fn mirror(url: &str) -> Self {
        Self {
            url: url.trim_end_matches('/').to_owned(),
            skip_verify: false,
            is_origin: false,
        }
    }
}

/// The registry itself, by one scheme; an empty one is `https`, or `http` on the loopback, as containerd has it.
pub fn direct(host: &str, scheme: &str) -> Result<Vec<Endpoint>> {
    let scheme = match scheme {
        "" if is_loopback(host) => "http",
        "" => "https",
        scheme @ ("http" | "https") => scheme,
        other => return Err(Error::InvalidArgument(format!("scheme {other:?}"))),
    };
    Ok(vec![Endpoint::origin(scheme, host)])
}

/// What Docker asks of a registry that is declared insecure: TLS with any certificate, and plain HTTP where there is none.
pub fn insecure(host: &str) -> Vec<Endpoint> {
    let tls = Endpoint {
        skip_verify: true,
        ..Endpoint::origin("https", host)
    };
    vec![tls, Endpoint::origin("http", host)]
}

/// Mirrors (base URLs) before the registry itself.
pub fn mirrored(mirrors: &[String], itself: Vec<Endpoint>) -> Vec<Endpoint> {
    let mut seen = HashSet::new();
    let mirrors = mirrors.iter().map(|url| Endpoint::mirror(url));
    mirrors
        .chain(itself)
        .filter(|endpoint| seen.insert(endpoint.url.clone()))
        .collect()
}

/// The endpoints as a file for [`read`], or for containerd.
pub fn to_toml(endpoints: &[Endpoint]) -> String {
    let mut hosts = Table::new();
    for endpoint in endpoints {
        let all = ["pull", "resolve", "push"];
        let capabilities = if endpoint.is_origin { &all } else { &all[..2] };
        let capabilities = capabilities.iter().map(|&one| Value::from(one));
        let mut host = Table::new();
        let capabilities: Vec<Value> = capabilities.collect();
        host.insert("capabilities".into(), capabilities.into());
        if endpoint.skip_verify {
            host.insert("skip_verify".into(), true.into());
        }
        hosts.insert(endpoint.url.clone(), host.into());
    }
    let mut file = Table::new();
    if let Some(server) = endpoints.iter().rev().find(|one| one.is_origin) {
        file.insert("server".into(), server.url.clone().into());
    }
    file.insert("host".into(), hosts.into());
    file.to_string()
}

#[derive(Deserialize)]
struct Host {
    capabilities: Option<Vec<String>>,
    #[serde(default)]
    skip_verify: bool,
}

/// The endpoints that `folder/HOST/hosts.toml` tells, in its order, and the registry itself behind them; without such a file
/// what [`direct`] says.
pub fn read(folder: &Path, host: &str, scheme: &str) -> Result<Vec<Endpoint>> {
    let path = folder.join(host).join(FILE);
    let wrong =
        |why: &dyn std::fmt::Display| Error::InvalidArgument(format!("{}: {why}", path.display()));
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return direct(host, scheme),
        Ok(file) if file.len() > LIMIT => return Err(wrong(&"too large")),
        _ => {}
    }
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(&error))?;
    parse(&text, host, scheme).map_err(|why| wrong(&why))
}

fn parse(text: &str, host: &str, scheme: &str) -> Result<Vec<Endpoint>, String> {
    let file: Table = text.parse().map_err(|error| format!("{error}"))?;
    let mut endpoints = Vec::new();
    let hosts = file.get("host").and_then(Value::as_table);
    for (url, told) in hosts.into_iter().flatten() {
        let told: Host = told
            .clone()
            .try_into()
            .map_err(|error| format!("{error}"))?;
        if !url.starts_with("https://") && !url.starts_with("http://") {
            return Err(format!("host {url:?} is no URL of http or https"));
        }
        let can = |what: &str| {
            let listed = told.capabilities.as_ref();
            listed.is_none_or(|listed| listed.iter().any(|one| one == what))
        };
        if !can("pull") || !can("resolve") {
            continue;
        }
        endpoints.push(Endpoint {
            skip_verify: told.skip_verify,
            is_origin: can("push"),
            ..Endpoint::mirror(url)
        });
    }
    let itself = match file.get("server").and_then(Value::as_str) {
        Some(server) => vec![Endpoint {
            is_origin: true,
            ..Endpoint::mirror(server)
        }],
        None => direct(host, scheme).map_err(|error| error.to_string())?,
    };
    let mut seen = HashSet::new();
    endpoints.extend(itself);
    endpoints.retain(|endpoint| seen.insert(endpoint.url.clone()));
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_in_its_order() {
        let mirrors = ["https://mirror.example.org/hub/".to_owned()];
        let endpoints = mirrored(&mirrors, insecure("10.0.2.2:5000"));
        let urls: Vec<&str> = endpoints.iter().map(|one| one.url.as_str()).collect();
        let expected = [
            "https://mirror.example.org/hub",
            "https://10.0.2.2:5000",
            "http://10.0.2.2:5000",
        ];
        assert_eq!(urls, expected);
        let read = parse(&to_toml(&endpoints), "10.0.2.2:5000", "").unwrap();
        assert_eq!(read, endpoints);
    }

    #[test]
    fn the_hub_answers_under_another_name() {
        let url = |host| direct(host, "").unwrap()[0].url.clone();
        assert_eq!(url("docker.io"), "https://registry-1.docker.io");
        assert_eq!(url("localhost:5000"), "http://localhost:5000");
        assert!(direct("a.org", "ftp").is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in [
            "[host",
            "[host.\"ftp://a\"]",
            "[host.\"http://a\"]\nskip_verify = 3",
        ] {
            assert!(parse(wrong, "a.org", "").is_err(), "{wrong}");
        }
    }
}
