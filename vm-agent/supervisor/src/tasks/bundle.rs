//! A task's bundle folder: what the shim is started in, and what survives the supervisor about it.

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::core::Paths;
use crate::error::{Error, IoStep, Result};

pub const RUNTIME_DIR: &str = "io.containerd.runtime.v2.task";

/// `<state>/io.containerd.runtime.v2.task/<namespace>/<id>`.
#[derive(Clone, Debug)]
pub struct Bundle {
    pub namespace: String,
    pub id: String,
    pub path: PathBuf,
    work: PathBuf,
}

/// How to reach a shim: its answer to `start`, kept in the bundle as `bootstrap.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bootstrap {
    pub version: u32,
    pub address: String,
    pub protocol: String,
}

impl Bootstrap {
    /// Where the shim listens.
    pub fn socket(&self) -> &Path {
        Path::new(self.address.trim_start_matches("unix://"))
    }
}

impl Bundle {
    pub fn locate(paths: &Paths, namespace: &str, id: &str) -> Self {
        let under = |root: &Path| root.join(RUNTIME_DIR).join(namespace).join(id);
        Self {
            namespace: namespace.into(),
            id: id.into(),
            path: under(&paths.state),
            work: under(&paths.root),
        }
    }

    /// Creates the folder. Recorded before the shim is started, so that a crash leaves a trace.
    pub fn create(&self, spec: &[u8], shim: &Path, options: &[u8]) -> Result<()> {
        let step = || format!("creating bundle {}", self.path.display());
        let mut builder = std::fs::DirBuilder::new();
        if let Some(parent) = self.path.parent() {
            builder
                .mode(0o711)
                .recursive(true)
                .create(parent)
                .step(step)?;
        }
        builder.recursive(false).mode(0o700);
        match builder.create(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::AlreadyExists(format!("task {}", self.id)));
            }
            other => other.step(step)?,
        }
        builder
            .mode(0o711)
            .create(self.path.join("rootfs"))
            .step(step)?;
        builder
            .mode(0o711)
            .recursive(true)
            .create(&self.work)
            .step(step)?;
        std::os::unix::fs::symlink(&self.work, self.path.join("work")).step(step)?;
        self.write("config.json", spec)?;
        self.write("shim-binary-path", shim.as_os_str().as_encoded_bytes())?;
        self.write("runtime-options", options)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        // Readers after a crash must see all of it or nothing.
        let (temporary, path) = (self.path.join(format!(".{name}")), self.path.join(name));
        std::fs::write(&temporary, bytes)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .step(|| format!("writing {}", path.display()))
    }

    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path.join(name)).ok()
    }

    pub fn shim_binary(&self) -> Option<PathBuf> {
        Some(PathBuf::from(
            String::from_utf8(self.read("shim-binary-path")?).ok()?,
        ))
    }

    /// How to reach the shim; one that was started just before a crash has only left `address`.
    pub fn bootstrap(&self) -> Option<Bootstrap> {
        if let Some(bytes) = self.read("bootstrap.json") {
            return serde_json::from_slice(&bytes).ok();
        }
        let address = String::from_utf8(self.read("address")?)
            .ok()?
            .trim()
            .to_owned();
        Some(Bootstrap {
            version: 3,
            address,
            protocol: "ttrpc".into(),
        })
    }

    /// Removes everything. A root file system that is still mounted is detached first, so that removing the
    /// folder can never reach into it.
    pub fn remove(&self) -> Result<()> {
        let rootfs = self.path.join("rootfs");
        while nix::mount::umount2(&rootfs, nix::mount::MntFlags::MNT_DETACH).is_ok() {}
        // What stays empty is removed without recursion.
        match std::fs::remove_dir(&rootfs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Io {
                    step: format!("removing {}", rootfs.display()),
                    source: error,
                });
            }
            _ => {}
        }
        self.remove_socket();
        // The folder that makes it known goes last: a crash in between leaves what the next start finds.
        for path in [&self.work, &self.path] {
            match std::fs::remove_dir_all(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::Io {
                        step: format!("removing {}", path.display()),
                        source: error,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A shim that ends in its own time has removed it, and one that was killed after it had deleted its container has not. One
    /// that serves other containers too goes on.
    fn remove_socket(&self) {
        let Some(bootstrap) = self.bootstrap() else {
            return;
        };
        let socket = bootstrap.socket();
        let refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
        if is_socket(socket) && UnixStream::connect(socket).is_err_and(refused) {
            let _ = std::fs::remove_file(socket);
        }
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// Every bundle that is there.
pub fn all(paths: &Paths) -> Vec<Bundle> {
    named_under(&paths.state)
        .into_iter()
        .map(|(namespace, id)| Bundle::locate(paths, &namespace, &id))
        .collect()
}

/// Removes the work folders whose bundle is gone: a reboot empties the state's file system, not theirs. Returns
/// how many there were. To be called when no task is being made.
pub fn remove_stray_work(paths: &Paths) -> Result<usize> {
    let mut strays = 0;
    for (namespace, id) in named_under(&paths.root) {
        let bundle = Bundle::locate(paths, &namespace, &id);
        if !bundle.path.exists() {
            std::fs::remove_dir_all(&bundle.work)
                .step(|| format!("removing {}", bundle.work.display()))?;
            strays += 1;
        }
    }
    Ok(strays)
}

/// The namespaces and ids that have a folder under this root.
fn named_under(root: &Path) -> Vec<(String, String)> {
    let names = |dir: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    };
    let root = root.join(RUNTIME_DIR);
    let mut found = Vec::new();
    for namespace in names(&root) {
        let ids = names(&root.join(&namespace));
        found.extend(ids.into_iter().map(|id| (namespace.clone(), id)));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn below(root: &Path) -> Paths {
        Paths {
            root: root.join("lib"),
            state: root.join("run"),
            address: "/run/x.sock".into(),
        }
    }

    #[test]
    fn keeps_what_a_restart_needs() {
        let root = tempfile::tempdir().unwrap();
        let paths = below(root.path());
        let bundle = Bundle::locate(&paths, "moby", "web");
        bundle
            .create(b"{}", Path::new("/usr/bin/shim"), b"")
            .unwrap();
        assert!(matches!(
            bundle.create(b"{}", Path::new("x"), b""),
            Err(Error::AlreadyExists(_))
        ));
        assert!(bundle.bootstrap().is_none());
        bundle.write("address", b"unix:///run/s\n").unwrap();
        assert_eq!(bundle.bootstrap().unwrap().address, "unix:///run/s");
        let kept = Bootstrap {
            version: 2,
            address: "unix:///b".into(),
            protocol: "ttrpc".into(),
        };
        bundle
            .write("bootstrap.json", &serde_json::to_vec(&kept).unwrap())
            .unwrap();
        assert_eq!(bundle.bootstrap().unwrap().version, 2);
        let found = all(&paths);
        assert_eq!(
            (found.len(), found[0].shim_binary().unwrap()),
            (1, "/usr/bin/shim".into())
        );
        bundle.remove().unwrap();
        bundle.remove().unwrap();
        assert!(all(&paths).is_empty());
    }

    #[test]
    fn the_socket_of_a_killed_shim_goes_with_its_bundle() {
        let root = tempfile::tempdir().unwrap();
        let paths = below(root.path());
        let [dead, living, file] = ["dead", "living", "file"].map(|name| root.path().join(name));
        drop(UnixListener::bind(&dead).unwrap());
        let _server = UnixListener::bind(&living).unwrap();
        std::fs::write(&file, "no socket").unwrap();
        for address in [&dead, &living, &file] {
            let bundle = Bundle::locate(&paths, "moby", "web");
            bundle.create(b"{}", Path::new("shim"), b"").unwrap();
            let address = format!("unix://{}", address.display());
            bundle.write("address", address.as_bytes()).unwrap();
            bundle.remove().unwrap();
        }
        assert!(!dead.exists());
        assert!(living.exists() && file.exists());
    }

    #[test]
    fn work_without_a_bundle_is_found_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let paths = below(root.path());
        let [kept, rebooted] = ["kept", "rebooted"].map(|id| Bundle::locate(&paths, "moby", id));
        for bundle in [&kept, &rebooted] {
            bundle.create(b"{}", Path::new("shim"), b"").unwrap();
        }
        std::fs::remove_dir_all(&rebooted.path).unwrap();
        assert_eq!(remove_stray_work(&paths).unwrap(), 1);
        assert!(kept.work.exists() && !rebooted.work.exists());
        assert_eq!(remove_stray_work(&paths).unwrap(), 0);
    }
}
