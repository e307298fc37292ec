//! Every file belongs to whoever asks, in the guest; to the user who runs Longshore, on disk.
//!
//! A container of any user can so use a shared folder as the user of the host could, as on Docker's own desktop. The kernel in
//! the guest checks permissions (virtiofs always mounts with `default_permissions`) against what it was told last, and asks again
//! before it refuses (fuse_permission); so a file that another user looked at a moment ago opens too. Ownership that a container
//! sets itself is not kept yet: `chown` is accepted and does nothing. Names are checked on the way, see [`crate::masks`].

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use virtiofsd::filesystem::{
    Context, DirEntry, DirectoryIterator, Entry, Extensions, FileSystem, FsOptions, GetxattrReply,
    ListxattrReply, OpenOptions, SerializableFileSystem, SetattrValid, SetxattrFlags,
    ZeroCopyReader, ZeroCopyWriter,
};
use virtiofsd::fuse;
use virtiofsd::soft_idmap::{GuestGid, GuestUid};

use crate::masks::Masks;

/// A file system in which the caller owns everything that it may see.
pub struct CallerOwns<F> {
    files: F,
    masks: Arc<Masks>,
}

impl<F> CallerOwns<F> {
    pub fn new(files: F, masks: Masks) -> Self {
        Self {
            files,
            masks: Arc::new(masks),
        }
    }
}

/// A folder's entries but for the masked ones.
pub struct Visible<D> {
    entries: D,
    masks: Arc<Masks>,
    folder: u64,
    /// Of the entry that was told last.
    name: CString,
}

impl<D: DirectoryIterator> DirectoryIterator for Visible<D> {
    fn next(&mut self) -> Option<DirEntry<'_>> {
        loop {
            let entry = self.entries.next()?;
            if self.masks.hides(self.folder, entry.name) {
                continue;
            }
            // What is lent out in a loop is lent for all of it (rust-lang/rust#54663): so the name is ours.
            let (ino, offset, type_) = (entry.ino, entry.offset, entry.type_);
            self.name = entry.name.to_owned();
            return Some(DirEntry {
                ino,
                offset,
                type_,
                name: &self.name,
            });
        }
    }
}

/// Inside, all work is done as this process: the sandbox's root is the host's user.
fn as_server(ctx: Context) -> Context {
    Context {
        uid: GuestUid::from(0),
        gid: GuestGid::from(0),
        pid: ctx.pid,
    }
}

fn owned(ctx: &Context, mut attr: fuse::Attr) -> fuse::Attr {
    attr.uid = ctx.uid;
    attr.gid = ctx.gid;
    attr
}

fn owned_entry(ctx: &Context, entry: Entry) -> Entry {
    Entry {
        attr: owned(ctx, entry.attr),
        ..entry
    }
}

