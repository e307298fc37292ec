//! An ordinary user's home is shared with the VM, and the keys in it are not.

mod common;

use common::{Instance, USER, expect_success, finish, text};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

/// An instance of a user without rights, whose home has secrets in it and who has no right to anything else.
struct Person {
    /// Of the folder that holds everything: the VM is stopped before it goes.
    vm: Instance,
    home: tempfile::TempDir,
}

impl Person {
    fn new() -> Self {
        let home = tempfile::Builder::new()
            .prefix("home-")
            .tempdir()
            .expect("a home");
        let secret = |path: &str| {
            let path = home.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
            std::fs::write(path, "SECRET").expect("a secret");
        };
        for path in [
            ".ssh/id_ed25519",
            ".gnupg/key",
            ".docker/config.json",
            ".aws/credentials",
            ".config/gcloud/token",
            "dotfiles/kube/config",
            ".netrc",
        ] {
            secret(path);
        }
        std::os::unix::fs::symlink("dotfiles/kube", home.path().join(".kube")).expect("a link");
        std::os::unix::fs::symlink(".ssh/id_ed25519", home.path().join("by-link")).expect("a link");
        std::fs::write(home.path().join("project"), "open").expect("a file");
        std::fs::write(home.path().join(".config/tool"), "open").expect("a file");
        let data = home.path().join(".local/share");
        std::fs::create_dir_all(&data).expect("folders");
        let mut vm = Instance::new();
        vm.home = tempfile::tempdir_in(data).expect("a folder");
        vm.run_as = Some((USER, home.path().to_owned()));
        give(home.path());
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700))
            .expect("mode");
        Self { vm, home }
    }

    /// What a shell says in a container that mounts the whole home at `/home`.
    fn in_container(&self, script: &str) -> String {
        let bind = format!("{}:/home", self.home.path().display());
        let mut run = self
            .vm
            .docker_command(&["run", "--rm", "-v", &bind, "busybox", "sh", "-c"]);
        run.arg(script);
        let output = finish(run, script);
        text(&output.stdout) + &text(&output.stderr)
    }
}

/// Everything below belongs to the user.
fn give(folder: &Path) {
    let given = Command::new("chown")
        .args(["-Rh", &USER.to_string()])
        .arg(folder)
        .output();
    expect_success(&given.expect("chown"), "chown");
    chown(folder, Some(USER), Some(USER)).expect("chown");
}

#[test]
fn the_users_keys_are_not_in_the_shared_home() {
    let person = Person::new();
    let vm = &person.vm;
    vm.start(&[]);
    vm.load("busybox");
    let all =
        person.in_container("cd /home; cat project .config/tool; grep -r SECRET . ; cat by-link");
    assert!(all.starts_with("openopen"), "{all}");
    assert!(!all.contains("SECRET"), "{all}");

    // By name, by a way round, by where a link leads, by a race of renames; nothing of it can be made either.
    for attempt in [
        "cat /home/.ssh/id_ed25519",
        "cat /home/.config/../.ssh/id_ed25519",
        "cat /home/.kube/config; cat /home/dotfiles/kube/config",
        "mv /home/.ssh /home/seen; cat /home/seen/*",
        "mv /home/.config /home/seen; cat /home/seen/gcloud/token",
        "ln -s .ssh /home/link; cat /home/link/id_ed25519; rm /home/link",
        "ln /home/.netrc /home/hard; cat /home/hard",
        "mkdir -p /home/.config/x; for i in 1 2 3 4 5 6 7 8 9; do mv /home/.config /home/c & cat /home/c/gcloud/token /home/.config/gcloud/token; mv /home/c /home/.config; done",
        "ls -a /home /home/.config | grep -E 'ssh|gnupg|docker|aws|gcloud|netrc' && echo SECRET",
        "ls /home/.local/share/*/* && echo SECRET",
        "mkdir /home/.azure && echo SECRET; echo key >> /home/.ssh/authorized_keys && echo SECRET",
    ] {
        let said = person.in_container(attempt);
        assert!(!said.contains("SECRET"), "{attempt}: {said}");
    }
    // By its own path it is refused in words.
    let keys = person.home.path().join(".ssh").display().to_string();
    let bind = format!("{keys}:/keys");
    let refused = vm.docker_fails(125, &["run", "-v", &bind, "busybox", "true"]);
    let advice = format!("longshore settings set shares+={keys}");
    assert!(refused.contains(&advice), "{refused}");
    assert!(person.home.path().join(".ssh/id_ed25519").exists());
    assert!(!person.home.path().join(".ssh/authorized_keys").exists());
    let written = person.in_container("echo new > /home/made && cat /home/made");
    assert_eq!(written, "new\n");
}
