//! Which accelerator: the platform's own if a guest really boots on it, and what that was decided for.
//!
//! A device node that opens proves nothing (`/dev/kvm` may hang or abort under nested virtualisation), so `auto` starts the
//! guest on the platform's accelerator, gives it [`PROBE_LIMIT`] for its first sign of life, and falls back to TCG. The
//! outcome is remembered until QEMU, the kernel or the hardware changes.

use std::{fs, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use crate::config::AcceleratorChoice;
use crate::tsc;

/// How long a guest may take to say its first byte on a real accelerator.
pub const PROBE_LIMIT: Duration = Duration::from_millis(2500);

/// Ticks of the guest's kernel in a second (`CONFIG_HZ` of Debian's), in which its delay loop is counted.
const KERNEL_HERTZ: u64 = 250;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    Kvm,
    Hvf,
    Whpx,
    Tcg,
}

impl Accelerator {
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Hvf => "hvf",
            Self::Whpx => "whpx",
            Self::Tcg => "tcg",
        }
    }

    /// QEMU's `-accel` and `-cpu`.
    pub fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Hvf => ["-accel", "hvf", "-cpu", "host"],
            Self::Whpx => ["-accel", "whpx", "-cpu", "max"],
        }
    }

    /// What the guest's kernel need not find out about its machine, or guard it against.
    pub fn kernel_parameters(self) -> String {
        match self {
            // Attacks on speculation are met, or not, by the host's CPU and QEMU's code; the guest's fences only cost time.
            Self::Tcg => match tsc::kilohertz() {
                Some(rate) => format!(
                    "mitigations=off tsc_early_khz={rate} lpj={}",
                    rate * 1000 / KERNEL_HERTZ
                ),
                None => "mitigations=off".into(),
            },
            Self::Kvm | Self::Hvf | Self::Whpx => String::new(),
        }
    }
}

/// What to try, in order, and what is known already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub candidates: Vec<Accelerator>,
    /// Why the first candidate comes first, for people.
    pub reason: String,
}

/// What the choice depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circumstances {
    pub qemu: String,
    pub kernel: String,
    pub hardware: String,
}

/// `accelerator.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    #[serde(flatten)]
    pub circumstances: Circumstances,
    pub accelerator: Accelerator,
    pub reason: String,
}

impl Circumstances {
    pub fn of_this_machine(qemu_version: &str) -> Self {
        Self {
            qemu: qemu_version.into(),
            kernel: kernel(),
            hardware: hardware(),
        }
    }
}

#[cfg(unix)]
fn kernel() -> String {
    nix::sys::utsname::uname()
        .map(|name| format!("{} {}", name.sysname().display(), name.release().display()))
        .unwrap_or_default()
}

#[cfg(not(unix))]
fn kernel() -> String {
    std::env::consts::OS.into()
}

/// The processor's model and whether it offers virtualisation, where the platform tells.
fn hardware() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let flags = text
        .lines()
        .find(|line| line.starts_with("flags"))
        .unwrap_or_default();
    let virtual_flag = flags
        .split_whitespace()
        .find(|flag| matches!(*flag, "vmx" | "svm"))
        .unwrap_or("none");
    let model = model.map_or(std::env::consts::ARCH, |model| {
        model.trim_matches([' ', '\t', ':'])
    });
    format!(
        "{model}, virtualisation {virtual_flag}, /dev/kvm {}",
        kvm_node()
    )
}

/// Part of the hardware: a user who joins the group `kvm` gets a new try.
fn kvm_node() -> &'static str {
    let opened = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    match opened.map_err(|error| error.kind()) {
        Ok(_) => "opens",
        Err(std::io::ErrorKind::NotFound) => "missing",
        Err(_) => "not allowed",
    }
}

/// The platform's own accelerator, if it may be there at all.
fn native() -> Option<Accelerator> {
    if cfg!(target_os = "macos") {
        Some(Accelerator::Hvf)
    } else if cfg!(windows) {
        Some(Accelerator::Whpx)
    } else {
        (kvm_node() == "opens").then_some(Accelerator::Kvm)
    }
}

