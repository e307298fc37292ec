//! A registry that is broken or means harm: each pull ends with an error that says what is wrong, in time, and leaves nothing.

mod common;

use common::{Instance, expect_success, finish_within};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Of a pull that ends by itself: five attempts with growing pauses between them, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What one repository does to whoever asks for its layer.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Honest,
    /// Ends in the middle of each answer, and knows no ranges.
    Cuts,
    /// Ends in the middle of the first answer only.
    CutsOnce,
    /// Other bytes than those of the digest, as many.
    Lies,
    /// More bytes than the manifest says.
    Pours,
    /// "Too Many Requests" once.
    Busy,
    /// 500, always.
    Fails,
    SendsHome,
    SendsAround,
    /// Headers and then nothing.
    Stalls,
}

/// Its contents by repository, and by repository how often its layer was asked for.
struct Registry {
    port: u16,
    manners: HashMap<&'static str, Manner>,
    blobs: Mutex<HashMap<String, Vec<u8>>>,
    /// Media type and bytes by `repository/manifests/reference`.
    manifests: Mutex<HashMap<String, (&'static str, Vec<u8>)>>,
    layer: String,
    asked: Mutex<HashMap<String, usize>>,
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let hex = digest.iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", hex.collect::<String>())
}

/// A layer of one file whose bytes no compression would shorten, as a plain archive.
fn layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let content: Vec<u8> = (0..200_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, "file", &content[..])
        .expect("append");
    tar.into_inner().expect("an archive")
}

