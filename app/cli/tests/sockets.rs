//! What stands where the host service's sockets and locks should be: left by the dead, held by the living, or something else.
//! No VM boots here.

mod common;

use common::{Instance, expect_success, halt, text};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The longest path of a unix socket, without its zero: `sun_path` has 108 bytes (unix(7)).
const LONGEST_PATH: usize = 107;

/// A request that needs the service.
const ASK: [&str; 3] = ["settings", "get", "cpus"];

/// An instance in `folder` below one of its own.
fn in_folder(folder: &str) -> (tempfile::TempDir, Instance) {
    let outer = tempfile::tempdir().expect("a folder");
    let home = outer.path().join(folder);
    fs::create_dir_all(&home).expect("a home");
    let mut instance = Instance::new();
    instance.environment.push(("LONGSHORE_HOME", home));
    (outer, instance)
}

fn refusal(instance: &Instance) -> String {
    let output = instance.longshore(&ASK);
    assert!(!output.status.success(), "{}", text(&output.stdout));
    text(&output.stderr)
}

fn socket_of(instance: &Instance) -> PathBuf {
    let address = instance.docker_host();
    PathBuf::from(address.strip_prefix("unix://").expect("a unix socket"))
}

#[test]
fn a_home_with_a_long_path_has_its_sockets_elsewhere() {
    let (_outer, instance) = in_folder(&format!("{}/{}", "a".repeat(80), "b".repeat(80)));
    expect_success(&instance.longshore(&ASK), "a request");
    let socket = socket_of(&instance);
    assert!(socket.as_os_str().len() <= LONGEST_PATH, "{socket:?}");
    let folder = socket.parent().expect("a folder");
    let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    assert_eq!((mode(folder), mode(&socket)), (0o700, 0o600));
    let refused = instance.docker_fails(1, &["ps"]);
    assert!(refused.contains("longshore start"), "{refused}");
    instance.tear_down();
    let left: Vec<_> = fs::read_dir(folder).expect("a folder").flatten().collect();
    let sockets = left.iter().filter(|entry| !entry.path().is_dir());
    assert_eq!(sockets.count(), 0, "{left:?}");
    // Its end asks once more what runs, and so makes the folder again.
    drop(instance);
    fs::remove_dir_all(folder).expect("its folder");
}

#[test]
fn what_the_dead_left_is_in_nobodys_way() {
    let instance = Instance::new();
    let home = instance.home.path();
    fs::create_dir_all(home.join("vm")).expect("a folder");
    for socket in ["docker.sock", "host.sock", "vm/vm.sock", "vm/channel.sock"] {
        // Nobody listens any more, and the name stays.
        drop(UnixListener::bind(home.join(socket)).expect("a socket"));
    }
    for lock in ["host.lock", "spawn.lock", "vm/lock"] {
        // A process that exists, and is not ours.
        fs::write(home.join(lock), "1\n").expect("a lock");
    }
    expect_success(&instance.longshore(&ASK), "a request");
    assert_eq!(instance.status()["state"], "stopped");
    let refused = instance.docker_fails(1, &["ps"]);
    assert!(refused.contains("longshore start"), "{refused}");
    instance.tear_down();
}

#[test]
fn a_living_server_is_not_pushed_aside() {
    let instance = Instance::new();
    let path = instance.home.path().join("docker.sock");
    let server = UnixListener::bind(&path).expect("a socket");
    let said = refusal(&instance);
    let named = format!("somebody already serves {}", path.display());
    assert!(said.contains(&named), "{said}");
    assert!(said.contains("LONGSHORE_HOME"), "{said}");
    server.set_nonblocking(true).expect("a socket");
    while server.accept().is_ok() {}
    std::os::unix::net::UnixStream::connect(&path).expect("it is served as before");
    server.accept().expect("by the one who served it");
}

#[test]
fn a_file_in_the_place_of_a_socket_is_kept() {
    let instance = Instance::new();
    let path = instance.home.path().join("docker.sock");
    fs::write(&path, "precious").expect("a file");
    let said = refusal(&instance);
    assert!(said.contains("exists and is not a socket"), "{said}");
    assert!(said.contains(path.to_str().expect("utf-8")), "{said}");
    assert_eq!(fs::read(&path).expect("the file"), b"precious");
}

#[test]
fn a_service_that_has_stopped_to_answer_is_told_of() {
    let instance = Instance::new();
    expect_success(&instance.longshore(&ASK), "a request");
    let service = instance.host_pid().expect("a host service");
    halt(service);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for request in [&ASK[..], &["status"], &["doctor"], &["stop"]] {
            let instance = &instance;
            scope.spawn(move || {
                let output = instance.longshore(request);
                assert!(!output.status.success(), "{request:?}");
                let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
                assert!(said.contains("does not answer"), "{said}");
                let process = format!("process {service}");
                assert!(said.contains(&process), "{said}");
            });
        }
    });
    println!("told after {:.1?}", begin.elapsed());
    // SAFETY: plain kill(2) on a process that the instance named, and that stands.
    unsafe { libc::kill(service, libc::SIGCONT) };
    expect_success(&instance.longshore(&ASK), "a request to one that goes on");
    instance.tear_down();
}
