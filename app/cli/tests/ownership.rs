//! Owners, modes and special files in a shared folder, while Longshore runs as an ordinary user.

mod common;

use common::{Instance, USER, eventually, expect_success, finish_within, text, users_folder};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// An instance of a user without rights, with an empty folder of theirs that is shared.
struct Person {
    /// The VM is stopped before the folders go.
    vm: Instance,
    shared: tempfile::TempDir,
    _home: tempfile::TempDir,
}

impl Person {
    fn with(images: &[&str]) -> Self {
        let (home, shared) = (users_folder("home-"), users_folder("shared-"));
        let vm = Instance::of_user(home.path());
        vm.start(&["--share", shared.path().to_str().expect("utf-8")]);
        for image in images {
            vm.load(image);
        }
        Self {
            vm,
            shared,
            _home: home,
        }
    }

    /// What a shell of this user says in a container that mounts the folder at `/data`.
    fn shell(&self, image: &str, user: &str, script: &str) -> String {
        let bind = format!("{}:/data", self.shared.path().display());
        self.vm.docker(&[
            "run", "--rm", "-u", user, "-v", &bind, "-w", "/data", image, "sh", "-c", script,
        ])
    }

    /// Everything below the folder belongs to the user, is of use to them and has no bit above the permissions.
    fn all_is_the_users(&self) -> usize {
        fn below(folder: &Path, seen: &mut usize) {
            for entry in std::fs::read_dir(folder).expect("a listing") {
                let path = entry.expect("an entry").path();
                let data = std::fs::symlink_metadata(&path).expect("attributes");
                let what = format!("{}: {:o}", path.display(), data.mode());
                assert_eq!((data.uid(), data.gid()), (USER, USER), "{what}");
                *seen += 1;
                if data.is_symlink() {
                    continue;
                }
                assert!(data.is_dir() || data.is_file(), "{what}");
                let least = if data.is_dir() { 0o700 } else { 0o600 };
                assert_eq!(data.mode() & (0o7000 | least), least, "{what}");
                if data.is_dir() {
                    below(&path, seen);
                }
            }
        }
        let mut seen = 0;
        below(self.shared.path(), &mut seen);
        seen
    }
}

/// `docker WORDS`, which takes minutes under emulation; what it says.
fn patiently(vm: &Instance, words: &[&str], what: &str) -> String {
    let mut docker = vm.docker_command(words);
    let child = docker.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let output = finish_within(Duration::from_secs(1200), child.expect("docker"), what);
    expect_success(&output, what);
    text(&output.stdout).trim().to_owned()
}

/// What dpkg does with a package, by hand: unpack beside, hand over, set the mode, link, move over what was there.
const INSTALL: &str = r"
set -e
umask 022
mkdir root; chown 0:0 root
mkdir -p root/usr/bin root/var/lib/thing
for version in old new; do
  echo '#!/bin/sh' > root/usr/bin/tool.dpkg-new
  echo echo $version >> root/usr/bin/tool.dpkg-new
  chown 0:0 root/usr/bin/tool.dpkg-new
  chmod 4755 root/usr/bin/tool.dpkg-new
  [ ! -e root/usr/bin/tool ] || ln root/usr/bin/tool root/usr/bin/tool.dpkg-tmp
  mv root/usr/bin/tool.dpkg-new root/usr/bin/tool
  rm -f root/usr/bin/tool.dpkg-tmp
done
ln root/usr/bin/tool root/usr/bin/tool-again
mkdir -p root/tmp; chmod 1777 root/tmp
echo secret > root/shadow; chown 0:42 root/shadow; chmod 0 root/shadow
chown 101:102 root/var/lib/thing; chmod 2750 root/var/lib/thing
mknod root/null c 1 3; mkfifo root/pipe; chown 33:33 root/pipe
echo kept > root/readonly; chmod 444 root/readonly
stat -c '%n %a %u %g %h' root/usr/bin/tool root/usr/bin/tool-again root/tmp root/shadow root/var/lib/thing root/pipe root/readonly
stat -c '%F %t,%T' root/null; stat -c %F root/pipe
cat root/shadow; root/usr/bin/tool
";

