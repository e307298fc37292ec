//! `-v`, `--mount`, `--tmpfs` and the image's volumes, turned into mount points.

use super::config::{HostConfig, Mount};
use super::record::MountPoint;
use crate::error::{ApiError, ApiResult};
use std::path::{Component, Path, PathBuf};

/// A mount that was asked for, before its volume exists.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Wanted {
    pub point: MountPoint,
    pub volume_labels: super::config::Labels,
    pub volume_options: super::config::Labels,
    /// `-v` makes a missing folder of the guest's; `--mount` does not.
    pub create_source: bool,
}

fn invalid(message: impl std::fmt::Display) -> ApiError {
    ApiError::bad_request(message.to_string())
}

/// `/a/../b//c/` → `/b/c`; mounts are compared in this form.
pub fn clean(path: &str) -> String {
    let mut out = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => drop(out.pop()),
            _ => {}
        }
    }
    out.to_string_lossy().into_owned()
}

/// How mounts below a bind mount are seen from the other side.
const PROPAGATION: [&str; 6] = [
    "private", "rprivate", "shared", "rshared", "slave", "rslave",
];

/// `source:destination:mode`, `source:destination` or `destination`.
pub fn parse_bind(spec: &str, volume_driver: &str) -> ApiResult<Wanted> {
    // Docker checks this after it has taken the request as good: 500.
    let wrong =
        |why: &str| ApiError::internal(format!("invalid volume specification: '{spec}'{why}"));
    let parts: Vec<&str> = spec.split(':').collect();
    let (source, destination, mode) = match parts.as_slice() {
        [destination] => ("", *destination, ""),
        [source, destination] => (*source, *destination, ""),
        [source, destination, mode] => (*source, *destination, *mode),
        _ => return Err(wrong("")),
    };
    if destination.is_empty() || (parts.len() > 1 && source.is_empty()) {
        return Err(wrong(""));
    }
    let bind = source.starts_with('/');
    let kind = if bind { "bind" } else { "volume" };
    if !destination.starts_with('/') {
        return Err(wrong(&format!(
            ": invalid mount config for type \"{kind}\": invalid mount path: '{destination}' mount path must be absolute"
        )));
    }
    if clean(destination) == "/" {
        return Err(wrong(&format!(
            ": invalid mount config for type \"{kind}\": invalid specification: destination can't be '/'"
        )));
    }
    if !bind && !source.is_empty() {
        check_volume_name(source)?;
    }
    let mut wanted = Wanted {
        point: MountPoint {
            kind: kind.to_owned(),
            name: if bind {
                String::new()
            } else {
                source.to_owned()
            },
            source: if bind { clean(source) } else { String::new() },
            destination: clean(destination),
            driver: driver_of(bind, volume_driver),
            mode: if bind || !mode.is_empty() {
                mode.to_owned()
            } else {
                "z".to_owned()
            },
            rw: true,
            copy_up: !bind,
            ..MountPoint::default()
        },
        create_source: bind,
        ..Wanted::default()
    };
    if source.is_empty() {
        wanted.point.mode = String::new();
    }
    let propagates = |word: &str| PROPAGATION.contains(&word);
    if !bind && mode.split(',').any(propagates) {
        return Err(wrong(
            ": invalid mount config for type \"volume\": field BindOptions must not be specified",
        ));
    }
    apply_mode(&mut wanted.point, mode)
        .map_err(|()| ApiError::internal(format!("invalid mode: {mode}")))?;
    if bind && wanted.point.propagation.is_empty() {
        wanted.point.propagation = "rprivate".to_owned();
    }
    Ok(wanted)
}

fn driver_of(bind: bool, driver: &str) -> String {
    match (bind, driver) {
        (true, _) => String::new(),
        (false, "") => "local".to_owned(),
        (false, driver) => driver.to_owned(),
    }
}

