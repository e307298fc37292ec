//! Where an instance keeps its state: `LONGSHORE_HOME` and the paths in it.

use std::io;
use std::path::{Path, PathBuf};

use longshore_local_socket as local_socket;
use sha2::{Digest, Sha256};

/// Longest path of a unix socket: `sun_path` without its final zero.
const MAX_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The longest name that is appended to the folder of sockets.
const LONGEST_SOCKET: &str = "vm/share-000000.sock";

/// The folder of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
    sockets: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error("neither LONGSHORE_HOME nor HOME is set, so there is no place to keep state")]
    NoHome,
    #[error("cannot make LONGSHORE_HOME={0} absolute: {1}")]
    Absolute(PathBuf, io::Error),
    #[error("cannot create the folder {0}: {1}")]
    Create(PathBuf, io::Error),
    #[error(
        "{0} is not a private folder of this user: remove it, or set LONGSHORE_HOME to a shorter path"
    )]
    NotOurs(PathBuf),
}

/// `$DOCKER_CONFIG`, else `.docker` in the user's folder: where the docker command keeps its configuration.
pub fn docker_config_folder() -> Option<PathBuf> {
    let var = |name| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let home = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
    var("DOCKER_CONFIG").or_else(|| var(home).map(|home| home.join(".docker")))
}

impl Home {
    /// The instance at `path`, or else the one that the environment names.
    pub fn open(path: Option<PathBuf>) -> Result<Self, HomeError> {
        path.map_or_else(Home::from_env, Home::at)
    }

    /// The instance that the environment names: `LONGSHORE_HOME`, or the platform's data folder.
    pub fn from_env() -> Result<Self, HomeError> {
        let root = match std::env::var_os("LONGSHORE_HOME").filter(|v| !v.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => default_root().ok_or(HomeError::NoHome)?,
        };
        Self::at(root)
    }

    pub fn at(root: PathBuf) -> Result<Self, HomeError> {
        let root = std::path::absolute(&root).map_err(|e| HomeError::Absolute(root, e))?;
        let sockets = socket_folder(&root);
        Ok(Self { root, sockets })
    }

