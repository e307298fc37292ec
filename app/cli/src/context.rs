//! The docker context named `longshore`: made when there is none, never changed when there is one.
//!
//! Docker's CLI keeps a context in `contexts/meta/<sha256 of its name>/meta.json` below its configuration folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use longshore_host_api::Home;
use longshore_host_api::doctor::Check;
use longshore_host_api::home::docker_config_folder;
use serde_json::json;
use sha2::{Digest, Sha256};

const NAME: &str = "longshore";

pub enum Offer {
    /// The context leads to this instance.
    Ready,
    /// It leads somewhere else, and is the user's own.
    Other(String),
    Failed(String),
}

/// Makes the context if there is none.
pub fn offer(home: &Home) -> Offer {
    match docker_config_folder() {
        Some(folder) => offer_in(&folder, &home.docker_host()),
        None => Offer::Failed("no home folder".to_owned()),
    }
}

fn offer_in(config: &Path, host: &str) -> Offer {
    let file = meta_file(config);
    match read_host(&file) {
        Ok(Some(there)) if there == host => Offer::Ready,
        Ok(Some(there)) => Offer::Other(there),
        Ok(None) => match create(&file, host) {
            Ok(()) => Offer::Ready,
            Err(e) => Offer::Failed(format!("{}: {e}", file.display())),
        },
        Err(e) => Offer::Failed(format!("{}: {e}", file.display())),
    }
}

fn meta_file(config: &Path) -> PathBuf {
    let id: String = Sha256::digest(NAME)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    config
        .join("contexts")
        .join("meta")
        .join(id)
        .join("meta.json")
}

fn read_host(file: &Path) -> io::Result<Option<String>> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let meta: serde_json::Value = serde_json::from_str(&text)?;
    let host = meta["Endpoints"]["docker"]["Host"]
        .as_str()
        .unwrap_or("another kind of endpoint");
    Ok(Some(host.to_owned()))
}

fn create(file: &Path, host: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let meta = json!({
        "Name": NAME,
        "Metadata": { "Description": "Longshore" },
        "Endpoints": { "docker": { "Host": host, "SkipTLSVerify": false } },
    });
    // Only ever a new file: somebody may have made the context in this moment.
    let mut options = fs::File::options();
    let file = options.write(true).create_new(true).open(file)?;
    Ok(serde_json::to_writer(file, &meta)?)
}

/// For the doctor.
pub fn check(home: &Home) -> Check {
    let wanted = home.docker_host();
    if let Some(host) = std::env::var_os("DOCKER_HOST") {
        let host = host.to_string_lossy();
        return if host == wanted {
            Check::ok("context", "DOCKER_HOST leads here")
        } else {
            let fix = format!(
                "export DOCKER_HOST={wanted}, or unset it and: docker context use longshore"
            );
            Check::warn(
                "context",
                format!("DOCKER_HOST={host} leads elsewhere"),
                fix,
            )
        };
    }
    let export = format!("export DOCKER_HOST={wanted}");
    let Some(file) = docker_config_folder().map(|f| meta_file(&f)) else {
        return Check::skip("context", "no home folder");
    };
    match read_host(&file) {
        Ok(Some(host)) if host == wanted => Check::ok(
            "context",
            "the docker context \"longshore\" leads here: docker context use longshore",
        ),
        Ok(Some(host)) => Check::warn(
            "context",
            format!("the docker context \"longshore\" leads to {host}"),
            export,
        ),
        Ok(None) if home.is_default() => Check::warn(
            "context",
            "there is no docker context \"longshore\"",
            "longshore start makes it",
        ),
        Ok(None) => Check::warn("context", "docker is not told of this instance", export),
        Err(e) => Check::warn("context", format!("{}: {e}", file.display()), export),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_is_made_once_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(offer_in(dir.path(), "unix:///a"), Offer::Ready));
        assert!(matches!(offer_in(dir.path(), "unix:///a"), Offer::Ready));
        let Offer::Other(host) = offer_in(dir.path(), "unix:///b") else {
            panic!("overwritten")
        };
        assert_eq!(host, "unix:///a");
    }
}
