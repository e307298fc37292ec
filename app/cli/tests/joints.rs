//! The joints between our programs, each with Debian's program in the place of one neighbour: what works here keeps to the
//! public protocol, not only to our other half.

mod common;

use common::{Instance, image_archive, image_folder, repository};
use std::fs::File;
use std::sync::OnceLock;
use std::time::Duration;

/// Debian's programs are large: each start takes a second under emulation, and a check starts a hundred.
const PATIENCE: Duration = Duration::from_secs(400);
/// Where the guest keeps Debian's programs: on its own disk, since programs start slowly from a shared folder.
const PEERS: &str = "/var/lib/longshore/peers";

/// A guest with Debian's programs unpacked, for all tests here.
fn guest() -> &'static Instance {
    static SHARED: OnceLock<Instance> = OnceLock::new();
    extern "C" fn stop() {
        if let Some(instance) = SHARED.get() {
            instance.end();
        }
    }
    SHARED.get_or_init(|| {
        let instance = Instance::new();
        let (images, repository) = (image_folder(), repository());
        let shares = [
            images,
            repository.join("vm-agent"),
            repository.join("app/cli/tests/joints"),
        ];
        let flags: Vec<&str> = shares
            .iter()
            .flat_map(|folder| ["--share", folder.to_str().expect("utf-8")])
            .collect();
        instance.start(&flags);
        // SAFETY: `stop` is an extern "C" function without arguments that does not unwind on purpose.
        assert_eq!(unsafe { libc::atexit(stop) }, 0);
        let peers = image_archive("peers");
        instance.guest(&format!(
            "mkdir {PEERS} && tar -x -C {PEERS} -f {}",
            peers.display()
        ));
        instance
    })
}

/// Runs a check among Debian's programs in the guest; on a failure the test shows all that it said.
fn check(command: &[&str]) -> String {
    let vm = guest();
    let repository = repository();
    let script = repository.join("app/cli/tests/joints/in-peers.sh");
    let mut longshore = vm.longshore_command();
    longshore
        .args(["shell", "--", "sh"])
        .arg(script)
        .arg(PEERS)
        .arg(image_folder())
        .arg(repository.join("vm-agent"))
        .args(command);
    // A file, so that what was said until then is shown even when there is no end.
    let log = tempfile::NamedTempFile::new().expect("a file");
    let writer = File::create(log.path()).expect("the file");
    longshore
        .stdout(writer.try_clone().expect("a descriptor"))
        .stderr(writer);
    let what = command.join(" ");
    let said = || std::fs::read_to_string(log.path()).unwrap_or_default();
    let mut child = longshore.spawn().expect("longshore shell");
    let start = std::time::Instant::now();
    let status = loop {
        match child.try_wait().expect("the shell's state") {
            Some(status) => break status,
            None if start.elapsed() > PATIENCE => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{what}: no end after {PATIENCE:?}\n{}", said());
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    assert!(status.success(), "{what}: {status}\n{}", said());
    said()
}

const IMAGE: &str = "/images/busybox.tar";

#[test]
fn our_daemon_runs_on_debians_containerd() {
    let script = "/vm-agent/daemon/tests/guest/on-debians-containerd.sh";
    check(&["bash", script, IMAGE]);
}

#[test]
fn our_supervisor_serves_ctr_and_runs_debians_shim() {
    let script = "/vm-agent/supervisor/tests/guest/ctr.sh";
    check(&["bash", script, "/usr/bin/longshore-supervisor", IMAGE]);
}

#[test]
fn our_shim_and_runtime_run_under_debians_containerd() {
    let script = "/vm-agent/shim/tests/guest/shim-on-containerd.sh";
    check(&[
        "env",
        "RUNTIME=longshore-runtime",
        "BYTES=8M",
        "bash",
        script,
        IMAGE,
    ]);
}

#[test]
fn our_log_writer_runs_under_debians_shim() {
    let script = "/vm-agent/shim/tests/guest/log-under-runc-shim.sh";
    check(&["bash", script, IMAGE]);
}

#[test]
fn our_runtime_does_as_runc_does() {
    let script = "/vm-agent/runtime/tests/guest/compare_bundles.py";
    // What touches every part of a bundle; the whole list takes minutes and runs with --all.
    let cases = "identity,mounts,devices,masks,exit code,stdin,missing command,user,limits,device rules,tmpfs,bind read-only,seccomp";
    check(&["python3", script, "/usr/bin/longshore-runtime", cases]);
}

#[test]
#[ignore = "takes minutes"]
fn our_runtime_does_as_runc_does_in_every_case() {
    let script = "/vm-agent/runtime/tests/guest/compare_bundles.py";
    check(&["python3", script, "/usr/bin/longshore-runtime"]);
}

#[test]
fn debians_ctr_lists_the_products_containers() {
    let vm = guest();
    vm.load("busybox");
    let id = vm.docker(&["run", "-d", "busybox", "sleep", "1000"]);
    // Here ctr meets the product's own supervisor, so it runs beside it.
    let listed = vm.guest(&format!(
        "mkdir -p {PEERS}/run/containerd && mount --bind /run/containerd {PEERS}/run/containerd && \
         busybox chroot {PEERS} ctr -a /run/containerd/containerd.sock -n moby containers ls; umount {PEERS}/run/containerd"
    ));
    assert!(listed.contains(&id), "{id} is not in:\n{listed}");
    vm.docker(&["rm", "-f", &id]);
}
