//! `maskedPaths` and `readonlyPaths`, applied on descriptors just before pivot_root (while the
//! host's /dev/null can still be copied).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::target;
use crate::error::{Context, Errno, Error, Result};
use crate::sys::{self, MountAttr, SysResult};

const ATTR_RDONLY: u64 = 1;

/// The host's /dev/null, checked to be the real device: a container's own /dev/null could be replaced by a link while a sibling starts, and
/// the mask would open the very path it should hide (CVE-2025-31133).
pub struct Null(OwnedFd);

impl Null {
    fn open() -> Result<Self> {
        let tree = sys::open(Path::new("/dev/null"), libc::O_PATH | libc::O_NOFOLLOW)
            .step(|| "open /dev/null".to_owned())?;
        let stat = sys::fstat(tree.as_raw_fd()).step(|| "stat /dev/null".to_owned())?;
        let is_device = stat.st_mode & libc::S_IFMT == libc::S_IFCHR;
        if !is_device || stat.st_rdev != libc::makedev(1, 3) {
            return Err(Error::Config(
                "the host's /dev/null is not the null device".to_owned(),
            ));
        }
        Ok(Null(tree))
    }

    fn copy(&self) -> SysResult<OwnedFd> {
        sys::open_tree(self.0.as_raw_fd(), c"", sys::OPEN_TREE_CLONE)
    }
}

/// Opens a path of the container's; None when there is nothing to hide.
fn open(root: BorrowedFd<'_>, path: &str) -> SysResult<Option<OwnedFd>> {
    match target::open(root, Path::new(path), libc::O_PATH) {
        Err(Errno(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        result => result.map(Some),
    }
}

pub fn mask(root: BorrowedFd<'_>, paths: &[String]) -> Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let null = Null::open()?;
    let mut empty = None;
    for path in paths {
        mask_one(root, path, &null, &mut empty).step(|| format!("can't mask path {path:?}"))?;
    }
    Ok(())
}

fn mask_one(
    root: BorrowedFd<'_>,
    path: &str,
    null: &Null,
    empty: &mut Option<OwnedFd>,
) -> SysResult<()> {
    let Some(target) = open(root, path)? else {
        return Ok(());
    };
    let is_directory = sys::fstat(target.as_raw_fd())?.st_mode & libc::S_IFMT == libc::S_IFDIR;
    let cover = if is_directory {
        empty_directory(empty)?
    } else {
        null.copy()?
    };
    sys::move_mount(cover.as_raw_fd(), target.as_raw_fd())
}

/// A read-only tmpfs that can hold nothing. The first is mounted itself, later masks share it.
fn empty_directory(first: &mut Option<OwnedFd>) -> SysResult<OwnedFd> {
    if let Some(first) = first {
        return sys::open_tree(first.as_raw_fd(), c"", sys::OPEN_TREE_CLONE);
    }
    let options = [
        (c"source", c"tmpfs"),
        (c"nr_blocks", c"1"),
        (c"nr_inodes", c"1"),
    ];
    let mount = sys::new_mount(c"tmpfs", &options, ATTR_RDONLY)?;
    *first = Some(sys::dup_at_least(mount.as_raw_fd(), 3)?);
    Ok(mount)
}

pub fn make_readonly(root: BorrowedFd<'_>, paths: &[String]) -> Result<()> {
    for path in paths {
        readonly_one(root, path).step(|| format!("can't make {path:?} read-only"))?;
    }
    Ok(())
}

/// A copy of the mounts at the path, read-only, over the path itself.
fn readonly_one(root: BorrowedFd<'_>, path: &str) -> SysResult<()> {
    let Some(target) = open(root, path)? else {
        return Ok(());
    };
    let flags = sys::OPEN_TREE_CLONE | sys::AT_RECURSIVE;
    let tree = sys::open_tree(target.as_raw_fd(), c"", flags)?;
    let attr = MountAttr {
        set: ATTR_RDONLY,
        ..MountAttr::default()
    };
    sys::mount_setattr(tree.as_raw_fd(), true, &attr)?;
    sys::move_mount(tree.as_raw_fd(), target.as_raw_fd())
}
