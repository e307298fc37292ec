//! Names that the guest does not see: the user's keys and Longshore's own folder, in a share of the folders above them.
//!
//! A request names a file by the inode of its folder and one name in it. So a tree of the masked paths is walked as the guest walks
//! the share: whoever looks up `.config` in the root is at that node of the tree, by whatever way it came to the root. The folders on
//! the way cannot be renamed by the guest, as what lies in them would be masked no more; nothing masked can be made, replaced
//! or linked to. What the host's user renames, or links to from elsewhere in the share, is seen there.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use virtiofsd::filesystem::ROOT_ID;

/// The tree's node for the shared folder itself.
const ROOT: usize = 0;

#[derive(Default)]
pub struct Masks {
    nodes: Vec<Node>,
    /// Inodes of folders on the way, each with its node and how often the guest has been given it.
    known: Mutex<HashMap<u64, (usize, u64)>>,
}

/// The masked names in a folder, and those of folders that lead to more (with their node).
#[derive(Default)]
struct Node(HashMap<Vec<u8>, Option<usize>>);

/// What a name in a folder is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Masked,
    OnTheWay(usize),
    Other,
}

impl Masks {
    /// `masked` are absolute paths, there or not; `shared` is the shared folder as it was named.
    pub fn new(masked: &[PathBuf], shared: &Path) -> Self {
        let mut masks = Self {
            nodes: vec![Node::default()],
            ..Self::default()
        };
        let real = std::fs::canonicalize(shared).unwrap_or_else(|_| shared.into());
        for path in masked {
            // By its own name, and where a link leads.
            for inside in [
                path.strip_prefix(shared).ok(),
                resolved(path).strip_prefix(&real).ok(),
            ] {
                inside.into_iter().for_each(|inside| masks.add(inside));
            }
        }
        masks
    }

    /// A path below the shared folder. The folder itself is not masked: it is shared.
    fn add(&mut self, inside: &Path) {
        let names: Vec<&[u8]> = inside
            .components()
            .filter_map(|part| match part {
                Component::Normal(name) => Some(name.as_bytes()),
                _ => None,
            })
            .collect();
        let Some((last, way)) = names.split_last() else {
            return;
        };
        let mut at = ROOT;
        for name in way {
            let fresh = self.nodes.len();
            match self.nodes[at].0.entry(name.to_vec()).or_insert(Some(fresh)) {
                // All below it is masked already.
                None => return,
                Some(next) => at = *next,
            }
            if at == fresh {
                self.nodes.push(Node::default());
            }
        }
        self.nodes[at].0.insert(last.to_vec(), None);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u64, (usize, u64)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, parent: u64, name: &CStr) -> Found {
        let node = match parent {
            ROOT_ID => Some(ROOT),
            _ => self.known().get(&parent).map(|(node, _)| *node),
        };
        match node.and_then(|node| self.nodes.get(node)?.0.get(name.to_bytes())) {
            None => Found::Other,
            Some(None) => Found::Masked,
            Some(Some(next)) => Found::OnTheWay(*next),
        }
    }

    /// Whether a folder's listing has the name.
    pub fn hides(&self, parent: u64, name: &CStr) -> bool {
        self.find(parent, name) == Found::Masked
    }

    /// Whether the guest may look for the name. virtiofsd hands names to the kernel as they come, so that a name with a slash
    /// in it would be a path.
    pub fn may_see(&self, parent: u64, name: &CStr) -> io::Result<()> {
        let bytes = name.to_bytes();
        if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        match self.hides(parent, name) {
            true => Err(io::Error::from_raw_os_error(libc::ENOENT)),
            false => Ok(()),
        }
    }

