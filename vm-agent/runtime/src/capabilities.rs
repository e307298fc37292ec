//! Capability names and sets (capabilities(7)).

use crate::error::{Context, Errno, Result};
use crate::spec::Capabilities;
use crate::sys;

/// In the kernel's order: the index is the number.
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The five sets as bit masks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

/// Names that this kernel generation does not know are skipped, as runc does with a warning: an
/// image made for a newer one still starts.
fn mask(names: &[String]) -> u64 {
    names
        .iter()
        .filter_map(|name| {
            NAMES
                .iter()
                .position(|known| known.eq_ignore_ascii_case(name))
        })
        .fold(0, |mask, number| mask | 1 << number)
}

impl From<&Capabilities> for Sets {
    fn from(config: &Capabilities) -> Self {
        Sets {
            bounding: mask(&config.bounding),
            effective: mask(&config.effective),
            inheritable: mask(&config.inheritable),
            permitted: mask(&config.permitted),
            ambient: mask(&config.ambient),
        }
    }
}

impl Sets {
    /// Drops what the bounding set does not name; before the change of user, which may take
    /// CAP_SETPCAP away.
    pub fn drop_bounding(&self) -> Result<()> {
        for number in 0..64 {
            if self.bounding & 1 << number != 0 {
                continue;
            }
            match sys::prctl(libc::PR_CAPBSET_DROP, number) {
                // The first number that the kernel does not have.
                Err(Errno(libc::EINVAL)) => break,
                result => result.step(|| format!("drop capability {number} from bounding set"))?,
            }
        }
        Ok(())
    }

    /// Sets the other four; after the change of user, which clears them.
    pub fn apply(&self) -> Result<()> {
        sys::capset(self.effective, self.permitted, self.inheritable)
            .step(|| "unable to apply caps: capset".to_owned())?;
        for number in (0..64).filter(|number| self.ambient & 1 << number != 0) {
            // One that is not also permitted and inheritable cannot be ambient; runc warns.
            match sys::ambient_capability(libc::PR_CAP_AMBIENT_RAISE, number) {
                Ok(()) | Err(Errno(libc::EPERM)) => {}
                Err(errno) => Err(errno).step(|| format!("raise ambient capability {number}"))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_kernel_numbers() {
        let all = |names: &[&str]| {
            mask(
                &names
                    .iter()
                    .map(|one| (*one).to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(all(&["CAP_CHOWN", "CAP_KILL"]), 1 | 1 << 5);
        assert_eq!(all(&["CAP_SYS_ADMIN"]), 1 << 21);
        assert_eq!(all(&["CAP_CHECKPOINT_RESTORE", "CAP_UNKNOWN"]), 1 << 40);
    }
}
