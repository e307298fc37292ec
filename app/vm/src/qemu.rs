//! Finding QEMU, and what its version means.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

/// The oldest version that the arguments are tested with.
const OLDEST: (u32, u32) = (7, 2);
/// `--version` of a program that is no QEMU may never end.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(target_arch = "x86_64")]
const PROGRAM: &str = "qemu-system-x86_64";
#[cfg(not(target_arch = "x86_64"))]
const PROGRAM: &str = "qemu-system-aarch64";

/// What to type to have QEMU.
#[cfg(target_os = "linux")]
const INSTALL: &str =
    "install it: `apt install qemu-system-x86` (Debian, Ubuntu), `dnf install qemu-kvm` (Fedora)";
#[cfg(target_os = "macos")]
const INSTALL: &str = "install it: `brew install qemu`";
#[cfg(windows)]
const INSTALL: &str = "install it: `winget install SoftwareFreedomConservancy.QEMU`";
#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
const INSTALL: &str = "install QEMU with your system's packages";

/// The first version whose emulated x86 CPUs have an x2APIC.
const X2APIC: (u32, u32) = (9, 0);

/// A QEMU that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    pub program: PathBuf,
    pub version: String,
}

impl Qemu {
    /// Whether an emulated CPU can reach its interrupt controller by its own registers (Intel SDM 3, 12.12).
    pub fn emulates_x2apic(&self) -> bool {
        is_at_least(&self.version, X2APIC)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    #[error("QEMU is missing: {PROGRAM} was found neither on PATH nor in the usual places")]
    Missing,
    #[error("QEMU cannot be started: {program}: {source}", program = program.display())]
    Start {
        program: PathBuf,
        source: std::io::Error,
    },
    #[error("{program} is no QEMU: it says {said:?}", program = program.display())]
    NoVersion { program: PathBuf, said: String },
    #[error(
        "QEMU is too old: {program} is {version}, at least {}.{} is needed",
        OLDEST.0,
        OLDEST.1,
        program = program.display()
    )]
    TooOld { program: PathBuf, version: String },
}

impl QemuError {
    pub fn advice(&self) -> &'static str {
        INSTALL
    }
}

/// Finds QEMU (or takes the one that is asked for) and asks for its version.
pub async fn find(asked: Option<&Path>) -> Result<Qemu, QemuError> {
    let program = match asked {
        Some(program) => program.to_owned(),
        None => search().ok_or(QemuError::Missing)?,
    };
    let start = |source| QemuError::Start {
        program: program.clone(),
        source,
    };
    let run = Command::new(&program)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(VERSION_TIMEOUT, run)
        .await
        .map_err(|_| start(std::io::ErrorKind::TimedOut.into()))?
        .map_err(start)?;
    let said: String = String::from_utf8_lossy(&output.stdout)
        .chars()
        .take(200)
        .collect();
    let Some(version) = parse_version(&said) else {
        return Err(QemuError::NoVersion { program, said });
    };
    if !is_at_least(version, OLDEST) {
        return Err(QemuError::TooOld {
            program,
            version: version.into(),
        });
    }
    let version = version.to_owned();
    Ok(Qemu { program, version })
}

/// `$LONGSHORE_QEMU` alone when it is set; else the first on PATH or in the usual places.
fn search() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os("LONGSHORE_QEMU") {
        return Some(PathBuf::from(program)).filter(|program| program.is_file());
    }
    let name = if cfg!(windows) {
        format!("{PROGRAM}.exe")
    } else {
        PROGRAM.to_owned()
    };
    let usual = if cfg!(windows) {
        vec![PathBuf::from(r"C:\Program Files\qemu")]
    } else {
        ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"]
            .map(PathBuf::from)
            .into()
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(usual)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(&name))
        .find(|program| program.is_file())
}

/// `7.2.22` of `QEMU emulator version 7.2.22 (Debian …)`.
fn parse_version(said: &str) -> Option<&str> {
    let rest = said.split_once("QEMU emulator version ")?.1;
    let version = rest
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .next()?;
    (!version.is_empty()).then_some(version)
}

fn is_at_least(version: &str, wanted: (u32, u32)) -> bool {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let cases = [
            (
                "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)",
                Some(("7.2.22", true)),
            ),
            ("QEMU emulator version 11.0.0", Some(("11.0.0", true))),
            ("QEMU emulator version 10.0.2 (v10)", Some(("10.0.2", true))),
            ("QEMU emulator version 7.1.9", Some(("7.1.9", false))),
            ("busybox", None),
        ];
        for (said, expected) in cases {
            let found = parse_version(said).map(|version| (version, is_at_least(version, OLDEST)));
            assert_eq!(found, expected, "{said}");
        }
    }

    #[test]
    fn which_versions_emulate_an_x2apic() {
        let emulates = |version: &str| {
            let (program, version) = (PathBuf::new(), version.into());
            Qemu { program, version }.emulates_x2apic()
        };
        assert!(["9.0.0", "10.0.2", "11.1.3"].iter().all(|it| emulates(it)));
        assert!(!emulates("8.2.10"));
    }

    #[tokio::test]
    async fn what_is_no_qemu_is_told() {
        let error = find(Some(Path::new("/nonexistent/qemu")))
            .await
            .unwrap_err();
        assert!(matches!(error, QemuError::Start { .. }), "{error}");
        let error = find(Some(Path::new("/bin/true"))).await.unwrap_err();
        assert!(matches!(error, QemuError::NoVersion { .. }), "{error}");
    }
}
