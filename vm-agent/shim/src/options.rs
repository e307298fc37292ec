//! `containerd.runc.v1.Options`: which runtime binary runs the container, and how.

use std::path::PathBuf;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci::Options as RuncOptions;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const TYPE: &str = "containerd.runc.v1.Options";
/// What clients send that know no options of this shim (`ctr --runtime-config-path`): nothing in
/// it concerns us.
const GENERIC_TYPE: &str = "runtimeoptions.v1.Options";
const DEFAULT_BINARY: &str = "longshore-runtime";
const DEFAULT_ROOT: &str = "/run/longshore/runtime";

/// The options that this shim honours. Kept in the bundle for the `delete` command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    pub binary: String,
    /// The runtime's state folder, of this namespace.
    pub root: PathBuf,
    pub systemd_cgroup: bool,
    pub no_pivot_root: bool,
    pub no_new_keyring: bool,
    pub io_uid: u32,
    pub io_gid: u32,
    /// cgroup v2 path that the shim itself moves to.
    pub shim_cgroup: String,
}

impl Options {
    /// Reads the options of a create request; none at all are the defaults.
    pub fn from_any(any: Option<&Any>, namespace: &str) -> Result<Options> {
        let raw = match any {
            None => RuncOptions::new(),
            Some(any) if any.type_url.ends_with(GENERIC_TYPE) => RuncOptions::new(),
            Some(any) if any.type_url.is_empty() && any.value.is_empty() => RuncOptions::new(),
            Some(any) if any.type_url.ends_with(TYPE) => RuncOptions::parse_from_bytes(&any.value)
                .map_err(|e| Error::Invalid {
                    what: "options",
                    why: e.to_string(),
                })?,
            Some(any) => {
                let why = format!("{} instead of {TYPE}", any.type_url);
                return Err(Error::Invalid {
                    what: "type of the options",
                    why,
                });
            }
        };
        let or = |text: &str, default: &str| match text.is_empty() {
            true => default.to_owned(),
            false => text.to_owned(),
        };
        Ok(Options {
            binary: or(&raw.binary_name, DEFAULT_BINARY),
            root: PathBuf::from(or(&raw.root, DEFAULT_ROOT)).join(namespace),
            systemd_cgroup: raw.systemd_cgroup,
            no_pivot_root: raw.no_pivot_root,
            no_new_keyring: raw.no_new_keyring,
            io_uid: raw.io_uid,
            io_gid: raw.io_gid,
            shim_cgroup: raw.shim_cgroup,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_values() {
        let defaults = Options::from_any(None, "moby").unwrap();
        assert_eq!(defaults.binary, "longshore-runtime");
        assert_eq!(defaults.root, PathBuf::from("/run/longshore/runtime/moby"));
        let mut raw = RuncOptions::new();
        raw.binary_name = "crun".into();
        raw.root = "/r".into();
        let mut any = Any::new();
        any.type_url = TYPE.into();
        any.value = raw.write_to_bytes().unwrap();
        let options = Options::from_any(Some(&any), "n").unwrap();
        assert_eq!(
            (options.binary.as_str(), options.root),
            ("crun", PathBuf::from("/r/n"))
        );
        any.type_url = "other".into();
        assert!(Options::from_any(Some(&any), "n").is_err());
    }
}
