//! `mounts` of the configuration, each onto a target opened inside the root file system.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::options::{self, Options};
use super::target::{self, Kind};
use super::{copyup, idmap};
use crate::cgroup;
use crate::error::{Context, Errno, Error, Result};
use crate::spec::Mount;
use crate::sys::{self, MountAttr, SysResult};

pub struct Mounter<'a> {
    pub root: BorrowedFd<'a>,
    pub bundle: &'a Path,
    /// Below the cgroup mount: what a container without a cgroup namespace sees as its own.
    pub cgroup: &'a str,
    pub cgroup_namespace: bool,
    /// Mounts that become read-only when everything in them has been made.
    pub late_readonly: Vec<OwnedFd>,
}

const ATTR_RDONLY: u64 = 1;
const ATTR_ATIME: u64 = 0x70;

impl Mounter<'_> {
    pub fn mount(&mut self, mount: &Mount) -> Result<()> {
        let options = options::parse(&mount.options);
        let result = if options.bind || mount.kind == "bind" {
            let source = self.bundle.join(&mount.source);
            let tree = clone_tree(&source, &options)
                .step(|| format!("failed to fulfil mount request: open {}", source.display()))?;
            self.attach(&tree, &mount.destination, &options, mount)
        } else if mount.kind == "cgroup" || mount.kind == "cgroup2" {
            self.cgroup(&mount.destination, &options)
        } else {
            self.file_system(mount, &options)
        };
        result.map_err(|(step, errno)| Error::Mount {
            source_name: mount.source.clone(),
            destination: mount.destination.clone(),
            reason: format!("{step}: {errno}"),
        })
    }

    fn attach(
        &self,
        tree: &OwnedFd,
        destination: &str,
        options: &Options,
        mount: &Mount,
    ) -> Steps<()> {
        let stat = sys::fstat(tree.as_raw_fd()).at("stat source")?;
        let is_directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let kind = if is_directory {
            Kind::Directory
        } else {
            Kind::File
        };
        let target = self.target(destination, kind)?;
        if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
            idmap::apply(
                tree,
                options.bind_recursive,
                &mount.uid_mappings,
                &mount.gid_mappings,
            )
            .at("map owners")?;
        }
        set_attributes(tree, options, true).at("set mount attributes")?;
        set_propagation(tree, options).at("set propagation")?;
        sys::move_mount(tree.as_raw_fd(), target.as_raw_fd()).at("move_mount")
    }

    fn target(&self, destination: &str, kind: Kind) -> Steps<OwnedFd> {
        target::open_or_create(self.root, Path::new(destination), kind)
            .at(&format!("create mount point {destination}"))
    }

    fn file_system(&mut self, mount: &Mount, options: &Options) -> Steps<()> {
        let target = self.target(&mount.destination, Kind::Directory)?;
        let is_tmpfs = mount.kind == "tmpfs";
        let mut flags = options.flags;
        // Device nodes and mount points still have to be made in it.
        let late = is_tmpfs && flags & libc::MS_RDONLY != 0;
        if late {
            flags &= !libc::MS_RDONLY;
        }
        let mut data = options.data.join(",");
        if is_tmpfs && !options.data.iter().any(|word| word.starts_with("mode=")) {
            // Without a mode of its own a tmpfs takes that of the directory it covers.
            let stat = sys::fstat(target.as_raw_fd()).at("stat target")?;
            let separator = if data.is_empty() { "" } else { "," };
            data = format!("{data}{separator}mode={:o}", stat.st_mode & 0o7777);
        }
        mount_on(&target, &mount.kind, &mount.source, flags, &data)?;
        let needs_new_top =
            late || options.copy_up || !options.propagation.is_empty() || has_recursive(options);
        if !needs_new_top {
            return Ok(());
        }
        let top = target::open(self.root, Path::new(&mount.destination), libc::O_PATH)
            .at("open new mount")?;
        if options.copy_up && is_tmpfs {
            copyup::copy(target.as_fd(), top.as_fd()).at("copy up")?;
        }
        set_propagation(&top, options).at("set propagation")?;
        set_attributes(&top, options, false).at("set mount attributes")?;
        if late {
            self.late_readonly.push(top);
        }
        Ok(())
    }

    /// cgroup v2. In a cgroup namespace a new mount shows the container's own cgroup as its root;
    /// without one the host's mount is bound, because mounting anew would change the options of
    /// the host's (they belong to the superblock).
    fn cgroup(&mut self, destination: &str, options: &Options) -> Steps<()> {
        if self.cgroup_namespace {
            let target = self.target(destination, Kind::Directory)?;
            match mount_on(&target, "cgroup2", "cgroup", options.flags, "") {
                Err((_, Errno(libc::EPERM | libc::EBUSY))) => {}
                result => return result,
            }
        }
        let source = if self.cgroup_namespace {
            cgroup::directory(self.cgroup)
        } else {
            Path::new(cgroup::MOUNT).to_path_buf()
        };
        let mut bound = options::parse(&[]);
        bound.bind_recursive = true;
        bound.attr = options.attr;
        let tree = clone_tree(&source, &bound).at(&format!("mount {}", source.display()))?;
        self.attach(&tree, destination, &bound, &Mount::default())
    }

    /// Makes read-only what had to stay writable while the root was put together.
    pub fn finish(&mut self) -> SysResult<()> {
        for mount in self.late_readonly.drain(..) {
            let attr = MountAttr {
                set: ATTR_RDONLY,
                ..MountAttr::default()
            };
            sys::mount_setattr(mount.as_raw_fd(), false, &attr)?;
        }
        Ok(())
    }
}

