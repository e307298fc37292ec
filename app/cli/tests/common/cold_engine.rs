//! The guest's own supervisor and daemon on a data disk that no VM runs on, for a look at what a boot would find there.
//!
//! They run in namespaces of their own on this machine, as root. Containers cannot be started here, only looked at.

#![allow(dead_code)] // each test binary uses its part

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::{finish, recorded_disk::in_memory, target_folder};

/// The disk is checked and mounted as the agent does it; the daemon gets its listener as it gets it from init, and its data at the
/// guest's path, which records of volumes name.
const START: &str = r#"
set -e
mount -t tmpfs tmpfs /run
e2fsck -p -f "$DISK" || [ $? -le 2 ]
mount -o loop,noatime,discard "$DISK" "$MOUNT"
mkdir -p "$MOUNT/docker" "$MOUNT/containerd"
mount -t tmpfs tmpfs /var/lib
mkdir /var/lib/docker
mount --bind "$MOUNT/docker" /var/lib/docker
exec 3<&0 </dev/null
"$PROGRAMS/longshore-supervisor" --root "$MOUNT/containerd" 3<&- &
export LISTEN_FDS=1 LISTEN_FDNAMES=docker LISTEN_PID=$$
exec "$PROGRAMS/longshore-daemon" --data-root /var/lib/docker
"#;

pub struct ColdEngine {
    /// Whoever lives in its namespaces ends with it.
    child: Child,
    folder: tempfile::TempDir,
}

impl ColdEngine {
    /// Whoever asks it anything waits until it is there.
    pub fn start(disk: &Path) -> Self {
        let folder = in_memory();
        let listener = UnixListener::bind(folder.path().join("docker.sock")).expect("a socket");
        let mount = folder.path().join("mount");
        std::fs::create_dir(&mount).expect("a folder");
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let child = Command::new("unshare")
            .args([
                "--mount",
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                "bash",
                "-c",
                START,
            ])
            .env("DISK", disk)
            .env("MOUNT", &mount)
            .env(
                "PROGRAMS",
                target_folder().join("x86_64-unknown-linux-gnu/guest"),
            )
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("unshare");
        Self { child, folder }
    }

    pub fn docker(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("docker");
        command
            .arg("-H")
            .arg(format!("unix://{}", self.socket().display()))
            .args(arguments)
            .stdin(Stdio::null());
        finish(command, &format!("docker {}", arguments.join(" ")))
    }

    /// What its store says of itself: `{"Blobs": …, "Problems": […]}`.
    pub fn store(&self) -> serde_json::Value {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--max-time",
            "60",
            "http://engine/longshore/store",
            "--unix-socket",
        ])
        .arg(self.socket());
        let output = finish(curl, "curl");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// A file of a volume.
    pub fn volume_file(&self, volume: &str, name: &str) -> Option<String> {
        let mount = self.folder.path().join("mount");
        let inside = mount
            .join("docker/volumes")
            .join(volume)
            .join("_data")
            .join(name);
        let namespace = format!("/proc/{}/root", self.child.id());
        let path = Path::new(&namespace).join(inside.strip_prefix("/").expect("absolute"));
        std::fs::read_to_string(path).ok()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }
}

impl Drop for ColdEngine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
