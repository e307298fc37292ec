//! Which host folders the guest gets, under which tags.

use std::path::{Path, PathBuf};

use longshore_host_api::Settings;
use longshore_vm::control::ShareConfig;
use sha2::{Digest, Sha256};

/// Folders that are the guest's own: a share there would pull the ground from under it.
const GUEST_FOLDERS: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/sbin",
    "/var",
    "/var/lib",
    "/var/run",
    "/var/lib/longshore",
    "/var/lib/docker",
    "/var/lib/containerd",
];

/// Below these everything belongs to the guest's kernel or processes.
const GUEST_TREES: &[&str] = &["/dev", "/proc", "/sys", "/run"];

/// What a container has no business with, in the user's home: keys, and what opens other people's machines to this user.
const SECRETS: &[&str] = &[
    ".ssh",
    ".gnupg",
    ".docker",
    ".aws",
    ".azure",
    ".oci",
    ".config/gcloud",
    ".config/gh",
    ".config/git/credentials",
    ".git-credentials",
    ".kube",
    ".local/share/keyrings",
    ".netrc",
    ".password-store",
];

/// Paths that no share shows: Longshore's own folder, and the user's [`secrets`].
pub fn masks(settings: &Settings, home: Option<&Path>, own: &Path) -> Vec<PathBuf> {
    let mut masks = secrets(settings, home);
    masks.push(own.to_owned());
    masks
}

/// Where the user keeps keys, but for what the user has shared by name.
pub fn secrets(settings: &Settings, home: Option<&Path>) -> Vec<PathBuf> {
    let shared = settings.share_list();
    let by_name = |path: &PathBuf| shared.iter().any(|(share, _)| share.starts_with(path));
    let paths = home
        .into_iter()
        .flat_map(|home| SECRETS.iter().map(|secret| home.join(secret)));
    paths.filter(|path| !by_name(path)).collect()
}

/// The command that shares a folder, as the daemon in the guest quotes it; `PATH` is replaced there.
pub const SHARE_COMMAND: &str = "longshore settings set shares+=PATH";

/// The shares to boot with, and a line for each that cannot be.
pub fn plan(settings: &Settings, home: Option<&Path>) -> (Vec<ShareConfig>, Vec<String>) {
    if !cfg!(target_os = "linux") && (settings.share_home || !settings.share_list().is_empty()) {
        // A VM without folders is worth more than none.
        let notice = "no folder is shared with the VM: that works on Linux only so far";
        return (Vec::new(), vec![notice.to_owned()]);
    }
    let mut shares: Vec<ShareConfig> = Vec::new();
    let mut notices = Vec::new();
    let home = home
        .filter(|_| settings.share_home)
        .map(|p| (p.to_owned(), false));
    let wanted = home.into_iter().map(|w| (w, "home".to_owned()));
    let more = settings.share_list().into_iter().map(|w| {
        let tag = tag(&w.0);
        (w, tag)
    });
    for ((path, read_only), tag) in wanted.chain(more) {
        if let Err(why) = check(&path) {
            notices.push(format!("{} is not shared: {why}", path.display()));
            continue;
        }
        let covered = shares
            .iter()
            .any(|s| path.starts_with(&s.path) && s.read_only == read_only);
        if !covered {
            shares.push(ShareConfig {
                tag,
                path,
                read_only,
                masks: Vec::new(),
                socket: None,
            });
        }
    }
    // An outer folder must be mounted before what lies in it.
    shares.sort_by_key(|s| s.path.components().count());
    (shares, notices)
}

/// Why a folder cannot be shared.
pub fn check(path: &Path) -> Result<(), String> {
    if path.parent().is_none() {
        return Err("it is the whole file system".to_owned());
    }
    let own = GUEST_FOLDERS.iter().any(|f| path == Path::new(f))
        || GUEST_TREES.iter().any(|f| path.starts_with(f));
    if own {
        return Err("the VM has a folder of its own there".to_owned());
    }
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err("it is not a folder".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

/// A virtiofs tag has at most 36 bytes, a path does not.
pub fn tag(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let name: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
    format!("share-{name}")
}

/// The user's home folder.
pub fn user_home() -> Option<PathBuf> {
    let name = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
    std::env::var_os(name)
        .map(PathBuf::from)
        .filter(|p| p.is_absolute())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use longshore_host_api::settings::{Machine, Stored};

    use super::*;

    #[test]
    fn the_home_comes_first_and_what_it_covers_is_not_shared_again() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        let (inside, beside) = (home.join("in"), dir.path().join("beside"));
        for path in [&inside, &beside] {
            std::fs::create_dir_all(path).unwrap();
        }
        let mut stored = Stored::default();
        let missing = dir.path().join("missing");
        for path in [&inside, &beside, &missing] {
            stored
                .assign(&format!("shares+={}", path.display()))
                .unwrap();
        }
        let settings = stored.resolve(Machine {
            cpus: 1,
            memory: longshore_host_api::Size::gib(1),
        });
        let (shares, notices) = plan(&settings, Some(&home));
        let paths: Vec<_> = shares.iter().map(|s| s.path.clone()).collect();
        assert_eq!(paths, [home.clone(), beside.clone()]);
        assert_eq!(shares[0].tag, "home");
        assert!(shares[1].tag.len() <= 36);
        assert_eq!(notices.len(), 1);
        assert!(
            notices[0].contains("missing is not shared: No such file"),
            "{notices:?}"
        );
    }

    #[test]
    fn secrets_are_masked_unless_the_user_shares_one_by_name() {
        let mut stored = Stored::default();
        for share in ["/u/.aws", "/u/.kube/config.d", "/u"] {
            stored.assign(&format!("shares+={share}")).unwrap();
        }
        let settings = stored.resolve(Machine {
            cpus: 1,
            memory: longshore_host_api::Size::gib(1),
        });
        let own = Path::new("/u/.local/share/longshore");
        let masks = masks(&settings, Some(Path::new("/u")), own);
        for (path, masked) in [
            ("/u/.ssh", true),
            ("/u/.aws", false),
            ("/u/.kube", false),
            ("/u/.local/share/longshore", true),
        ] {
            assert_eq!(masks.contains(&PathBuf::from(path)), masked, "{path}");
        }
    }

    #[test]
    fn the_guests_own_folders_are_refused() {
        for path in ["/", "/etc", "/usr", "/proc/self", "/dev/shm", "/run"] {
            assert!(check(Path::new(path)).is_err(), "{path}");
        }
    }
}
