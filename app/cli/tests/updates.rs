//! Updates: of the programs, and of a guest image that does not boot: the engine runs with the image before, and says so.

mod common;

use common::{
    Instance, eventually, expect_success, finish, finish_within, programs, target_folder, text,
};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const FILES: [&str; 4] = ["kernel", "initramfs", "root.erofs", "manifest.json"];

/// An agent that never answers is waited for two minutes, and then the image before boots.
const START: Duration = Duration::from_secs(300);

/// An installation whose guest image the test replaces.
struct Installation {
    vm: Instance,
    image: tempfile::TempDir,
}

fn built(file: &str) -> PathBuf {
    let image = target_folder().join("guest-image");
    image.join(std::env::consts::ARCH).join(file)
}

impl Installation {
    /// The engine has come up once, and its image is kept.
    fn new() -> Self {
        let image = tempfile::tempdir().expect("a folder");
        let mut vm = Instance::new();
        let folder = image.path().to_owned();
        vm.environment.push(("LONGSHORE_GUEST_IMAGE", folder));
        let installation = Self { vm, image };
        installation.install();
        installation.vm.start(&[]);
        installation.vm.docker(&["volume", "create", "kept"]);
        eventually("the image is kept", || installation.good_file().exists());
        installation.stop();
        installation
    }

    fn good_file(&self) -> PathBuf {
        self.vm.home.path().join("good-image/good.json")
    }

    /// The image that works, under the same path.
    fn install(&self) {
        for file in FILES {
            std::fs::copy(built(file), self.image.path().join(file)).expect("copy");
        }
    }

    /// An update with this in place of one of the files, and the manifest that goes with it.
    fn update(&self, file: &str, content: &[u8]) {
        self.install();
        std::fs::write(self.image.path().join(file), content).expect("write");
        let manifest = self.image.path().join("manifest.json");
        let text = std::fs::read(&manifest).expect("the manifest");
        let mut json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let digest: String = Sha256::digest(content)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let files = json["files"].as_array_mut().expect("files");
        let entry = files.iter_mut().find(|entry| entry["name"] == file);
        let entry = entry.expect("the file");
        entry["size"] = content.len().into();
        entry["sha256"] = digest.into();
        std::fs::write(manifest, json.to_string()).expect("write");
    }

    fn stop(&self) {
        expect_success(&self.vm.longshore(&["stop"]), "stop");
    }

    fn try_to_start(&self, flags: &[&str]) -> Output {
        let mut start = self.vm.longshore_command();
        start.arg("start").args(flags);
        let start = start.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        finish_within(START, start.expect("longshore"), "longshore start")
    }

    /// A start that must succeed; what it says.
    fn start(&self, flags: &[&str]) -> String {
        let begin = Instant::now();
        let started = self.try_to_start(flags);
        expect_success(&started, "longshore start");
        println!("  started in {:.1?}", begin.elapsed());
        assert_eq!(self.vm.docker(&["volume", "ls", "-q"]), "kept");
        said(&started)
    }