#[test]
fn what_packages_set_is_kept_and_the_disk_stays_the_users() {
    let person = Person::with(&["busybox"]);
    let said = person.shell("busybox", "0", INSTALL);
    let expected = "\
root/usr/bin/tool 4755 0 0 2
root/usr/bin/tool-again 4755 0 0 2
root/tmp 1777 0 0 2
root/shadow 0 0 42 1
root/var/lib/thing 2750 101 102 2
root/pipe 644 33 33 1
root/readonly 444 0 0 1
character special file 1,3
fifo
secret
new";
    assert_eq!(said, expected);
    assert!(person.all_is_the_users() > 10);
    let root = person.shared.path().join("root");
    let mode = |name: &str| {
        let data = std::fs::metadata(root.join(name)).expect(name);
        data.permissions().mode() & 0o7777
    };
    assert_eq!((mode("usr/bin/tool"), mode("shadow")), (0o755, 0o600));

    // For everybody, in other containers and after another start: by what the owner allows.
    let other = r"
cat root/shadow 2>&1; ls root/var/lib/thing 2>&1; rm -f root/usr/bin/tool 2>&1
echo mine > root/tmp/mine; stat -c '%u %a' root/tmp/mine root/usr/bin/tool";
    let look = |user| person.shell("busybox", user, other);
    let refused = "\
cat: can't open 'root/shadow': Permission denied
ls: can't open 'root/var/lib/thing': Permission denied";
    let said = look("1000");
    assert!(said.starts_with(refused), "{said}");
    assert!(said.ends_with("1000 644\n0 4755"), "{said}");
    expect_success(&person.vm.longshore(&["stop"]), "stop");
    person.vm.start(&[]);
    assert_eq!(look("1000"), said);
    // The sticky folder is root's, and the file another's.
    let removed = person.shell("busybox", "1001", "rm -f root/tmp/mine 2>&1 || true");
    assert!(removed.contains("not permitted"), "{removed}");
    let inside = r"
(umask 027; echo x > root/var/lib/thing/file); stat -c '%u %g %a' root/var/lib/thing/file
(echo through > root/pipe &) ; cat root/pipe; find root -type p -o -type c | sort";
    let said = person.shell("busybox", "0", inside);
    assert_eq!(said, "0 102 640\nthrough\nroot/null\nroot/pipe");
    // A host user's own chmod counts, and an executable made there is one here.
    std::fs::set_permissions(root.join("usr/bin/tool"), PermissionsExt::from_mode(0o700))
        .expect("chmod");
    eventually("the chmod is seen", || {
        person.shell("busybox", "0", "stat -c %a root/usr/bin/tool") == "700"
    });
    person.shell("busybox", "0", "rm -r root");
    assert_eq!(person.all_is_the_users(), 0);
}

/// What packages are made of, out of the image into the folder.
const COPY: &str = "tar -C / -cf - usr etc var | tar -C /data -xpf -";
/// apt and dpkg on top of that: their scripts, their user `_apt`, setuid files.
const APT: &str = r#"
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install -y sudo 2>&1
dpkg --audit
dpkg --verify
sudo id -un
stat -c '%n %a %U %G' /usr/bin/sudo /etc/sudoers /var/lib/apt/lists/partial /usr/bin/su /var/tmp /var/mail
"#;

#[test]
#[ignore = "long: Debian on a shared folder"]
fn apt_installs_into_a_shared_folder() {
    let person = Person::with(&["debian"]);
    let shared = person.shared.path().display();
    let run = |folders: &[&str], script: &str| {
        let binds = folders.iter().map(|f| format!("--volume={shared}{f}"));
        let binds: Vec<String> = binds.collect();
        let mut words = vec!["run", "--rm"];
        words.extend(binds.iter().map(String::as_str));
        words.extend(["debian", "sh", "-c", script]);
        patiently(&person.vm, &words, script)
    };
    let began = Instant::now();
    run(&[":/data"], COPY);
    println!("copied in {:?}", began.elapsed());
    let began = Instant::now();
    let said = run(&["/usr:/usr", "/etc:/etc", "/var:/var"], APT);
    println!("installed in {:?}:\n{said}", began.elapsed());
    let end = "\
root
/usr/bin/sudo 4755 root root
/etc/sudoers 440 root root
/var/lib/apt/lists/partial 700 _apt root
/usr/bin/su 4755 root root
/var/tmp 1777 root root
/var/mail 2775 root mail";
    assert!(said.ends_with(end), "{said}");
    let kept = person.all_is_the_users();
    assert!(kept > 3000, "{kept} files");
}

