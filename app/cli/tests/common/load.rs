//! Many clients at once, in a process of their own.

#![allow(dead_code)] // each test binary uses its part

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Instance, expect_success, finish_within, repository, target_folder, text};

/// The last scenarios and the containers that lived on: how long it takes them to end.
const END: Duration = Duration::from_secs(600);

/// clients/load.py, which goes on until its standard input ends.
pub struct Load(Child);

impl Load {
    pub fn start(vm: &Instance, arguments: &[&str]) -> Self {
        let mut load = Command::new(target_folder().join("clients/python/bin/python"));
        load.arg(repository().join("app/cli/tests/clients/load.py"))
            .arg("busybox")
            .args(arguments)
            .env("DOCKER_HOST", vm.docker_host())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut load = load.spawn().expect("run scripts/clients first");
        // Says so when the containers that live all the time do; at a failure its output ends.
        let output = load.stdout.as_mut().expect("a pipe");
        let (mut said, mut byte) = (Vec::new(), [0]);
        while output.read(&mut byte).is_ok_and(|read| read > 0) && byte != *b"\n" {
            said.extend(byte);
        }
        println!("{}", text(&said));
        Load(load)
    }

    /// What it did; fails when it found anything wrong.
    pub fn end(mut self) -> String {
        drop(self.0.stdin.take());
        let output = finish_within(END, self.0, "load.py");
        expect_success(&output, "load.py");
        text(&output.stdout)
    }
}

pub fn expect_no_objects(vm: &Instance) {
    assert_eq!(vm.docker(&["ps", "-aq"]), "");
    assert_eq!(vm.docker(&["volume", "ls", "-q"]), "");
    let networks = vm.docker(&["network", "ls", "--filter", "type=custom", "-q"]);
    assert_eq!(networks, "");
}
