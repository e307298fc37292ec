//! Which endpoints stand for a registry, by daemon.json's `insecure-registries` and `registry-mirrors`; handed to the supervisor
//! in containerd's format.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use longshore_registry::hosts::{self, Endpoint};

use super::Images;
use crate::error::{ApiError, ApiResult};

impl Images {
    /// In the order in which they are asked.
    pub(super) fn endpoints(&self, domain: &str) -> ApiResult<Vec<Endpoint>> {
        let settings = self.config.settings();
        let itself = match is_insecure(domain, &settings.strings("insecure-registries")) {
            true => hosts::insecure(domain),
            false => hosts::direct(domain, "https")
                .map_err(|error| ApiError::bad_request(error.to_string()))?,
        };
        // Docker's mirrors are those of its own registry alone.
        Ok(match domain {
            "docker.io" => hosts::mirrored(&settings.strings("registry-mirrors"), itself),
            _ => itself,
        })
    }

    /// The folder of containerd's `hosts.toml` files (its docs/hosts.md), with a fresh one for the registry.
    pub(super) fn hosts_folder(&self, domain: &str) -> ApiResult<PathBuf> {
        let text = hosts::to_toml(&self.endpoints(domain)?);
        let folder = self.config.options.exec_root.join("registry-hosts");
        replace(&folder.join(domain), &text).map_err(|error| {
            ApiError::internal(format!("writing the endpoints of {domain}: {error}"))
        })?;
        Ok(folder)
    }
}

/// Another pull may read the file meanwhile: it finds the old text or the new one.
fn replace(folder: &std::path::Path, text: &str) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut fresh = tempfile::NamedTempFile::new_in(folder)?;
    io::Write::write_all(&mut fresh, text.as_bytes())?;
    fresh.persist(folder.join("hosts.toml"))?;
    Ok(())
}

fn is_insecure(domain: &str, insecure: &[String]) -> bool {
    let host = match domain.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => domain,
    };
    let host = host.trim_matches(['[', ']']);
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    insecure.iter().any(|entry| {
        let entry = entry
            .split_once("://")
            .map_or(entry.as_str(), |(_, rest)| rest);
        entry == domain || entry == host || in_network(address, entry)
    })
}

/// Whether an address is in `10.0.0.0/8`.
fn in_network(address: Option<IpAddr>, network: &str) -> bool {
    let (Some(IpAddr::V4(address)), Some((base, prefix))) = (address, network.split_once('/'))
    else {
        return false;
    };
    match (base.parse::<std::net::Ipv4Addr>(), prefix.parse::<u32>()) {
        (Ok(base), Ok(prefix @ 1..=32)) => {
            (address.to_bits() ^ base.to_bits()) >> (32 - prefix) == 0
        }
        (Ok(_), Ok(0)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insecure_registries_are_found_by_name_address_and_network() {
        let insecure = ["10.0.2.2:5000", "192.168.0.0/16", "http://reg.local"].map(str::to_owned);
        for (domain, expected) in [
            ("10.0.2.2:5000", true),
            ("10.0.2.2:5001", false),
            ("192.168.7.1:5000", true),
            ("192.169.7.1", false),
            ("reg.local:80", true),
            ("127.0.0.1:5000", true),
            ("localhost:5000", true),
            ("[::1]:5000", true),
            ("docker.io", false),
        ] {
            assert_eq!(is_insecure(domain, &insecure), expected, "{domain}");
        }
    }
}