fn link(bytes: &[u8], media_type: &str) -> serde_json::Value {
    serde_json::json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

impl Registry {
    fn start(manners: &[(&'static str, Manner)]) -> Arc<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let layer = layer();
        let registry = Arc::new(Registry {
            port: listener.local_addr().expect("an address").port(),
            manners: manners.iter().copied().collect(),
            blobs: Mutex::default(),
            manifests: Mutex::default(),
            layer: digest(&layer),
            asked: Mutex::default(),
        });
        for (name, _) in manners {
            registry.add_image(name, std::slice::from_ref(&layer));
        }
        let serving = registry.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(&stream));
            }
        });
        registry
    }

    fn add_blob(&self, bytes: &[u8]) {
        let mut blobs = self.blobs.lock().unwrap();
        blobs.insert(digest(bytes), bytes.to_vec());
    }

    fn add_manifest(&self, name: &str, kind: &'static str, json: &serde_json::Value) -> Vec<u8> {
        let bytes = serde_json::to_vec(json).expect("JSON");
        let mut manifests = self.manifests.lock().unwrap();
        for reference in ["latest", &digest(&bytes)] {
            let key = format!("{name}/manifests/{reference}");
            manifests.insert(key, (kind, bytes.clone()));
        }
        bytes
    }

    fn add_image(&self, name: &str, layers: &[Vec<u8>]) -> Vec<u8> {
        let config = serde_json::json!({
            // Another image for each repository.
            "author": name,
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|one| digest(one)).collect::<Vec<_>>() },
        });
        let config = serde_json::to_vec(&config).expect("JSON");
        self.add_blob(&config);
        for layer in layers {
            self.add_blob(layer);
        }
        let of_layer = "application/vnd.oci.image.layer.v1.tar";
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": link(&config, "application/vnd.oci.image.config.v1+json"),
            "layers": layers.iter().map(|one| link(one, of_layer)).collect::<Vec<_>>(),
        });
        self.add_manifest(name, MANIFEST, &manifest)
    }

    /// Answers requests until the connection ends; most manners end it themselves.
    fn serve(&self, stream: &TcpStream) {
        let mut lines = BufReader::new(stream);
        loop {
            let (mut first, mut range, mut line) = (String::new(), None, String::new());
            if lines.read_line(&mut first).unwrap_or(0) == 0 {
                return;
            }
            while lines.read_line(&mut line).is_ok_and(|read| read > 2) {
                let lower = line.to_ascii_lowercase();
                let from = lower
                    .strip_prefix("range: bytes=")
                    .and_then(|from| from.trim().strip_suffix('-'));
                range = from.and_then(|from| from.parse::<usize>().ok()).or(range);
                line.clear();
            }
            let mut words = first.split(' ');
            let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            if self
                .answer(method, path.trim_start_matches("/v2/"), range, stream)
                .is_err()
            {
                return;
            }
        }
    }

    /// An error ends the connection.
    fn answer(
        &self,
        method: &str,
        path: &str,
        range: Option<usize>,
        mut to: &TcpStream,
    ) -> std::io::Result<()> {
        let broken = || std::io::Error::other("on purpose");
        let mut head = |status: &str, more: &str, length: usize| {
            write!(
                to,
                "HTTP/1.1 {status}\r\n{more}Content-Length: {length}\r\n\r\n"
            )
        };
        let manifest = self.manifests.lock().unwrap().get(path).cloned();
        if let Some((kind, bytes)) = manifest {
            let more = format!(
                "Content-Type: {kind}\r\nDocker-Content-Digest: {}\r\n",
                digest(&bytes)
            );
            head("200 OK", &more, bytes.len())?;
            return if method == "HEAD" {
                Ok(())
            } else {
                to.write_all(&bytes)
            };
        }
        let (name, wanted) = path.split_once("/blobs/").unwrap_or_default();
        let Some(bytes) = self.blobs.lock().unwrap().get(wanted).cloned() else {
            return head("404 Not Found", "", 0);
        };
        let manner = match wanted == self.layer {
            true => self.manners.get(name).copied().unwrap_or(Manner::Honest),
            false => Manner::Honest,
        };
        let asked = {
            let mut asked = self.asked.lock().unwrap();
            let count = asked.entry(name.to_owned()).or_default();
            *count += usize::from(wanted == self.layer);
            *count
        };
        let middle = bytes.len() / 2;
        match manner {
            Manner::Cuts => {
                head("200 OK", "", bytes.len())?;
                to.write_all(&bytes[..middle])?;
                Err(broken())
            }
            Manner::CutsOnce if asked == 1 => {
                head("200 OK", "", bytes.len())?;
                to.write_all(&bytes[..middle])?;
                Err(broken())
            }
            Manner::Lies => {
                head("200 OK", "", bytes.len())?;
                to.write_all(&vec![0; bytes.len()])
            }
            Manner::Pours => {
                write!(to, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                loop {
                    write!(to, "10000\r\n")?;
                    to.write_all(&[0; 0x10000])?;
                    write!(to, "\r\n")?;
                }
            }
            Manner::Busy if asked == 1 => head("429 Too Many Requests", "Retry-After: 1\r\n", 0),
            Manner::Fails => head("500 Internal Server Error", "", 0),
            Manner::SendsHome => head(
                "307 Temporary Redirect",
                "Location: http://127.0.0.1:1/x\r\n",
                0,
            ),
            Manner::SendsAround => head(
                "307 Temporary Redirect",
                &format!("Location: /v2/{path}\r\n"),
                0,
            ),
            Manner::Stalls => {
                head("200 OK", "", bytes.len())?;
                // Until the other side goes.
                let _ = to.read(&mut [0]);
                Err(broken())
            }
            Manner::Honest | Manner::CutsOnce | Manner::Busy => match range {
                Some(from) if from < bytes.len() => {
                    let more = format!(
                        "Content-Range: bytes {from}-{}/{}\r\n",
                        bytes.len() - 1,
                        bytes.len()
                    );
                    head("206 Partial Content", &more, bytes.len() - from)?;
                    to.write_all(&bytes[from..])
                }
                _ => {
                    head("200 OK", "", bytes.len())?;
                    to.write_all(&bytes)
                }
            },
        }
    }
}

/// A pull that fails, and in which words.
fn refused(vm: &Instance, reference: &str) -> String {
    let mut pull = vm.docker_command(&["pull", reference]);
    pull.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = finish_within(SOON, pull.spawn().expect("docker"), reference);
    assert!(!output.status.success(), "{reference} was pulled");
    common::text(&output.stderr)
}

