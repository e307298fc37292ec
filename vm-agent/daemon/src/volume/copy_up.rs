//! A new volume starts with what the image has at its mount point, ownership and all.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;

/// Fills the empty folder `target` from `source` inside `rootfs`, wherever links in the image lead, but never out of it.
pub fn fill(rootfs: &Path, source: &str, target: &Path) -> io::Result<()> {
    if fs::read_dir(target)?.next().is_some() {
        return Ok(());
    }
    let Some(folder) = open_inside(rootfs, source)? else {
        return Ok(());
    };
    let from = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    copy_children(&from, target)?;
    copy_attributes(&fs::metadata(&from)?, &from, target)
}

/// The folder at `source`; `None` when the image has none there.
fn open_inside(rootfs: &Path, source: &str) -> io::Result<Option<OwnedFd>> {
    let root = File::open(rootfs)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(&root, source.trim_start_matches('/'), how) {
        Ok(folder) => Ok(Some(folder)),
        Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn copy_children(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    let kind = meta.file_type();
    if kind.is_dir() {
        fs::create_dir(to)?;
        copy_children(from, to)?;
    } else if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else if kind.is_file() {
        // Copies inside the kernel where it can, and keeps the mode.
        fs::copy(from, to)?;
    } else if !kind.is_socket() {
        let node = SFlag::from_bits_truncate(meta.mode() & libc::S_IFMT);
        mknod(to, node, Mode::from_bits_truncate(meta.mode()), meta.rdev())?;
    } else {
        return Ok(());
    }
    copy_attributes(&meta, from, to)
}

/// Owner first: changing it clears set-user-id bits, which the mode then sets again. Times last.
pub(super) fn copy_attributes(meta: &fs::Metadata, from: &Path, to: &Path) -> io::Result<()> {
    lchown(to, Some(meta.uid()), Some(meta.gid()))?;
    if !meta.file_type().is_symlink() {
        fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
        copy_capabilities(from, to);
    }
    let (accessed, modified) = (
        TimeSpec::new(meta.atime(), meta.atime_nsec()),
        TimeSpec::new(meta.mtime(), meta.mtime_nsec()),
    );
    utimensat(
        AT_FDCWD,
        to,
        &accessed,
        &modified,
        UtimensatFlags::NoFollowSymlink,
    )?;
    Ok(())
}

/// File capabilities (`ping`'s, say) are the extended attribute that images use.
fn copy_capabilities(from: &Path, to: &Path) {
    let name = c"security.capability";
    let (Ok(from), Ok(to)) = (
        CString::new(from.as_os_str().as_bytes()),
        CString::new(to.as_os_str().as_bytes()),
    ) else {
        return;
    };
    let mut value = [0u8; 64];
    // SAFETY: both strings end with NUL, and the length given is the buffer's.
    let len = unsafe {
        libc::getxattr(
            from.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    if len > 0 {
        // SAFETY: as above; `len` bytes were just written to the buffer.
        unsafe {
            libc::lsetxattr(
                to.as_ptr(),
                name.as_ptr(),
                value.as_ptr().cast(),
                len as usize,
                0,
            )
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_volumes_are_filled_and_others_left_alone() {
        let base = std::env::temp_dir().join(format!("copyup-{}", crate::identity::new_id()));
        let (rootfs, volume) = (base.join("root"), base.join("volume"));
        fs::create_dir_all(rootfs.join("srv/data/sub")).unwrap();
        fs::create_dir_all(&volume).unwrap();
        fs::write(rootfs.join("srv/data/file"), "x").unwrap();
        fs::set_permissions(
            rootfs.join("srv/data/sub"),
            fs::Permissions::from_mode(0o750),
        )
        .unwrap();
        symlink("file", rootfs.join("srv/data/link")).unwrap();
        // Absolute links of the image lead inside the image.
        symlink("/srv", rootfs.join("alias")).unwrap();

        fill(&rootfs, "/alias/data", &volume).unwrap();
        assert_eq!(fs::read_to_string(volume.join("link")).unwrap(), "x");
        assert_eq!(
            fs::metadata(volume.join("sub")).unwrap().mode() & 0o777,
            0o750
        );

        fs::write(rootfs.join("srv/data/later"), "y").unwrap();
        fill(&rootfs, "/srv/data", &volume).unwrap();
        assert!(!volume.join("later").exists());
        fill(&rootfs, "/missing", &base.join("volume")).unwrap();
        fs::remove_dir_all(base).unwrap();
    }
}
