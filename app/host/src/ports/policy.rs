//! Which address and port the guest may have opened on the host. Everything here comes from the guest, and is believed as little.

use std::io;
use std::net::{IpAddr, SocketAddr};

use longshore_protocol::port_news::Publication;

/// Publications at once, a range of ports included.
pub const MAX_PUBLICATIONS: usize = 4096;
const MAX_KEY: usize = 512;

/// The address to bind for a publication, or why it is refused.
pub fn address(publication: &Publication, default: IpAddr) -> Result<SocketAddr, String> {
    if publication.key.len() > MAX_KEY || publication.container_id.len() > MAX_KEY {
        return Err("the publication's name is too long".to_owned());
    }
    if publication.target.port() == 0 || publication.target.ip().is_unspecified() {
        return Err(format!(
            "{} is no address of a container",
            publication.target
        ));
    }
    let ip = match publication.host_ip.as_str() {
        "" => default,
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        text => text
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse()
            .map_err(|_| format!("invalid IP address in publication: {text:?}"))?,
    };
    if ip.is_multicast() {
        return Err(format!("{ip} is a multicast address"));
    }
    Ok(SocketAddr::new(ip, publication.host_port))
}

/// A failed bind in Docker's words.
pub fn bind_error(address: SocketAddr, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => "port is already allocated".to_owned(),
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            "permission denied (ports below 1024 need privileges on this host)".to_owned()
        }
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::AddrNotAvailable => {
            "cannot assign requested address (this host does not have it)".to_owned()
        }
        _ => error.to_string(),
    };
    // Docker writes no brackets around an IPv6 address here.
    format!("Bind for {}:{} failed: {why}", address.ip(), address.port())
}

#[cfg(test)]
mod tests {
    use longshore_protocol::dial::Proto;

    use super::*;

    fn publication(host_ip: &str, host_port: u16) -> Publication {
        Publication {
            key: "k".into(),
            container_id: "c".into(),
            proto: Proto::Tcp,
            host_ip: host_ip.into(),
            host_port,
            target: "172.17.0.2:80".parse().unwrap(),
        }
    }

    #[test]
    fn the_default_is_the_setting_and_an_explicit_address_is_honoured() {
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        let open: IpAddr = "0.0.0.0".parse().unwrap();
        let table = [
            ("", loopback, Some("127.0.0.1:8080")),
            ("", open, Some("0.0.0.0:8080")),
            ("0.0.0.0", loopback, Some("0.0.0.0:8080")),
            ("192.168.1.5", loopback, Some("192.168.1.5:8080")),
            ("::1", loopback, Some("[::1]:8080")),
            ("[::1]", loopback, Some("[::1]:8080")),
            ("localhost", open, Some("127.0.0.1:8080")),
            ("example.org", loopback, None),
            ("224.0.0.1", loopback, None),
        ];
        for (ip, default, want) in table {
            let got = address(&publication(ip, 8080), default)
                .ok()
                .map(|a| a.to_string());
            assert_eq!(got.as_deref(), want, "{ip:?}");
        }
    }

    #[test]
    fn nonsense_of_the_guest_is_refused() {
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        let long = Publication {
            key: "k".repeat(1000),
            ..publication("", 1)
        };
        let nowhere = Publication {
            target: "0.0.0.0:80".parse().unwrap(),
            ..publication("", 1)
        };
        for publication in [long, nowhere] {
            assert!(address(&publication, loopback).is_err());
        }
    }

    #[test]
    fn bind_errors_speak_as_docker() {
        let table = [
            (
                io::ErrorKind::AddrInUse,
                8080,
                "Bind for 127.0.0.1:8080 failed: port is already allocated",
            ),
            (
                io::ErrorKind::PermissionDenied,
                80,
                "Bind for 127.0.0.1:80 failed: permission denied (ports below",
            ),
        ];
        for (kind, port, want) in table {
            let text = bind_error(SocketAddr::from(([127, 0, 0, 1], port)), &kind.into());
            assert!(text.starts_with(want), "{text}");
        }
    }
}