/// Snapshots, unfinished downloads and blobs that the guest keeps.
fn kept(vm: &Instance) -> String {
    let root = "/var/lib/containerd/io.containerd";
    vm.guest(&format!(
        "ls {root}.snapshotter.v1.overlayfs/snapshots {root}.content.v1.content/ingest {root}.content.v1.content/blobs/sha256"
    ))
}

fn expect_kept(vm: &Instance, before: &str) {
    let mut last = String::new();
    common::eventually("nothing more stays", || {
        let now = kept(vm);
        if now != last {
            eprintln!("{now}");
        }
        last = now;
        last == before
    });
}

#[test]
fn a_broken_or_hostile_registry_is_told_what_is_wrong_and_nothing_stays() {
    let registry = Registry::start(&[
        ("honest", Manner::Honest),
        ("cuts", Manner::Cuts),
        ("cuts-once", Manner::CutsOnce),
        ("lies", Manner::Lies),
        ("pours", Manner::Pours),
        ("busy", Manner::Busy),
        ("fails", Manner::Fails),
        ("sends-home", Manner::SendsHome),
        ("sends-around", Manner::SendsAround),
        ("stalls", Manner::Stalls),
    ]);
    let layer = layer();
    registry.add_image("deep", &vec![b"small".to_vec(); 10_000]);
    let leaf = registry.add_image("nested", std::slice::from_ref(&layer));
    let index = |child: &[u8], kind| serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [link(child, kind)] });
    let inner = registry.add_manifest("nested", INDEX, &index(&leaf, MANIFEST));
    registry.add_manifest("nested", INDEX, &index(&inner, INDEX));
    let mut unsized_layer: serde_json::Value = serde_json::from_slice(&leaf).expect("JSON");
    unsized_layer["layers"][0]["size"] = 0.into();
    registry.add_manifest("unsized", MANIFEST, &unsized_layer);
    registry.add_manifest(
        "huge",
        MANIFEST,
        &serde_json::json!({ "config": "x".repeat(9 << 20) }),
    );
    registry.add_manifest("nonsense", MANIFEST, &serde_json::json!([1, 2]));

    let vm = Instance::new();
    let host = format!("host.docker.internal:{}", registry.port);
    let setting = format!("insecure_registries+={host}");
    expect_success(&vm.longshore(&["settings", "set", &setting]), "settings");
    vm.start(&[]);
    let before = kept(&vm);
    for (name, words) in [
        ("cuts", "fetching sha256:"),
        ("lies", "unexpected commit digest"),
        ("pours", "is longer than its"),
        ("fails", "500 Internal Server Error"),
        ("sends-home", "this machine"),
        ("sends-around", "too many redirects"),
        ("deep", "max depth exceeded"),
        ("nested", "an index inside an index"),
        ("unsized", "tells no size of"),
        ("huge", "too large"),
        ("nonsense", "manifest"),
        ("nothing", "not found"),
    ] {
        let said = refused(&vm, &format!("{host}/{name}"));
        assert!(said.contains(words), "{name}: {said}");
    }

    // Whoever waits for a silent registry may give up.
    let mut pull = vm.docker_command(&["pull", &format!("{host}/stalls")]);
    let mut pull = pull.stdout(Stdio::null()).spawn().expect("docker");
    common::eventually("the layer is asked for", || {
        registry.asked.lock().unwrap().contains_key("stalls")
    });
    pull.kill().expect("kill");
    pull.wait().expect("wait");
    assert_eq!(vm.docker(&["images", "-aq"]), "");
    expect_kept(&vm, &before);

    for name in ["honest", "cuts-once", "busy"] {
        let reference = format!("{host}/{name}");
        vm.docker(&["pull", &reference]);
        vm.docker(&["rmi", &reference]);
    }
    expect_kept(&vm, &before);
}