    fn warning(&self) -> Option<String> {
        let warning = self.vm.status()["warning"].as_str().map(str::to_owned);
        let doctor = self.vm.longshore(&["doctor", "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
        let checks = report["checks"].as_array().expect("checks");
        let image = checks.iter().find(|check| check["name"] == "image");
        let state = image.expect("a check of the image")["verdict"].as_str();
        let expected = if warning.is_some() { "warn" } else { "ok" };
        assert_eq!(state, Some(expected), "{image:?}");
        warning
    }

    /// How many images the home holds.
    fn copies(&self) -> usize {
        let entries = std::fs::read_dir(self.good_file().parent().expect("a folder"));
        let entries = entries.expect("images").flatten();
        entries.filter(|entry| entry.path().is_dir()).count()
    }
}

fn said(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

fn label(disk: &Path, label: &str) {
    let mut name = Command::new("tune2fs");
    name.args(["-L", label]).arg(disk);
    // Where an ordinary user's path does not have it.
    name.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    expect_success(&finish(name, "tune2fs"), "tune2fs");
}

/// A copy of the programs, as an installation has them.
struct Programs {
    vm: Instance,
    folder: tempfile::TempDir,
}

impl Programs {
    fn new() -> Self {
        let mut vm = Instance::new();
        let image = built(FILES[0]).parent().expect("a folder").to_owned();
        vm.environment.push(("LONGSHORE_GUEST_IMAGE", image));
        let folder = tempfile::tempdir().expect("a folder");
        let programs = Self { vm, folder };
        for name in ["", "-host", "-vm", "-file-share"] {
            programs.install(&format!("longshore{name}"));
        }
        programs
    }

    /// A new file in the place of an old one, as a package manager leaves it.
    fn install(&self, name: &str) {
        let partial = self.folder.path().join("partial");
        std::fs::copy(programs().join(name), &partial).expect("copy");
        std::fs::rename(partial, self.folder.path().join(name)).expect("rename");
    }

    fn longshore(&self, arguments: &[&str]) -> String {
        let mut command = self.vm.command_of(&self.folder.path().join("longshore"));
        command.args(arguments);
        let what = format!("longshore {}", arguments.join(" "));
        let output = finish(command, &what);
        expect_success(&output, &what);
        said(&output)
    }
}

#[test]
fn an_update_of_the_service_takes_effect_with_the_next_start() {
    let programs = Programs::new();
    programs.longshore(&["settings", "set", "memory=1g"]);
    let first = programs.vm.host_pid().expect("a service");
    programs.longshore(&["settings", "get"]);
    assert_eq!(programs.vm.host_pid(), Some(first));

    programs.install("longshore-host");
    programs.longshore(&["start"]);
    let second = programs.vm.host_pid().expect("a service");
    assert_ne!(second, first, "the old service serves");
    assert!(!Path::new(&format!("/proc/{first}")).exists());
    let memory = programs.vm.docker(&["info", "-f", "{{.MemTotal}}"]);
    assert!(memory.parse::<u64>().expect("bytes") <= 1 << 30, "{memory}");

    // Docker's clients have connections through it while the engine runs.
    programs.install("longshore-host");
    let said = programs.longshore(&["start"]);
    assert!(said.contains("already running"), "{said}");
    assert_eq!(programs.vm.host_pid(), Some(second));
}

#[test]
fn an_update_that_does_not_boot_is_taken_back() {
    let installation = Installation::new();
    let zeros = vec![0; 8 << 20];
    let words = "the installed guest image does not start";
    installation.update("kernel", &zeros);
    let told = installation.start(&[]);
    assert!(told.to_lowercase().contains(words), "{told}");
    let warning = installation.warning().expect("a warning");
    assert!(
        warning.contains("longshore start --retry-image"),
        "{warning}"
    );
    // Told by the next host service, too.
    let service = installation.vm.host_pid().expect("a host service");
    // SAFETY: plain kill(2) on the process that the status names.
    unsafe { libc::kill(service, libc::SIGKILL) };
    eventually("reconnected", || {
        installation.vm.status()["state"] == "running"
    });
    assert_eq!(installation.warning(), Some(warning));
    // The broken one is not booted again.
    installation.stop();
    let told = installation.start(&[]);
    assert!(!told.contains("The one before is tried"), "{told}");
    // Unless it is asked for.
    installation.stop();
    let told = installation.start(&["--retry-image"]);
    assert!(told.contains("The one before is tried"), "{told}");
    // The next update is.
    installation.stop();
    installation.install();
    let told = installation.start(&[]);
    assert!(!told.contains("Warning"), "{told}");
    assert_eq!(installation.warning(), None);
    assert_eq!(installation.copies(), 1);
}

#[test]
#[ignore = "minutes"]
fn images_that_break_off_anywhere_are_taken_back() {
    let installation = Installation::new();
    let whole = |file: &str| std::fs::read(built(file)).expect("a file");
    let mut cut_root = whole("root.erofs");
    cut_root.truncate(cut_root.len() / 2);
    let garbage: Vec<u8> = (0..8u32 << 20)
        .map(|i| (i.wrapping_mul(7919) >> 5) as u8)
        .collect();
    // A kernel that panics, as its first program is none.
    for (what, file, content) in [
        ("a root of garbage", "root.erofs", garbage.clone()),
        ("half a root", "root.erofs", cut_root),
        ("an initramfs of garbage", "initramfs", garbage.clone()),
        ("an empty initramfs", "initramfs", Vec::new()),
        ("a kernel of garbage", "kernel", garbage),
    ] {
        println!("{what}");
        installation.update(file, &content);
        let told = installation.start(&[]);
        println!(
            "  {}",
            told.lines()
                .find(|line| line.contains("does not start"))
                .unwrap_or(&told)
        );
        assert!(installation.warning().is_some(), "{what}");
        installation.stop();
    }
    println!("files that are not those of the manifest");
    installation.install();
    std::fs::write(installation.image.path().join("kernel"), "half").expect("write");
    let told = installation.start(&[]);
    assert!(told.contains("damaged"), "{told}");
    assert!(installation.warning().is_some());
    installation.stop();
    println!("no manifest");
    std::fs::remove_file(installation.image.path().join("manifest.json")).expect("remove");
    installation.start(&[]);
    assert!(installation.vm.status()["warning"].is_string());
    installation.stop();
    println!("the whole image");
    installation.install();
    installation.start(&[]);
    assert_eq!(installation.warning(), None);
}

/// What of an update and of the settings does not work is taken back, and the other is kept.
#[test]
#[ignore = "minutes"]
fn settings_that_change_with_the_image_are_judged_apart() {
    let installation = Installation::new();
    let vm = &installation.vm;
    let set = |assignment: &str| {
        expect_success(&vm.longshore(&["settings", "set", assignment]), assignment);
    };
    let setting = |key: &str| text(&vm.longshore(&["settings", "get", key]).stdout);
    // hvf is macOS's.
    let taken_back = |flags: &[&str]| {
        set("accelerator=hvf");
        let refused = installation.try_to_start(flags);
        let told = said(&refused);
        assert_eq!(refused.status.code(), Some(8), "{told}");
        for words in [
            "does not start with the new accelerator: ",
            "the settings before are back, and the engine runs with them",
        ] {
            assert!(told.contains(words), "{words:?} in {told}");
        }
        assert_eq!(setting("accelerator"), "auto\n");
        assert_eq!(vm.status()["state"], "running");
        assert_eq!(vm.docker(&["volume", "ls", "-q"]), "kept");
    };

    println!("the image does not work, the settings do");
    installation.update("kernel", &vec![0; 8 << 20]);
    let memory = || -> u64 {
        let total = vm.docker(&["info", "--format", "{{.MemTotal}}"]);
        total.parse().expect("bytes")
    };
    set("memory=1300m");
    let told = installation.start(&[]);
    assert!(!told.contains("settings before"), "{told}");
    assert!(installation.warning().is_some());
    assert_eq!(setting("memory"), "1300m\n");
    let guest = memory();
    assert!((1 << 30..1300 << 20).contains(&guest), "{guest} bytes");
    installation.stop();

    println!("neither works");
    taken_back(&["--retry-image"]);
    assert!(installation.warning().is_some());
    assert_eq!(memory(), guest);
    installation.stop();

    println!("the image works, the settings do not");
    installation.install();
    taken_back(&[]);
    assert_eq!(installation.warning(), None);
    assert_eq!(memory(), guest);
}

#[test]
#[ignore = "minutes"]
fn a_data_disk_that_the_image_before_refuses_is_an_honest_error() {
    let installation = Installation::new();
    let disk = installation.vm.home.path().join("data.img");
    label(&disk, "longshore-data.2");
    installation.update("kernel", &vec![0; 8 << 20]);
    for _ in 0..2 {
        let refused = installation.vm.longshore(&["start"]);
        assert!(!refused.status.success());
        let told = said(&refused);
        println!("{told}");
        for words in [
            "the guest image before does not start either",
            "is a data disk of layout 2, made by a newer Longshore",
        ] {
            assert!(told.contains(words), "{told}");
        }
        assert_eq!(installation.vm.status()["state"], "failed");
        installation.stop();
    }
    label(&disk, "longshore-data");
    installation.start(&[]);
}