/// What to try for a choice.
pub fn plan(choice: AcceleratorChoice, remembered: Option<&Remembered>) -> Plan {
    let one = |accelerator: Accelerator| Plan {
        candidates: vec![accelerator],
        reason: format!("{} was asked for", accelerator.name()),
    };
    match choice {
        AcceleratorChoice::Kvm => one(Accelerator::Kvm),
        AcceleratorChoice::Hvf => one(Accelerator::Hvf),
        AcceleratorChoice::Whpx => one(Accelerator::Whpx),
        AcceleratorChoice::Tcg => one(Accelerator::Tcg),
        AcceleratorChoice::Auto => automatic(native(), remembered),
    }
}

fn automatic(native: Option<Accelerator>, remembered: Option<&Remembered>) -> Plan {
    match (remembered, native) {
        (Some(known), _) if known.accelerator == Accelerator::Tcg => {
            let reason = format!("{} (remembered)", known.reason);
            Plan {
                candidates: vec![Accelerator::Tcg],
                reason,
            }
        }
        (Some(known), _) => {
            let reason = format!("{} (remembered)", known.reason);
            Plan {
                candidates: vec![known.accelerator, Accelerator::Tcg],
                reason,
            }
        }
        (None, Some(native)) => {
            let reason = format!("a guest boots on {}", native.name());
            Plan {
                candidates: vec![native, Accelerator::Tcg],
                reason,
            }
        }
        (None, None) => {
            let reason = format!(
                "no hardware virtualisation can be used (/dev/kvm: {})",
                kvm_node()
            );
            Plan {
                candidates: vec![Accelerator::Tcg],
                reason,
            }
        }
    }
}

/// The remembered choice, if it was made in these circumstances.
pub fn remembered(path: &Path, now: &Circumstances) -> Option<Remembered> {
    let known: Remembered = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (known.circumstances == *now).then_some(known)
}

/// Remembers a choice; written whole, so that a crash leaves the old one.
pub fn remember(path: &Path, choice: &Remembered) -> std::io::Result<()> {
    let partial = path.with_extension("json.new");
    fs::write(&partial, serde_json::to_vec_pretty(choice)?)?;
    fs::rename(partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(accelerator: Accelerator) -> Remembered {
        let circumstances = Circumstances {
            qemu: "7.2".into(),
            kernel: "k".into(),
            hardware: "h".into(),
        };
        Remembered {
            circumstances,
            accelerator,
            reason: "why".into(),
        }
    }

    #[test]
    fn what_is_tried() {
        use Accelerator::{Kvm, Tcg};
        let cases = [
            (Some(Kvm), None, vec![Kvm, Tcg]),
            (None, None, vec![Tcg]),
            (Some(Kvm), Some(known(Tcg)), vec![Tcg]),
            (Some(Kvm), Some(known(Kvm)), vec![Kvm, Tcg]),
            // The node vanished since: the try tells.
            (None, Some(known(Kvm)), vec![Kvm, Tcg]),
        ];
        for (native, remembered, expected) in cases {
            assert_eq!(automatic(native, remembered.as_ref()).candidates, expected);
        }
        assert_eq!(plan(AcceleratorChoice::Kvm, None).candidates, [Kvm]);
    }

    #[test]
    fn a_choice_is_remembered_for_its_circumstances_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accelerator.json");
        let choice = known(Accelerator::Tcg);
        assert_eq!(remembered(&path, &choice.circumstances), None);
        remember(&path, &choice).unwrap();
        assert_eq!(
            remembered(&path, &choice.circumstances),
            Some(choice.clone())
        );
        let newer = Circumstances {
            qemu: "8".into(),
            ..choice.circumstances
        };
        assert_eq!(remembered(&path, &newer), None);
    }
}