/// Debian's postgres on the folder, of so many clients that each run so many transactions.
fn postgres_runs_is_killed_and_recovers(clients: u32, each: u32) {
    let person = Person::with(&["postgres"]);
    let vm = &person.vm;
    let password = person.shared.path().join("password");
    std::fs::write(&password, "word").expect("a file");
    chown(&password, Some(USER), Some(USER)).expect("chown");
    let bind = format!("{}:/data", person.shared.path().display());
    vm.docker(&[
        "run",
        "-d",
        "--name",
        "db",
        "-v",
        &bind,
        "-e",
        "PGDATA=/data/cluster",
        "-e",
        "POSTGRES_PASSWORD_FILE=/data/password",
        "postgres",
    ]);
    let sql = |query: &str| {
        // Debian's own psql is a script that needs more of Perl than the image has.
        let line = r#"exec /usr/lib/postgresql/*/bin/psql -U postgres -Atc "$1""#;
        let psql = ["exec", "db", "sh", "-c", line, "psql", query];
        let output = vm.docker_command(&psql).output().expect("docker exec");
        (
            output.status.success(),
            text(&output.stdout).trim().to_owned(),
        )
    };
    eventually("postgres answers", || sql("select 1").0);
    let bench = |words: &[&str]| {
        let mut command = vec!["exec", "db", "sh", "-c"];
        let line = format!(
            "exec /usr/lib/postgresql/*/bin/pgbench -U postgres {}",
            words.join(" ")
        );
        command.push(&line);
        patiently(vm, &command, "pgbench")
    };
    bench(&["-iq", "-s", "2", "postgres"]);
    let (clients, each) = (clients.to_string(), each.to_string());
    let began = Instant::now();
    let report = bench(&["-c", &clients, "-t", &each, "postgres"]);
    println!("{report}\nin {:?}", began.elapsed());
    let wanted: u32 =
        clients.parse::<u32>().expect("a number") * each.parse::<u32>().expect("a number");
    let done = || sql("select count(*) from pgbench_history").1;
    assert_eq!(done(), wanted.to_string());

    // Killed in the middle of more; what was acknowledged is there.
    // -n: it would clear the history first.
    let more = ["-n", "-c", &clients, "-T", "30", "postgres"].join(" ");
    let line = format!("exec /usr/lib/postgresql/*/bin/pgbench -U postgres {more}");
    let mut running = vm
        .docker_command(&["exec", "db", "sh", "-c", &line])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("pgbench");
    std::thread::sleep(Duration::from_secs(3));
    let acknowledged: u32 = done().parse().expect("a number");
    vm.docker(&["kill", "-s", "KILL", "db"]);
    let _ = running.wait();
    assert!(acknowledged > wanted, "{acknowledged}");
    vm.docker(&["start", "db"]);
    let began = Instant::now();
    eventually("postgres recovers", || sql("select 1").0);
    println!(
        "usable {:?} after the kill, {acknowledged} transactions before",
        began.elapsed()
    );
    let after: u32 = done().parse().expect("a number");
    assert!(after >= acknowledged, "{after} of {acknowledged}");
    let sums = "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history), \
        (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history)";
    assert_eq!(sql(sums).1, "t|t");
    let log = vm.docker_output(&["logs", "db"]);
    let log = text(&log.stdout) + &text(&log.stderr);
    assert!(log.contains("automatic recovery in progress"), "{log}");
    let owner = vm.docker(&["exec", "db", "stat", "-c", "%u %a", "/data/cluster"]);
    assert_eq!(owner, "101 700");
    assert!(person.all_is_the_users() > 900);
    vm.docker(&["rm", "-f", "db"]);
}

#[test]
fn postgres_on_a_shared_folder_is_killed_and_recovers() {
    postgres_runs_is_killed_and_recovers(2, 250);
}

#[test]
#[ignore = "long: 10 000 transactions"]
fn postgres_of_10_000_transactions_on_a_shared_folder() {
    postgres_runs_is_killed_and_recovers(4, 2500);
}