/// The outcome of a mount's steps; the failed one is named.
type Steps<T> = std::result::Result<T, (String, Errno)>;

trait At<T> {
    fn at(self, step: &str) -> Steps<T>;
}

impl<T> At<T> for SysResult<T> {
    fn at(self, step: &str) -> Steps<T> {
        self.map_err(|errno| (step.to_owned(), errno))
    }
}

/// A detached copy of what is mounted at the source, to be attached somewhere in the root.
fn clone_tree(source: &Path, options: &Options) -> SysResult<OwnedFd> {
    let recursive = if options.bind_recursive {
        sys::AT_RECURSIVE
    } else {
        0
    };
    let path = sys::cstring(source.as_os_str().as_encoded_bytes())?;
    sys::open_tree(libc::AT_FDCWD, &path, sys::OPEN_TREE_CLONE | recursive)
}

fn mount_on(target: &OwnedFd, kind: &str, source: &str, flags: u64, data: &str) -> Steps<()> {
    let text = |text: &str| sys::cstring(text).at("mount option");
    let source = text(if source.is_empty() { kind } else { source })?;
    let (kind, data): (CString, CString) = (text(kind)?, text(data)?);
    let data = Some(data.as_c_str()).filter(|data| !data.is_empty());
    sys::mount(
        Some(&source),
        &target::proc_path(target.as_fd()),
        Some(&kind),
        flags,
        data,
    )
    .at(&format!("mount {}", kind.to_string_lossy()))
}

fn has_recursive(options: &Options) -> bool {
    options.recursive != MountAttr::default()
}

/// A bind mount keeps its source's attributes and gets the named ones in addition: "rw" does not
/// lift a read-only source's protection.
fn set_attributes(mount: &OwnedFd, options: &Options, bind: bool) -> SysResult<()> {
    if bind && options.attr.set != 0 {
        let clear = if options.attr.set & ATTR_ATIME != 0 {
            ATTR_ATIME
        } else {
            0
        };
        let attr = MountAttr {
            set: options.attr.set,
            clear,
            ..MountAttr::default()
        };
        sys::mount_setattr(mount.as_raw_fd(), false, &attr)?;
    }
    if has_recursive(options) {
        sys::mount_setattr(mount.as_raw_fd(), true, &options.recursive)?;
    }
    Ok(())
}

fn set_propagation(mount: &OwnedFd, options: &Options) -> SysResult<()> {
    for flags in &options.propagation {
        let propagation = flags & !libc::MS_REC;
        let attr = MountAttr {
            propagation,
            ..MountAttr::default()
        };
        sys::mount_setattr(mount.as_raw_fd(), flags & libc::MS_REC != 0, &attr)?;
    }
    Ok(())
}
