//! Debian's docker-registry for tests that pull and push.

#![allow(dead_code)] // each test binary uses its part

use super::{Instance, eventually, expect_success, finish, image_archive};
use std::process::{Child, Command, Stdio};

/// An htpasswd file of the user `me` with the password `secret`.
pub const USERS: &str = "me:$2b$04$THBTIuyAEPOVebTx9cyAp.9CD2CZkTdzCY0ED5nlvfj575O3eU25i\n";

/// docker-registry on loopback, with storage of its own.
pub struct Registry {
    child: Child,
    pub port: u16,
    _storage: tempfile::TempDir,
}

impl Registry {
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// `users`: an htpasswd file (bcrypt) whose users alone are let in.
    pub fn start_with(users: Option<&str>) -> Self {
        Self::serve(|storage| match users {
            None => String::new(),
            Some(users) => {
                let file = storage.join("users");
                std::fs::write(&file, users).expect("write");
                let path = file.display();
                format!("auth: {{htpasswd: {{realm: test, path: {path}}}}}\n")
            }
        })
    }

    /// Over TLS, with a certificate that nobody has signed.
    pub fn with_tls() -> Self {
        Self::serve(|storage| {
            let names = vec!["host.docker.internal".to_owned()];
            let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
            let files = [
                ("certificate", made.cert.pem()),
                ("key", made.signing_key.serialize_pem()),
            ];
            let lines = files.map(|(name, pem)| {
                let file = storage.join(name);
                std::fs::write(&file, pem).expect("write");
                format!("    {name}: {}\n", file.display())
            });
            format!("  tls:\n{}", lines.concat())
        })
    }

    /// `more`: lines for the end of its configuration, which is that of `http`.
    fn serve(more: impl FnOnce(&std::path::Path) -> String) -> Self {
        let storage = tempfile::tempdir().expect("a folder");
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))
            .expect("bind")
            .local_addr()
            .expect("an address")
            .port();
        let configuration = storage.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp:\n  addr: \"127.0.0.1:{port}\"\n{}",
            storage.path().join("data").display(),
            more(storage.path())
        );
        std::fs::write(&configuration, text).expect("write");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&configuration)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry");
        eventually("the registry listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self {
            child,
            port,
            _storage: storage,
        }
    }

    /// What the guest calls it.
    pub fn host(&self) -> String {
        format!("host.docker.internal:{}", self.port)
    }

    /// A started VM of its own that speaks plain HTTP with this registry.
    pub fn instance(&self) -> Instance {
        let vm = Instance::new();
        let setting = format!("insecure_registries+={}", self.host());
        expect_success(&vm.longshore(&["settings", "set", &setting]), "settings");
        vm.start(&[]);
        vm
    }

    /// Puts an archive of scripts/images in, and gives the digest of its manifest.
    pub fn push(&self, name: &str) -> String {
        self.push_as(name, name)
    }

    /// The same, to the repository `path`.
    pub fn push_as(&self, name: &str, path: &str) -> String {
        let source = format!("docker-archive:{}", image_archive(name).display());
        let target = format!("docker://127.0.0.1:{}/{path}:1", self.port);
        let digest = self._storage.path().join("digest");
        let mut copy = Command::new("skopeo");
        copy.args(["copy", "--quiet", "--dest-tls-verify=false", "--digestfile"])
            .arg(&digest)
            .args([&source, &target]);
        expect_success(&finish(copy, "skopeo copy"), "skopeo copy");
        std::fs::read_to_string(digest)
            .expect("the digest")
            .trim()
            .to_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
