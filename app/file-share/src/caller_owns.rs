//! Every file belongs to whoever asks, in the guest; to the user who runs Longshore, on disk.
//!
//! A container of any user can so use a shared folder as the user of the host could, as on Docker's own desktop. The kernel in
//! the guest checks permissions (virtiofs always mounts with `default_permissions`) against what it was told last, and asks again
//! before it refuses (fuse_permission); so a file that another user looked at a moment ago opens too. Ownership that a container
//! sets itself is not kept yet: `chown` is accepted and does nothing.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use virtiofsd::filesystem::{
    Context, Entry, Extensions, FileSystem, FsOptions, GetxattrReply, ListxattrReply, OpenOptions,
    SerializableFileSystem, SetattrValid, SetxattrFlags, ZeroCopyReader, ZeroCopyWriter,
};
use virtiofsd::fuse;
use virtiofsd::soft_idmap::{GuestGid, GuestUid};

/// A file system in which the caller owns everything.
pub struct CallerOwns<F>(pub F);

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
                self.0.$name(as_server(ctx), $($arg),*)
            }
        )*
    };
}

/// The same for requests that answer with an entry.
macro_rules! pass_on_entry {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> io::Result<Entry>;)*) => {
        $(
            #[allow(clippy::too_many_arguments)]
            fn $name(&self, ctx: Context, $($arg: $type),*) -> io::Result<Entry> {
                let entry = self.0.$name(as_server(ctx), $($arg),*)?;
                Ok(owned_entry(&ctx, entry))
            }
        )*
    };
}

impl<F: FileSystem> FileSystem for CallerOwns<F> {
    type Inode = F::Inode;
    type Handle = F::Handle;
    type DirIter = F::DirIter;

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        // Without this the guest does not send the caller's groups with what it creates.
        self.0.init(capable & !FsOptions::CREATE_SUPP_GROUP)
    }

    fn destroy(&self) {
        self.0.destroy();
    }

    fn getattr(
        &self,
        ctx: Context,
        inode: Self::Inode,
        handle: Option<Self::Handle>,
    ) -> io::Result<(fuse::Attr, Duration)> {
        let (attr, valid) = self.0.getattr(as_server(ctx), inode, handle)?;
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
        let (attr, timeout) = self.0.setattr(as_server(ctx), inode, attr, handle, valid)?;
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
        let (server, extensions) = (as_server(ctx), without_groups(extensions));
        let entry = self
            .0
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
        let (server, extensions) = (as_server(ctx), without_groups(extensions));
        let (entry, handle, options) = self.0.create(
            server, parent, name, mode, kill_priv, flags, umask, extensions,
        )?;
        Ok((owned_entry(&ctx, entry), handle, options))
    }

    pass_on_entry! {
        fn lookup(parent: Self::Inode, name: &CStr) -> io::Result<Entry>;
        fn symlink(linkname: &CStr, parent: Self::Inode, name: &CStr, extensions: Extensions) -> io::Result<Entry>;
        fn mkdir(parent: Self::Inode, name: &CStr, mode: u32, umask: u32, extensions: Extensions) -> io::Result<Entry>;
        fn link(inode: Self::Inode, newparent: Self::Inode, newname: &CStr) -> io::Result<Entry>;
    }

    pass_on! {
        fn forget(inode: Self::Inode, count: u64);
        fn batch_forget(requests: Vec<(Self::Inode, u64)>);
        fn readlink(inode: Self::Inode) -> io::Result<Vec<u8>>;
        fn unlink(parent: Self::Inode, name: &CStr) -> io::Result<()>;
        fn rmdir(parent: Self::Inode, name: &CStr) -> io::Result<()>;
        fn rename(olddir: Self::Inode, oldname: &CStr, newdir: Self::Inode, newname: &CStr, flags: u32) -> io::Result<()>;
        fn open(inode: Self::Inode, kill_priv: bool, flags: u32) -> io::Result<(Option<Self::Handle>, OpenOptions)>;
        fn read<W: ZeroCopyWriter>(inode: Self::Inode, handle: Self::Handle, w: W, size: u32, offset: u64, lock_owner: Option<u64>, flags: u32) -> io::Result<usize>;
        fn write<R: ZeroCopyReader>(inode: Self::Inode, handle: Self::Handle, r: R, size: u32, offset: u64, lock_owner: Option<u64>, delayed_write: bool, kill_priv: bool, flags: u32) -> io::Result<usize>;
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
        fn readdir(inode: Self::Inode, handle: Self::Handle, size: u32, offset: u64) -> io::Result<Self::DirIter>;
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
        self.0.prepare_serialization(cancel);
    }

    fn serialize(&self, state_pipe: File) -> io::Result<()> {
        self.0.serialize(state_pipe)
    }

    fn deserialize_and_apply(&self, state_pipe: File) -> io::Result<()> {
        self.0.deserialize_and_apply(state_pipe)
    }
}
