//! Pull from Debian's docker-registry on the host's loopback, by tag and by digest.

mod common;

use common::{Instance, eventually, expect_success, finish, image_archive};
use std::process::{Child, Command, Stdio};

/// docker-registry on loopback, with storage of its own.
struct Registry {
    child: Child,
    port: u16,
    _storage: tempfile::TempDir,
}

impl Registry {
    fn start() -> Self {
        let storage = tempfile::tempdir().expect("a folder");
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))
            .expect("bind")
            .local_addr()
            .expect("an address")
            .port();
        let configuration = storage.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n",
            storage.path().join("data").display()
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

    /// Puts an archive of scripts/images in, and gives the digest of its manifest.
    fn push(&self, name: &str) -> String {
        let source = format!("docker-archive:{}", image_archive(name).display());
        let target = format!("docker://127.0.0.1:{}/{name}:1", self.port);
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

#[test]
fn images_are_pulled_by_tag_and_by_digest() {
    let registry = Registry::start();
    let digest = registry.push("busybox");
    let host = format!("host.docker.internal:{}", registry.port);
    let vm = Instance::new();
    expect_success(
        &vm.longshore(&["settings", "set", &format!("insecure_registries+={host}")]),
        "declaring the registry insecure",
    );
    vm.start(&[]);
    let said = vm.docker(&["pull", &format!("{host}/busybox:1")]);
    assert!(
        said.contains("Status: Downloaded newer image") && said.contains(&digest),
        "{said}"
    );
    assert!(
        vm.docker(&["pull", &format!("{host}/busybox:1")])
            .contains("Image is up to date")
    );
    assert_eq!(
        vm.docker(&[
            "run",
            "--rm",
            &format!("{host}/busybox:1"),
            "echo",
            "pulled"
        ]),
        "pulled"
    );
    let by_digest = format!("{host}/busybox@{digest}");
    vm.docker(&["pull", &by_digest]);
    assert_eq!(
        vm.docker(&["run", "--rm", &by_digest, "echo", "pulled"]),
        "pulled"
    );
    let missing = vm.docker_fails(1, &["pull", &format!("{host}/nothing:1")]);
    assert!(
        missing.contains("not found") || missing.contains("manifest unknown"),
        "{missing}"
    );
}
