//! Doors that a container does not find: the VM's own services over vsock, and the host service's.

mod common;

use common::{Instance, finish, shared, text};
use std::path::PathBuf;
use std::process::Command;

/// Tries the calls that lead to an AF_VSOCK socket (40), and says what each came to: `open` or the error's name.
/// The 32-bit ones go through `int 0x80`, which any 64-bit program has.
const PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static long call32(long number, long a, long b, long c) {
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
  return result;
}

static void tell(const char *name, long result) {
  printf("%s %s\n", name, result >= 0 ? "open" : strerrorname_np(-result));
}

int main(void) {
  long result = syscall(SYS_socket, 40, SOCK_STREAM, 0);
  tell("socket", result < 0 ? -errno : result);
  int pair[2];
  result = socketpair(40, SOCK_STREAM, 0, pair);
  tell("socketpair", result < 0 ? -errno : result);
  tell("socket32", call32(359, 40, SOCK_STREAM, 0));
  unsigned *arguments = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  arguments[0] = 40, arguments[1] = SOCK_STREAM, arguments[2] = 0;
  tell("socketcall32", call32(102, 1, (long)arguments, 0));
  result = syscall(0x40000000 | SYS_socket, 40, SOCK_STREAM, 0);
  tell("socket_x32", result < 0 ? -errno : result);
  result = syscall(SYS_io_uring_setup, 1, arguments);
  tell("io_uring", result < 0 ? -errno : result);
  result = syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
  tell("inet", result < 0 ? -errno : result);
  return 0;
}
"#;

/// The program, built for any Linux.
fn program() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, program) = (folder.path().join("doors.c"), folder.path().join("doors"));
    std::fs::write(&source, PROGRAM).expect("write");
    let mut compile = Command::new("cc");
    compile
        .args(["-static", "-O1", "-o"])
        .args([&program, &source]);
    common::expect_success(&finish(compile, "cc"), "cc");
    (folder, program)
}

/// What the program says in a container with these options.
fn tried(vm: &Instance, options: &[&str]) -> Vec<String> {
    let (_folder, program) = program();
    let mut create = vec!["create", "--name", "doors"];
    create.extend(options);
    create.extend(["busybox", "/doors"]);
    vm.docker(&create);
    vm.docker(&["cp", program.to_str().expect("utf-8"), "doors:/doors"]);
    let said = vm.docker(&["start", "-a", "doors"]);
    vm.docker(&["rm", "doors"]);
    said.lines().map(str::to_owned).collect()
}

#[test]
fn no_container_opens_a_vsock_socket() {
    let vm = shared();
    for options in [
        &[][..],
        &["--user", "1000"],
        &["--cap-add", "NET_ADMIN"],
        &["--network", "host"],
    ] {
        let said = tried(vm, options);
        assert_eq!(said.len(), 7, "{said:?}");
        for line in &said {
            assert_eq!(
                line.ends_with(" open"),
                line == "inet open",
                "{options:?}: {said:?}"
            );
        }
    }
}

#[test]
fn the_vm_does_not_reach_the_host_service() {
    let pages = tempfile::tempdir().expect("a folder");
    std::fs::write(pages.path().join("index.html"), "the pages").expect("write");
    let mut vm = Instance::new();
    vm.environment
        .push(("LONGSHORE_UI", pages.path().to_owned()));
    vm.start(&[]);
    vm.load("busybox");
    // The pages' server is there for a browser of the host, and the user network leads to the host's localhost.
    let opened = vm.longshore(&["ui", "--no-open"]);
    let address = text(&opened.stdout).trim().to_owned();
    let port = address
        .split(':')
        .nth(2)
        .and_then(|rest| rest.split('/').next())
        .unwrap_or_else(|| panic!("no address: {address}"))
        .to_owned();
    for (host, path) in [
        ("host.docker.internal", "/v1/status"),
        ("10.0.2.2", "/v1/settings"),
        ("10.0.2.2", "/page/v1/settings"),
        ("10.0.2.2", "/"),
    ] {
        let url = format!("http://{host}:{port}{path}");
        for header in ["X-Nothing: 1".to_owned(), format!("Host: 127.0.0.1:{port}")] {
            let asked = vm.docker_output(&[
                "run", "--rm", "busybox", "wget", "-q", "-T", "10", "-O", "-", "--header", &header,
                &url,
            ]);
            let said = text(&asked.stdout);
            assert!(
                !asked.status.success() && said.is_empty(),
                "{url} {header}: {said}"
            );
        }
    }
    vm.longshore(&["ui", "--close"]);
}