    /// Creates the folders, private to the user.
    pub fn create(&self) -> Result<(), HomeError> {
        create_private(&self.root)?;
        create_private(&self.root.join("vm"))?;
        if self.sockets != self.root {
            create_private(&self.sockets)?;
            check_private(&self.sockets)?;
            create_private(&self.sockets.join("vm"))?;
        }
        Ok(())
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder that holds the sockets; differs from [`Home::root`] when that path is too long for one.
    pub fn socket_folder(&self) -> &Path {
        &self.sockets
    }

    pub fn docker_socket(&self) -> PathBuf {
        self.sockets.join("docker.sock")
    }

    pub fn host_socket(&self) -> PathBuf {
        self.sockets.join("host.sock")
    }

    /// Where a second window asks the first one to show itself.
    pub fn window_socket(&self) -> PathBuf {
        self.sockets.join("window.sock")
    }

    pub fn vm_socket(&self) -> PathBuf {
        self.sockets.join("vm").join("vm.sock")
    }

    /// False if no VM can be running.
    pub fn vm_may_run(&self) -> bool {
        local_socket::may_be_served(&self.vm_socket())
    }

    pub fn channel_socket(&self) -> PathBuf {
        self.sockets.join("vm").join("channel.sock")
    }

    pub fn settings_file(&self) -> PathBuf {
        self.root.join("settings.json")
    }

    /// The settings that the engine came up with last.
    pub fn good_settings_file(&self) -> PathBuf {
        self.root.join("settings.good.json")
    }

    /// The guest image that the engine came up with last.
    pub fn good_image_folder(&self) -> PathBuf {
        self.root.join("good-image")
    }

    /// The user's own dockerd configuration; need not be there.
    pub fn daemon_json(&self) -> PathBuf {
        self.root.join("daemon.json")
    }

    /// The window's place and size.
    pub fn window_file(&self) -> PathBuf {
        self.root.join("window.json")
    }

    pub fn host_log(&self) -> PathBuf {
        self.root.join("host.log")
    }

    pub fn console_log(&self) -> PathBuf {
        self.root.join("console.log")
    }

    /// The data disk, unless it was moved.
    pub fn data_disk(&self) -> PathBuf {
        self.root.join("data.img")
    }

    /// Where the data disk was moved to; not there while it is in this folder.
    pub fn data_place_file(&self) -> PathBuf {
        self.root.join("data.json")
    }

    /// A move of the data disk that has begun.
    pub fn data_move_file(&self) -> PathBuf {
        self.root.join("data.moving.json")
    }

    /// Held by the one service of this instance.
    pub fn host_lock(&self) -> PathBuf {
        self.root.join("host.lock")
    }

    /// Which program file the service was started from.
    pub fn program_file(&self) -> PathBuf {
        self.root.join("host.program.json")
    }

    /// Held by a client while it starts the service.
    pub fn spawn_lock(&self) -> PathBuf {
        self.root.join("spawn.lock")
    }

    /// What a Docker client wants to be told: the value of `DOCKER_HOST`.
    pub fn docker_host(&self) -> String {
        local_socket::address(&self.docker_socket())
    }

    /// What the system's lists call this instance.
    pub fn name(&self) -> String {
        match self.is_default() {
            true => "longshore".to_owned(),
            false => format!("longshore-{}", digest(&self.root)),
        }
    }

    /// True if this is the instance that a bare `longshore` uses; only that one gets the Docker context.
    pub fn is_default(&self) -> bool {
        default_root().is_some_and(|root| root == self.root)
    }
}

/// Tells instances apart where their paths are too long.
fn digest(root: &Path) -> String {
    let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
    digest[..6].iter().map(|b| format!("{b:02x}")).collect()
}

fn default_root() -> Option<PathBuf> {
    let var = |name| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    if cfg!(windows) {
        return var("LOCALAPPDATA").map(|p| p.join("Longshore"));
    }
    if cfg!(target_os = "macos") {
        return var("HOME").map(|p| p.join("Library/Application Support/Longshore"));
    }
    var("XDG_DATA_HOME")
        .filter(|p| p.is_absolute())
        .or_else(|| var("HOME").map(|p| p.join(".local/share")))
        .map(|p| p.join("longshore"))
}

/// The root itself, or a short folder named after it when a socket's path would not fit the kernel's limit.
fn socket_folder(root: &Path) -> PathBuf {
    if cfg!(windows) || root.as_os_str().len() + 1 + LONGEST_SOCKET.len() <= MAX_SOCKET_PATH {
        return root.to_owned();
    }
    let name = digest(root);
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(dir) if dir.is_absolute() && dir.is_dir() && dir.as_os_str().len() < 40 => {
            dir.join(format!("longshore-{name}"))
        }
        _ => PathBuf::from(format!("/tmp/longshore-{}-{name}", user_id())),
    }
}

#[cfg(unix)]
fn user_id() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[cfg(not(unix))]
fn user_id() -> u32 {
    0
}

fn create_private(path: &Path) -> Result<(), HomeError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(path)
        .map_err(|e| HomeError::Create(path.to_owned(), e))
}

/// A folder in `/tmp` may have been made by somebody else to listen in.
#[cfg(unix)]
fn check_private(path: &Path) -> Result<(), HomeError> {
    use std::os::unix::fs::MetadataExt;
    let meta =
        std::fs::symlink_metadata(path).map_err(|e| HomeError::Create(path.to_owned(), e))?;
    if meta.is_dir() && meta.uid() == user_id() && meta.mode() & 0o077 == 0 {
        Ok(())
    } else {
        Err(HomeError::NotOurs(path.to_owned()))
    }
}

#[cfg(not(unix))]
fn check_private(_: &Path) -> Result<(), HomeError> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_long_home_gets_short_sockets_of_its_own() {
        let long =
            |c: char| Home::at(PathBuf::from(format!("/{}", c.to_string().repeat(120)))).unwrap();
        let (a, b) = (long('a'), long('b'));
        assert_ne!(a.socket_folder(), a.root());
        assert!(a.socket_folder().join(LONGEST_SOCKET).as_os_str().len() <= MAX_SOCKET_PATH);
        assert_ne!(a.socket_folder(), b.socket_folder());
        let short = Home::at(PathBuf::from("/tmp/x")).unwrap();
        assert_eq!(short.docker_socket(), Path::new("/tmp/x/docker.sock"));
    }

    #[test]
    fn a_folder_open_to_others_is_refused_for_sockets() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(check_private(dir.path()).is_ok());
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(
            check_private(dir.path()),
            Err(HomeError::NotOurs(_))
        ));
    }
}