fn apply_mode(point: &mut MountPoint, mode: &str) -> Result<(), ()> {
    let words: Vec<&str> = mode.split(',').filter(|word| !word.is_empty()).collect();
    if words.contains(&"ro") && words.contains(&"rw") {
        return Err(());
    }
    for word in words {
        match word {
            "rw" => point.rw = true,
            "ro" => point.rw = false,
            "nocopy" => point.copy_up = false,
            "z" | "Z" | "consistent" | "cached" | "delegated" => {}
            word if point.kind == "bind" && PROPAGATION.contains(&word) => {
                point.propagation = word.to_owned();
            }
            _ => return Err(()),
        }
    }
    Ok(())
}

/// Docker's rule for names of volumes (and containers).
pub fn check_volume_name(name: &str) -> ApiResult<()> {
    match is_name(name) {
        true => Ok(()),
        false => Err(invalid(format!(
            "create {name}: \"{name}\" includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        ))),
    }
}

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]+`
pub fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() >= 2
        && bytes[0].is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

pub fn parse_mount(mount: &Mount) -> ApiResult<Wanted> {
    let wrong = |why: &str| {
        invalid(format!(
            "invalid mount config for type \"{}\": {why}",
            mount.kind
        ))
    };
    if mount.target.is_empty() {
        return Err(wrong("field Target must not be empty"));
    }
    if !mount.target.starts_with('/') {
        return Err(wrong(&format!(
            "invalid mount path: '{}' mount path must be absolute",
            mount.target
        )));
    }
    if clean(&mount.target) == "/" {
        return Err(wrong("invalid specification: destination can't be '/'"));
    }
    let options = [
        ("BindOptions", "bind", mount.bind_options.is_some()),
        ("VolumeOptions", "volume", mount.volume_options.is_some()),
        ("TmpfsOptions", "tmpfs", mount.tmpfs_options.is_some()),
    ];
    if let Some((name, ..)) = options
        .iter()
        .find(|(_, kind, given)| *given && *kind != mount.kind)
    {
        return Err(invalid(format!(
            "{name} must not be specified on mount type \"{}\"",
            mount.kind
        )));
    }
    let mut wanted = Wanted::default();
    let point = &mut wanted.point;
    point.kind = mount.kind.clone();
    point.destination = clean(&mount.target);
    point.rw = !mount.read_only;
    match mount.kind.as_str() {
        "bind" => {
            if mount.source.is_empty() {
                return Err(wrong("field Source must not be empty"));
            }
            if !mount.source.starts_with('/') {
                return Err(wrong(&format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    mount.source
                )));
            }
            let options = mount.bind_options.clone().unwrap_or_default();
            point.source = clean(&mount.source);
            point.propagation = if options.propagation.is_empty() {
                "rprivate".to_owned()
            } else {
                options.propagation
            };
            if options.non_recursive {
                point.options.push("nonrecursive".to_owned());
            }
            wanted.create_source = options.create_mountpoint;
        }
        "volume" => {
            let options = mount.volume_options.clone().unwrap_or_default();
            if !mount.source.is_empty() {
                check_volume_name(&mount.source)?;
            }
            let driver = options.driver_config.unwrap_or_default();
            point.name = mount.source.clone();
            point.driver = driver_of(false, &driver.name);
            point.mode = "z".to_owned();
            point.copy_up = !options.no_copy && options.subpath.is_empty();
            if !options.subpath.is_empty() {
                let inside = Path::new(&options.subpath).components();
                if inside
                    .into_iter()
                    .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
                {
                    return Err(wrong("subpath must be a relative path within the volume"));
                }
                point.options.push(format!("subpath={}", options.subpath));
            }
            wanted.volume_labels = options.labels;
            wanted.volume_options = driver.options;
        }
        "tmpfs" => {
            if !mount.source.is_empty() {
                return Err(wrong("field Source must not be specified"));
            }
            let options = mount.tmpfs_options.clone().unwrap_or_default();
            if options.size_bytes > 0 {
                point.options.push(format!("size={}", options.size_bytes));
            }
            if options.mode > 0 {
                point.options.push(format!("mode={:o}", options.mode));
            }
            point.options.extend(
                options
                    .options
                    .into_iter()
                    .flatten()
                    .map(|pair| pair.join("=")),
            );
        }
        _ => return Err(wrong("mount type unknown")),
    }
    Ok(wanted)
}

/// Everything that a container mounts, later wins: image volumes, `--volumes-from` (by the caller, in `inherited`),
/// `-v`, `--mount`, `--tmpfs`. Two of the user's on one destination are an error.
pub fn collect(
    host: &HostConfig,
    image_volumes: impl Iterator<Item = String>,
    inherited: Vec<MountPoint>,
) -> ApiResult<Vec<Wanted>> {
    let mut asked: Vec<Wanted> = Vec::new();
    let mut add = |wanted: Wanted| {
        let destination = &wanted.point.destination;
        if asked
            .iter()
            .any(|other| other.point.destination == *destination)
        {
            return Err(invalid(format!("Duplicate mount point: {destination}")));
        }
        asked.push(wanted);
        Ok(())
    };
    for spec in host.binds.iter().flatten() {
        add(parse_bind(spec, &host.volume_driver)?)?;
    }
    for mount in &host.mounts {
        add(parse_mount(mount)?)?;
    }
    for (destination, options) in &host.tmpfs {
        let point = MountPoint {
            kind: "tmpfs".to_owned(),
            destination: clean(destination),
            mode: options.clone(),
            rw: true,
            options: options
                .split(',')
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect(),
            ..MountPoint::default()
        };
        add(Wanted {
            point,
            ..Wanted::default()
        })?;
    }
    let mut rest: Vec<Wanted> = inherited
        .into_iter()
        .map(|point| Wanted {
            point,
            ..Wanted::default()
        })
        .collect();
    for destination in image_volumes {
        let mut wanted = parse_bind(&destination, &host.volume_driver)?;
        wanted.point.mode = String::new();
        if !rest
            .iter()
            .any(|other| other.point.destination == wanted.point.destination)
        {
            rest.push(wanted);
        }
    }
    rest.retain(|other| {
        !asked
            .iter()
            .any(|own| own.point.destination == other.point.destination)
    });
    asked.extend(rest);
    Ok(asked)
}

/// Paths that belong to the guest itself and may be bound without being shared by the host.
const GUEST_PATHS: [&str; 9] = [
    "/var/run",
    "/run",
    "/proc",
    "/sys",
    "/dev",
    "/lib/modules",
    "/var/lib/docker",
    "/etc",
    "/var/log",
];

/// Refuses a source that is neither under a share nor the guest's own, and says how to share it.
/// `command`: what shares a folder, with `PATH` in it.
pub fn check_shared(source: &str, shares: Option<&[PathBuf]>, command: &str) -> ApiResult<()> {
    let Some(shares) = shares else {
        return Ok(());
    };
    let path = Path::new(source);
    let guests = source == "/" || GUEST_PATHS.iter().any(|own| path.starts_with(own));
    if guests || shares.iter().any(|share| path.starts_with(share)) {
        return Ok(());
    }
    let list: Vec<String> = shares
        .iter()
        .map(|share| share.display().to_string())
        .collect();
    let list = if list.is_empty() {
        "nothing".to_owned()
    } else {
        list.join(", ")
    };
    let command = command.replace("PATH", source);
    Err(invalid(format!(
        "Mounts denied: the path {source} is not shared from the host and is not known to Longshore (shared: {list}). \
         Share it with `{command}` or `longshore start --share {source}`, then try again"
    )))
}

/// Refuses a source that is kept from containers although a share lies around it, and says how to have it all the same.
pub fn check_unmasked(source: &str, masked: &[PathBuf], command: &str) -> ApiResult<()> {
    let path = Path::new(source);
    let Some(mask) = masked.iter().find(|mask| path.starts_with(mask)) else {
        return Ok(());
    };
    let mask = mask.display().to_string();
    let command = command.replace("PATH", &mask);
    Err(invalid(format!(
        "Mounts denied: {mask} is kept from containers, as keys are kept there. If containers are to see it, share it by name with \
         `{command}`, restart with `longshore restart`, then try again"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_refused_with_a_way_to_share_them() {
        let masked = [PathBuf::from("/u/.ssh")];
        let check = |source| check_unmasked(source, &masked, "share PATH");
        for fine in ["/u", "/u/.sshx", "/u/project"] {
            assert!(check(fine).is_ok(), "{fine}");
        }
        for refused in ["/u/.ssh", "/u/.ssh/id"] {
            let error = check(refused).unwrap_err();
            assert!(error.message.contains("`share /u/.ssh`"), "{error:?}");
        }
    }

    #[test]
    fn binds_parse_as_dockers() {
        // spec, type, name, source, destination, mode, rw, propagation
        let table = [
            ("/a:/b", "bind", "", "/a", "/b", "", true, "rprivate"),
            (
                "/a/../c/:/b/:ro",
                "bind",
                "",
                "/c",
                "/b",
                "ro",
                false,
                "rprivate",
            ),
            (
                "/a:/b:rw,rshared",
                "bind",
                "",
                "/a",
                "/b",
                "rw,rshared",
                true,
                "rshared",
            ),
            ("vol:/b", "volume", "vol", "", "/b", "z", true, ""),
            ("vol:/b:ro", "volume", "vol", "", "/b", "ro", false, ""),
            ("/b", "volume", "", "", "/b", "", true, ""),
        ];
        for (spec, kind, name, source, destination, mode, rw, propagation) in table {
            let point = parse_bind(spec, "").unwrap().point;
            let got = (
                point.kind.as_str(),
                point.name.as_str(),
                point.source.as_str(),
                point.destination.as_str(),
                point.mode.as_str(),
                point.rw,
                point.propagation.as_str(),
            );
            assert_eq!(
                got,
                (kind, name, source, destination, mode, rw, propagation),
                "{spec}"
            );
        }
    }

    #[test]
    fn bad_binds_say_why() {
        let table = [
            ("/a:/b:zz", "invalid mode: zz"),
            (
                "rel:x",
                "invalid volume specification: 'rel:x': invalid mount config for type \"volume\": \
                       invalid mount path: 'x' mount path must be absolute",
            ),
            (
                "/a:/",
                "invalid volume specification: '/a:/': invalid mount config for type \"bind\": \
                      invalid specification: destination can't be '/'",
            ),
            ("a:b:c:d", "invalid volume specification: 'a:b:c:d'"),
            (":/b", "invalid volume specification: ':/b'"),
        ];
        for (spec, message) in table {
            assert_eq!(parse_bind(spec, "").unwrap_err().message, message, "{spec}");
        }
        assert!(
            parse_bind("a/b:/c", "")
                .unwrap_err()
                .message
                .contains("use absolute path")
        );
    }

    #[test]
    fn the_users_mounts_win_over_the_images() {
        let host = HostConfig {
            binds: Some(vec!["vol:/data".to_owned()]),
            ..HostConfig::default()
        };
        let image = ["/data".to_owned(), "/cache".to_owned()].into_iter();
        let all = collect(&host, image, Vec::new()).unwrap();
        let seen: Vec<_> = all
            .iter()
            .map(|w| (w.point.name.as_str(), w.point.destination.as_str()))
            .collect();
        assert_eq!(seen, [("vol", "/data"), ("", "/cache")]);
        let twice = HostConfig {
            binds: Some(vec!["a1:/x".into(), "b1:/x".into()]),
            ..HostConfig::default()
        };
        let error = collect(&twice, std::iter::empty(), Vec::new()).unwrap_err();
        assert_eq!(error.message, "Duplicate mount point: /x");
    }

    #[test]
    fn sources_outside_of_shares_are_refused() {
        let shares = [PathBuf::from("/home/me")];
        let table = [
            ("/home/me/x", true),
            ("/home/meme", false),
            ("/var/run/docker.sock", true),
            ("/", true),
            ("/opt/x", false),
        ];
        for (source, allowed) in table {
            assert_eq!(
                check_shared(source, Some(&shares), "share PATH").is_ok(),
                allowed,
                "{source}"
            );
            assert!(check_shared(source, None, "").is_ok());
        }
    }
}
