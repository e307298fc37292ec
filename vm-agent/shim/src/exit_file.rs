//! What the shim leaves in the bundle for those who come after it: `exit.json`, `shim.json`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use longshore_container_log::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::error::{Error, Result, Step};
use crate::options::Options;
use crate::reaper::Exit;

const EXIT: &str = "exit.json";
const OPTIONS: &str = "shim.json";
const CGROUP: &str = "cgroup";

/// How the container's init ended. Public: the supervisor reads it when shim and event are lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitFile {
    pub pid: u32,
    /// Exit code, or 128 + signal.
    pub code: u32,
    /// RFC 3339 with nanoseconds.
    pub time: String,
}

/// Written before the exit is published.
pub fn save_exit(bundle: &Path, pid: u32, exit: Exit) -> Result<()> {
    let time = Timestamp::from(exit.time).to_string();
    write_whole(
        &bundle.join(EXIT),
        &ExitFile {
            pid,
            code: exit.code,
            time,
        },
    )
}

/// The exit that an earlier shim has written.
pub fn load_exit(bundle: &Path) -> Option<(u32, Exit)> {
    let file: ExitFile = serde_json::from_slice(&fs::read(bundle.join(EXIT)).ok()?).ok()?;
    let nanos = Timestamp::parse(&file.time).ok()?.0.max(0) as u64;
    let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(nanos);
    Some((
        file.pid,
        Exit {
            code: file.code,
            time,
        },
    ))
}

/// Which runtime has made the container.
pub fn save_options(bundle: &Path, options: &Options) -> Result<()> {
    write_whole(&bundle.join(OPTIONS), options)
}

pub fn load_options(bundle: &Path) -> Option<Options> {
    serde_json::from_slice(&fs::read(bundle.join(OPTIONS)).ok()?).ok()
}

/// Where the container's processes are.
pub fn save_cgroup(bundle: &Path, cgroup: &Cgroup) -> Result<()> {
    write_whole(&bundle.join(CGROUP), &cgroup.inside())
}

pub fn load_cgroup(bundle: &Path) -> Option<Cgroup> {
    let inside: String = serde_json::from_slice(&fs::read(bundle.join(CGROUP)).ok()?).ok()?;
    Some(Cgroup::at(&inside))
}

/// The whole file or none of it is seen.
fn write_whole(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|e| Error::Invalid {
        what: "state",
        why: e.to_string(),
    })?;
    let temporary: PathBuf = path.with_extension("tmp");
    fs::write(&temporary, text).at("write", &temporary)?;
    fs::rename(&temporary, path).at("write", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load_exit(dir.path()), None);
        let exit = Exit {
            code: 137,
            time: SystemTime::now(),
        };
        save_exit(dir.path(), 7, exit).unwrap();
        assert_eq!(load_exit(dir.path()), Some((7, exit)));
    }
}