/// No file has bytes from 2^63 on: virtiofsd panics when it is asked for them.
fn in_a_file(offset: u64, size: u32) -> io::Result<()> {
    let end = i64::try_from(offset)
        .ok()
        .and_then(|offset| offset.checked_add(i64::from(size)));
    end.map(drop)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Groups of the caller mean nothing on the host.
fn without_groups(extensions: Extensions) -> Extensions {
    Extensions {
        sup_gids: Vec::new(),
        ..extensions
    }
}

/// Passes requests on as the server's own.
macro_rules! pass_on {
    ($(fn $name:ident$(<$generic:ident: $bound:path>)?($($arg:ident: $type:ty),*) $(-> $ret:ty)?;)*) => {
        $(
            #[allow(clippy::too_many_arguments)]
            fn $name$(<$generic: $bound>)?(&self, ctx: Context, $($arg: $type),*) $(-> $ret)? {
                self.files.$name(as_server(ctx), $($arg),*)
            }
        )*
    };
}

impl<F: FileSystem<Inode = u64>> FileSystem for CallerOwns<F> {
    type Inode = u64;
    type Handle = F::Handle;
    type DirIter = Visible<F::DirIter>;

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        // Without this the guest does not send the caller's groups with what it creates.
        self.files.init(capable & !FsOptions::CREATE_SUPP_GROUP)
    }

    fn destroy(&self) {
        self.masks.forget_all();
        self.files.destroy();
    }

    fn forget(&self, ctx: Context, inode: Self::Inode, count: u64) {
        self.masks.forgotten(inode, count);
        self.files.forget(as_server(ctx), inode, count);
    }

    fn batch_forget(&self, ctx: Context, requests: Vec<(Self::Inode, u64)>) {
        for (inode, count) in &requests {
            self.masks.forgotten(*inode, *count);
        }
        self.files.batch_forget(as_server(ctx), requests);
    }

    fn lookup(&self, ctx: Context, parent: Self::Inode, name: &CStr) -> io::Result<Entry> {
        self.masks.may_see(parent, name)?;
        let entry = self.files.lookup(as_server(ctx), parent, name)?;
        self.masks.entered(parent, name, entry.inode);
        Ok(owned_entry(&ctx, entry))
    }

    fn symlink(
        &self,
        ctx: Context,
        linkname: &CStr,
        parent: Self::Inode,
        name: &CStr,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        // A link on the way would lead out of the tree of masks.
        self.masks.may_move(parent, name)?;
        let entry = self
            .files
            .symlink(as_server(ctx), linkname, parent, name, extensions)?;
        Ok(owned_entry(&ctx, entry))
    }

    fn mkdir(
        &self,
        ctx: Context,
        parent: Self::Inode,
        name: &CStr,
        mode: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        self.masks.may_change(parent, name)?;
        let entry = self
            .files
            .mkdir(as_server(ctx), parent, name, mode, umask, extensions)?;
        self.masks.entered(parent, name, entry.inode);
        Ok(owned_entry(&ctx, entry))
    }

    fn link(
        &self,
        ctx: Context,
        inode: Self::Inode,
        newparent: Self::Inode,
        newname: &CStr,
    ) -> io::Result<Entry> {
        self.masks.may_move(newparent, newname)?;
        let entry = self.files.link(as_server(ctx), inode, newparent, newname)?;
        Ok(owned_entry(&ctx, entry))
    }

    fn unlink(&self, ctx: Context, parent: Self::Inode, name: &CStr) -> io::Result<()> {
        self.masks.may_change(parent, name)?;
        self.files.unlink(as_server(ctx), parent, name)
    }

    fn rmdir(&self, ctx: Context, parent: Self::Inode, name: &CStr) -> io::Result<()> {
        self.masks.may_change(parent, name)?;
        self.files.rmdir(as_server(ctx), parent, name)
    }

    fn rename(
        &self,
        ctx: Context,
        olddir: Self::Inode,
        oldname: &CStr,
        newdir: Self::Inode,
        newname: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        self.masks.may_move(olddir, oldname)?;
        self.masks.may_move(newdir, newname)?;
        self.files
            .rename(as_server(ctx), olddir, oldname, newdir, newname, flags)
    }

    fn read<W: ZeroCopyWriter>(
        &self,
        ctx: Context,
        inode: Self::Inode,
        handle: Self::Handle,
        w: W,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        flags: u32,
    ) -> io::Result<usize> {
        in_a_file(offset, size)?;
        self.files.read(
            as_server(ctx),
            inode,
            handle,
            w,
            size,
            offset,
            lock_owner,
            flags,
        )
    }

    fn write<R: ZeroCopyReader>(
        &self,
        ctx: Context,
        inode: Self::Inode,
        handle: Self::Handle,
        r: R,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        delayed_write: bool,
        kill_priv: bool,
        flags: u32,
    ) -> io::Result<usize> {
        in_a_file(offset, size)?;
        self.files.write(
            as_server(ctx),
            inode,
            handle,
            r,
            size,
            offset,
            lock_owner,
            delayed_write,
            kill_priv,
            flags,
        )
    }

    fn readdir(
        &self,
        ctx: Context,
        inode: Self::Inode,
        handle: Self::Handle,
        size: u32,
        offset: u64,
    ) -> io::Result<Self::DirIter> {
        let entries = self
            .files
            .readdir(as_server(ctx), inode, handle, size, offset)?;
        Ok(Visible {
            entries,
            masks: self.masks.clone(),
            folder: inode,
            name: CString::default(),
        })
    }

    fn getattr(
        &self,
        ctx: Context,
        inode: Self::Inode,
        handle: Option<Self::Handle>,
    ) -> io::Result<(fuse::Attr, Duration)> {
        let (attr, valid) = self.files.getattr(as_server(ctx), inode, handle)?;
        Ok((owned(&ctx, attr), valid))
    }

    fn setattr(
        &self,
        ctx: Context,
        inode: Self::Inode,
        attr: fuse::SetattrIn,
        handle: Option<Self::Handle>,
        valid: SetattrValid,
    ) -> io::Result<(fuse::Attr, Duration)> {
        let valid = valid & !(SetattrValid::UID | SetattrValid::GID);
        let (attr, timeout) = self
            .files
            .setattr(as_server(ctx), inode, attr, handle, valid)?;
        Ok((owned(&ctx, attr), timeout))
    }

    fn mknod(
        &self,
        ctx: Context,
        parent: Self::Inode,
        name: &CStr,
        mode: u32,
        rdev: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        // A device of the guest would be a device of the host.
        if [libc::S_IFCHR, libc::S_IFBLK].contains(&(mode & libc::S_IFMT)) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        self.masks.may_move(parent, name)?;
        let (server, extensions) = (as_server(ctx), without_groups(extensions));
        let entry = self
            .files
            .mknod(server, parent, name, mode, rdev, umask, extensions)?;
        Ok(owned_entry(&ctx, entry))
    }

    fn create(
        &self,
        ctx: Context,
        parent: Self::Inode,
        name: &CStr,
        mode: u32,
        kill_priv: bool,
        flags: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<(Entry, Option<Self::Handle>, OpenOptions)> {
        self.masks.may_move(parent, name)?;
        let (server, extensions) = (as_server(ctx), without_groups(extensions));
        let (entry, handle, options) = self.files.create(
            server, parent, name, mode, kill_priv, flags, umask, extensions,
        )?;
        Ok((owned_entry(&ctx, entry), handle, options))
    }

    pass_on! {
        fn readlink(inode: Self::Inode) -> io::Result<Vec<u8>>;
        fn open(inode: Self::Inode, kill_priv: bool, flags: u32) -> io::Result<(Option<Self::Handle>, OpenOptions)>;
        fn flush(inode: Self::Inode, handle: Self::Handle, lock_owner: u64) -> io::Result<()>;
        fn fsync(inode: Self::Inode, datasync: bool, handle: Self::Handle) -> io::Result<()>;
        fn fallocate(inode: Self::Inode, handle: Self::Handle, mode: u32, offset: u64, length: u64) -> io::Result<()>;
        fn release(inode: Self::Inode, flags: u32, handle: Self::Handle, flush: bool, flock_release: bool, lock_owner: Option<u64>) -> io::Result<()>;
        fn statfs(inode: Self::Inode) -> io::Result<libc::statvfs64>;
        fn setxattr(inode: Self::Inode, name: &CStr, value: &[u8], flags: u32, extra_flags: SetxattrFlags) -> io::Result<()>;
        fn getxattr(inode: Self::Inode, name: &CStr, size: u32) -> io::Result<GetxattrReply>;
        fn listxattr(inode: Self::Inode, size: u32) -> io::Result<ListxattrReply>;
        fn removexattr(inode: Self::Inode, name: &CStr) -> io::Result<()>;
        fn opendir(inode: Self::Inode, flags: u32) -> io::Result<(Option<Self::Handle>, OpenOptions)>;
        fn fsyncdir(inode: Self::Inode, datasync: bool, handle: Self::Handle) -> io::Result<()>;
        fn releasedir(inode: Self::Inode, flags: u32, handle: Self::Handle) -> io::Result<()>;
        fn access(inode: Self::Inode, mask: u32) -> io::Result<()>;
        fn lseek(inode: Self::Inode, handle: Self::Handle, offset: u64, whence: u32) -> io::Result<u64>;
        fn copyfilerange(inode_in: Self::Inode, handle_in: Self::Handle, offset_in: u64, inode_out: Self::Inode, handle_out: Self::Handle, offset_out: u64, len: u64, flags: u64) -> io::Result<usize>;
        fn syncfs(inode: Self::Inode) -> io::Result<()>;
    }
}

/// Migration to another host is not offered; the trait wants its methods all the same.
impl<F: SerializableFileSystem> SerializableFileSystem for CallerOwns<F> {
    fn prepare_serialization(&self, cancel: Arc<AtomicBool>) {
        self.files.prepare_serialization(cancel);
    }

    fn serialize(&self, state_pipe: File) -> io::Result<()> {
        self.files.serialize(state_pipe)
    }

    fn deserialize_and_apply(&self, state_pipe: File) -> io::Result<()> {
        self.files.deserialize_and_apply(state_pipe)
    }
}