    /// Whether the guest may make or remove the name.
    pub fn may_change(&self, parent: u64, name: &CStr) -> io::Result<()> {
        match self.may_see(parent, name) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                Err(io::Error::from_raw_os_error(libc::EACCES))
            }
            other => other,
        }
    }

    /// Whether the guest may rename it, or rename something to it.
    pub fn may_move(&self, parent: u64, name: &CStr) -> io::Result<()> {
        self.may_change(parent, name)?;
        match self.find(parent, name) {
            Found::OnTheWay(_) => Err(io::Error::from_raw_os_error(libc::EACCES)),
            _ => Ok(()),
        }
    }

    /// The guest has been given this inode for the name.
    pub fn entered(&self, parent: u64, name: &CStr, inode: u64) {
        if let Found::OnTheWay(node) = self.find(parent, name) {
            self.known().entry(inode).or_insert((node, 0)).1 += 1;
        }
    }

    /// The guest gives an inode back, so many times.
    pub fn forgotten(&self, inode: u64, count: u64) {
        let mut known = self.known();
        if let Some((_, held)) = known.get_mut(&inode) {
            *held = held.saturating_sub(count);
            if *held == 0 {
                known.remove(&inode);
            }
        }
    }

    /// Another guest comes.
    pub fn forget_all(&self) {
        self.known().clear();
    }
}

/// Where a path leads whose end may not be there.
fn resolved(path: &Path) -> PathBuf {
    if let Ok(real) = std::fs::canonicalize(path) {
        return real;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => resolved(parent).join(name),
        _ => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masks(paths: &[&str]) -> Masks {
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        Masks::new(&paths, Path::new("/nonexistent/home"))
    }

    fn code(result: io::Result<()>) -> i32 {
        result.map_or_else(|error| error.raw_os_error().unwrap(), |()| 0)
    }

    #[test]
    fn masked_names_are_found_on_the_way_that_the_guest_takes() {
        let masks = masks(&[
            "/nonexistent/home/.ssh",
            "/nonexistent/home/.config/gcloud",
            "/nonexistent/other/.ssh",
            "/nonexistent/home",
        ]);
        assert_eq!(code(masks.may_see(ROOT_ID, c".ssh")), libc::ENOENT);
        assert_eq!(code(masks.may_change(ROOT_ID, c".ssh")), libc::EACCES);
        assert_eq!(code(masks.may_see(ROOT_ID, c".config")), 0);
        assert_eq!(code(masks.may_change(ROOT_ID, c".config")), 0);
        assert_eq!(code(masks.may_move(ROOT_ID, c".config")), libc::EACCES);
        // Before the guest knows the folder it cannot ask for what is in it.
        masks.entered(ROOT_ID, c".config", 7);
        masks.entered(ROOT_ID, c".config", 7);
        assert_eq!(code(masks.may_see(7, c"gcloud")), libc::ENOENT);
        assert_eq!(code(masks.may_see(7, c"git")), 0);
        assert_eq!(code(masks.may_see(8, c"gcloud")), 0);
        masks.forgotten(7, 1);
        assert!(masks.hides(7, c"gcloud"));
        masks.forgotten(7, 9);
        assert!(masks.known().is_empty());
    }

    #[test]
    fn a_name_is_no_path() {
        let masks = masks(&["/nonexistent/home/.ssh"]);
        for name in [c"", c".", c"..", c"a/../.ssh", c"/etc/passwd", c".ssh/"] {
            assert_eq!(code(masks.may_see(ROOT_ID, name)), libc::EINVAL, "{name:?}");
        }
    }

    #[test]
    fn where_a_link_leads_is_masked_too() {
        let home = std::env::temp_dir().join(format!("masks-{}", std::process::id()));
        std::fs::create_dir_all(home.join("dotfiles/ssh")).unwrap();
        std::os::unix::fs::symlink("dotfiles/ssh", home.join(".ssh")).unwrap();
        let masks = Masks::new(&[home.join(".ssh")], &home);
        assert!(masks.hides(ROOT_ID, c".ssh"));
        masks.entered(ROOT_ID, c"dotfiles", 5);
        assert!(masks.hides(5, c"ssh"));
        std::fs::remove_dir_all(home).unwrap();
    }
}
