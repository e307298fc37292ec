//! The endpoint option `com.docker.network.endpoint.sysctls`: settings of a container's one link, such as
//! `net.ipv6.conf.IFNAME.accept_ra=2`, several behind commas.

use super::model::EndpointSettings;

const OPTION: &str = "com.docker.network.endpoint.sysctls";
/// Stands for the link's name; docker's command line hands it over in small letters.
const LINK: &str = "IFNAME";

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unrecognised network interface sysctl '{0}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
)]
pub struct OptionError(String);

/// The settings as (path under /proc/sys, value).
pub fn of(asked: &EndpointSettings, link: &str) -> Result<Vec<(String, String)>, OptionError> {
    let option = asked.driver_opts.as_ref().and_then(|all| all.get(OPTION));
    let settings = option.map_or("", String::as_str).split(',');
    settings
        .map(str::trim)
        .filter(|setting| !setting.is_empty())
        .map(|setting| {
            let found = setting
                .split_once('=')
                .and_then(|(key, value)| Some((path_of(key, link)?, value.to_owned())));
            found.ok_or_else(|| OptionError(setting.to_owned()))
        })
        .collect()
}

fn path_of(key: &str, link: &str) -> Option<String> {
    let parts: Vec<&str> = key.split('.').collect();
    let [
        net @ "net",
        family @ ("ipv4" | "ipv6" | "mpls"),
        kind,
        place,
        name,
    ] = parts.as_slice()
    else {
        return None;
    };
    if !place.eq_ignore_ascii_case(LINK) {
        return None;
    }
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    (is_word(kind) && is_word(name)).then(|| [*net, *family, *kind, link, *name].join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(option: &str) -> Result<Vec<(String, String)>, OptionError> {
        let asked = EndpointSettings {
            driver_opts: Some([(OPTION.to_owned(), option.to_owned())].into()),
            ..Default::default()
        };
        of(&asked, "eth1")
    }

    #[test]
    fn settings_of_the_link_are_taken_and_no_others() {
        let two = told("net.ipv6.conf.IFNAME.accept_ra=2,net.ipv4.conf.ifname.log_martians=1");
        let expected = [
            ("net/ipv6/conf/eth1/accept_ra", "2"),
            ("net/ipv4/conf/eth1/log_martians", "1"),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(two, Ok(expected.to_vec()));
        assert_eq!(of(&EndpointSettings::default(), "eth0"), Ok(Vec::new()));
        for wrong in [
            "net.ipv4.ip_forward=1",
            "kernel.core_pattern.IFNAME.x.y=1",
            "net.ipv4.conf/../../../kernel.IFNAME.core_pattern=x",
            "net.ipv4.conf.IFNAME..=1",
            "net.ipv4.conf.eth0.log_martians=1",
            "net.ipv4.conf.IFNAME.log_martians",
        ] {
            assert!(told(wrong).is_err(), "{wrong}");
        }
    }
}
