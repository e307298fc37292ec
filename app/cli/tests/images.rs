//! Images with the real CLI: save and load, push, commit, tags and their removal.

mod common;

use common::registry::{Registry, USERS};
use common::{Instance, expect_success, finish, shared};
use std::path::Path;
use std::process::Command;

fn text_of(archive: &Path, name: &str) -> String {
    let mut tar = Command::new("tar");
    tar.arg("-xOf").arg(archive).arg(name);
    let output = finish(tar, "tar");
    expect_success(&output, name);
    common::text(&output.stdout)
}

#[test]
fn a_saved_archive_is_an_oci_layout_and_loads_again() {
    let vm = shared();
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("saved.tar");
    let path = archive.to_str().expect("utf-8");
    vm.docker(&["tag", "busybox", "saved:one"]);
    vm.docker(&["tag", "busybox", "saved:two"]);
    let id = vm.docker(&["image", "inspect", "-f", "{{.Id}}", "saved:one"]);
    // A repository without a tag is all its tags.
    vm.docker(&["save", "-o", path, "saved"]);
    let layout = text_of(&archive, "oci-layout");
    assert_eq!(layout, r#"{"imageLayoutVersion":"1.0.0"}"#);
    let index = text_of(&archive, "index.json");
    assert!(index.contains("docker.io/library/saved:one"), "{index}");
    let docker: serde_json::Value =
        serde_json::from_str(&text_of(&archive, "manifest.json")).expect("JSON");
    assert_eq!(docker[0]["RepoTags"].as_array().map(Vec::len), Some(2));
    let layer = docker[0]["Layers"][0].as_str().expect("a layer");
    assert!(layer.starts_with("blobs/sha256/"), "{layer}");
    vm.docker(&["rmi", "saved:one", "saved:two"]);
    let loaded = vm.docker(&["load", "-i", path]);
    assert!(loaded.contains("Loaded image: saved:one"), "{loaded}");
    assert!(loaded.contains("Loaded image: saved:two"), "{loaded}");
    let again = vm.docker(&["image", "inspect", "-f", "{{.Id}}", "saved:two"]);
    assert_eq!(again, id);
    // By its id an image goes without its names.
    vm.docker(&["save", "-o", path, &id]);
    let docker = text_of(&archive, "manifest.json");
    assert!(docker.contains(r#""RepoTags":null"#), "{docker}");
    vm.docker(&["rmi", "saved:one", "saved:two"]);
    let missing = vm.docker_fails(1, &["save", "nosuch"]);
    assert!(missing.contains("No such image: nosuch"), "{missing}");
}

#[test]
fn a_container_is_committed_with_changes() {
    let vm = shared();
    vm.docker(&[
        "run",
        "--name",
        "changed",
        "busybox",
        "sh",
        "-c",
        "echo new > /new; rm /etc/group",
    ]);
    let id = vm.docker(&[
        "commit",
        "-a",
        "An Author",
        "-m",
        "a message",
        "-c",
        "ENV A=1",
        "-c",
        "CMD [\"cat\",\"/new\"]",
        "changed",
        "committed:1",
    ]);
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(vm.docker(&["run", "--rm", "committed:1"]), "new");
    assert_eq!(
        vm.docker(&[
            "run",
            "--rm",
            "committed:1",
            "sh",
            "-c",
            "echo $A; ls /etc/group 2>&1 | wc -l"
        ]),
        "1\n1"
    );
    let history = vm.docker(&["history", "--no-trunc", "committed:1"]);
    assert!(history.contains("a message"), "{history}");
    let author = vm.docker(&["image", "inspect", "-f", "{{.Author}}", "committed:1"]);
    assert_eq!(author, "An Author");
    let bad = vm.docker_fails(1, &["commit", "-c", "RUN x", "changed"]);
    assert!(bad.contains("run is not a valid change command"), "{bad}");
    vm.docker(&["rm", "changed"]);
    let gone = vm.docker(&["rmi", "committed:1"]);
    assert!(
        gone.contains("Untagged: committed:1") && gone.contains("Deleted: sha256:"),
        "{gone}"
    );
}

#[test]
fn images_are_pushed_and_pulled_again() {
    let registry = Registry::start();
    let guarded = Registry::start_with(Some(USERS));
    let host = format!("host.docker.internal:{}", registry.port);
    let vm = Instance::new();
    expect_success(
        &vm.longshore(&["settings", "set", &format!("insecure_registries+={host}")]),
        "declaring the registry insecure",
    );
    let other = format!("insecure_registries+=host.docker.internal:{}", guarded.port);
    expect_success(
        &vm.longshore(&["settings", "set", &other]),
        "the other one, too",
    );
    vm.start(&[]);
    vm.load("busybox");
    let name = format!("{host}/team/app:1");
    vm.docker(&["tag", "busybox", &name]);
    let pushed = vm.docker(&["push", &name]);
    assert!(pushed.contains("The push refers to repository"), "{pushed}");
    assert!(
        pushed.contains("Pushed") && pushed.contains("1: digest: sha256:"),
        "{pushed}"
    );
    let again = vm.docker(&["push", &name]);
    assert!(again.contains("Layer already exists"), "{again}");
    vm.docker(&["rmi", "-f", &name, "busybox"]);
    assert_eq!(vm.docker(&["run", "--rm", &name, "echo", "back"]), "back");
    let locked = format!("host.docker.internal:{}", guarded.port);
    let name = format!("{locked}/team/app:1");
    vm.docker(&["tag", &format!("{host}/team/app:1"), &name]);
    let refused = vm.docker_fails(1, &["push", &name]);
    assert!(refused.contains("no basic auth credentials"), "{refused}");
    let wrong = vm.docker_fails(1, &["login", "-u", "me", "-p", "wrong", &locked]);
    let expected =
        format!("login attempt to http://{locked}/v2/ failed with status: 401 Unauthorized");
    assert!(wrong.contains(&expected), "{wrong}");
    let refused = vm.docker_fails(1, &["push", &name]);
    assert!(refused.contains("no basic auth credentials"), "{refused}");
    let right = vm.docker(&["login", "-u", "me", "-p", "secret", &locked]);
    assert!(right.contains("Login Succeeded"), "{right}");
    let pushed = vm.docker(&["push", &name]);
    assert!(pushed.contains("1: digest: sha256:"), "{pushed}");
    vm.docker(&["rmi", &name]);
    vm.docker(&["pull", &name]);
    vm.docker(&["logout", &locked]);
    let refused = vm.docker_fails(1, &["pull", &name]);
    assert!(refused.contains("no basic auth credentials"), "{refused}");
    let missing = vm.docker_fails(1, &["push", &format!("{host}/team/none:1")]);
    assert!(missing.contains("does not exist"), "{missing}");
}
