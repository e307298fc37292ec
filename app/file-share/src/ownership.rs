//! Owners, modes and special files as containers set them; on disk, everything belongs to the user who runs Longshore.
//!
//! A file belongs in the guest to whoever asks, so that a container of any user can use a shared folder as the user of the host could,
//! as on Docker's own desktop. It gets an owner, kept in an extended attribute (see [`record`]), when a container
//!
//! - changes its owner or group, or sets one of its set-user-ID, set-group-ID and sticky bits,
//! - makes it in a folder that has one, as a data folder that an image has handed to its user,
//! - makes it as a device, FIFO or socket. An empty file stands on disk for these; the guest's kernel does the rest.
//!
//! Permissions reach the disk, so that what is executable here is so there; but the user of the host keeps reading and writing
//! (`u+rw`, in folders `u+rwx`), and the three bits above them are never set there. Where the permissions on disk are not as they were
//! left, the user has changed them, and they count. Symbolic links hold no such attributes: they belong to whoever asks, and a change
//! of their owner is accepted and does nothing. So is any other on a file system without such attributes, which the log says once.
//!
//! The kernel in the guest checks permissions (virtiofs always mounts with `default_permissions`) against what it was told last, and
//! asks again before it refuses (fuse_permission); so a file of whoever asks, that another user looked at a moment ago, opens too. The
//! work is then done as the host's user. The shares are mounted `nosuid,nodev`: set-user-ID bits and devices are kept and
//! shown, as packages and archives need, and not acted on.
//!
//! The guest has no extended attributes of its own here (ENOSYS, as ever): it can neither see nor forge the record, and its kernel does
//! not ask for `security.capability` with each write. Names are checked on the way, see [`crate::masks`].

pub mod record;
#[cfg(test)]
mod tests;

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use virtiofsd::filesystem::{
    Context, DirEntry, DirectoryIterator, Entry, Extensions, FileSystem, FsOptions, GetxattrReply,
    ListxattrReply, OpenOptions, SerializableFileSystem, SetattrValid, SetxattrFlags,
    ZeroCopyReader, ZeroCopyWriter,
};
use virtiofsd::fuse;
use virtiofsd::soft_idmap::{GuestGid, GuestUid, Id};

use crate::masks::Masks;
use record::{Owner, PERMISSIONS, Record, SPECIAL_BITS};

/// On a folder in which a placeholder was made or moved to: what its listing says of files' types is not to be believed.
const HAS_PLACEHOLDERS: &CStr = c"user.longshore.placeholders";

/// A file system in which owners and modes are the guest's.
pub struct Ownership<F> {
    files: F,
    masks: Arc<Masks>,
    /// One change at a time: a record is read, changed and written.
    changing: Mutex<()>,
    told_of_lack: AtomicBool,
}

/// A folder's entries but for the masked ones.
pub struct Visible<D> {
    entries: D,
    masks: Arc<Masks>,
    folder: u64,
    has_placeholders: bool,
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
            let (ino, offset, mut type_) = (entry.ino, entry.offset, entry.type_);
            if self.has_placeholders && type_ == u32::from(libc::DT_REG) {
                type_ = u32::from(libc::DT_UNKNOWN);
            }
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

fn caller(ctx: &Context) -> Owner {
    (ctx.uid.into_inner(), ctx.gid.into_inner())
}

fn error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// No such attributes on this file system, or on what the file is.
fn is_lack(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTSUP | libc::ENOSYS))
}

/// What the guest is told of a file.
fn told(ctx: &Context, mut attr: fuse::Attr, record: Option<&Record>) -> fuse::Attr {
    let (uid, gid) = record
        .and_then(|record| record.owner)
        .unwrap_or_else(|| caller(ctx));
    if let Some(record) = record {
        attr.mode = record.seen(attr.mode);
        if record.is_placeholder() {
            (attr.rdev, attr.size, attr.blocks) = (record.rdev, 0, 0);
        }
    }
    // The kernel may take whoever looked last for the owner: a program must not run as that one.
    if record.is_none_or(|record| record.owner.is_none())
        && attr.mode & libc::S_IFMT == libc::S_IFREG
    {
        attr.mode &= !(libc::S_ISUID | libc::S_ISGID);
    }
    (attr.uid, attr.gid) = (GuestUid::from(uid), GuestGid::from(gid));
    attr
}

impl<F> Ownership<F> {
    pub fn new(files: F, masks: Masks) -> Self {
        Self {
            files,
            masks: Arc::new(masks),
            changing: Mutex::default(),
            told_of_lack: AtomicBool::default(),
        }
    }

    fn changing(&self) -> std::sync::MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say_lack(&self) {
        if !self.told_of_lack.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a file system in this share keeps no user.* extended attributes: owners, set-user-ID bits and special files that \
                 containers set there are not kept"
            );
        }
    }
}

impl<F: FileSystem<Inode = u64>> Ownership<F> {
    /// The record of a file, whose attributes on disk are `attr`.
    fn record(&self, ctx: &Context, inode: u64, attr: &fuse::Attr) -> Option<Record> {
        // Others hold no attributes, and must not be opened.
        if !matches!(attr.mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR) {
            return None;
        }
        let size = record::LONGEST as u32;
        match self
            .files
            .getxattr(as_server(*ctx), inode, record::NAME, size)
        {
            Ok(GetxattrReply::Value(value)) => Record::parse(&value, attr.mode),
            _ => None,
        }
    }

    fn told(&self, ctx: &Context, inode: u64, attr: fuse::Attr) -> fuse::Attr {
        told(ctx, attr, self.record(ctx, inode, &attr).as_ref())
    }

    fn told_entry(&self, ctx: &Context, entry: Entry) -> Entry {
        Entry {
            attr: self.told(ctx, entry.inode, entry.attr),
            ..entry
        }
    }

    /// Writes an attribute of ours; false where the file system has none.
    fn keep(&self, ctx: &Context, inode: u64, name: &CStr, value: &[u8]) -> io::Result<bool> {
        let none = SetxattrFlags::empty();
        match self
            .files
            .setxattr(as_server(*ctx), inode, name, value, 0, none)
        {
            Ok(()) => Ok(true),
            Err(error) if is_lack(&error) => {
                self.say_lack();
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn keep_record(&self, ctx: &Context, inode: u64, record: &Record) -> io::Result<bool> {
        self.keep(ctx, inode, record::NAME, record.to_string().as_bytes())
    }

    /// What a new file of this mode is, by the folder that it is made in (inode(7), "The set-group-ID bit").
    fn newborn(&self, ctx: &Context, folder: u64, mode: u32) -> io::Result<Record> {
        let (attr, _) = self.files.getattr(as_server(*ctx), folder, None)?;
        let around = self.record(ctx, folder, &attr);
        let seen = around
            .as_ref()
            .map_or(attr.mode, |record| record.seen(attr.mode));
        let inherits = seen & libc::S_ISGID != 0;
        let (uid, gid) = caller(ctx);
        let owner = around.and_then(|record| record.owner);
        let owner = owner.map(|(_, folders)| (uid, if inherits { folders } else { gid }));
        let is_folder = mode & libc::S_IFMT == libc::S_IFDIR;
        let mode = mode
            | if inherits && is_folder {
                libc::S_ISGID
            } else {
                0
            };
        let mut record = Record::new(mode, owner);
        if mode & SPECIAL_BITS & !libc::S_ISGID != 0 || record.is_placeholder() {
            record.owner = owner.or(Some((uid, gid)));
        }
        Ok(record)
    }

    /// Gives something that was just made its record. What it cannot be given to is unmade.
    fn born(
        &self,
        ctx: &Context,
        parent: u64,
        name: &CStr,
        entry: Entry,
        record: &Record,
    ) -> io::Result<Entry> {
        if !record.is_needed(entry.attr.mode) {
            let attr = told(ctx, entry.attr, None);
            return Ok(Entry { attr, ..entry });
        }
        let kept = self
            .keep_record(ctx, entry.inode, record)
            .and_then(|kept| match kept {
                true => Ok(told(ctx, entry.attr, Some(record))),
                // The permissions alone, then, as they were asked for.
                false => {
                    let attr = self.permit(ctx, entry.inode, record.mode & 0o777)?;
                    Ok(told(ctx, attr, None))
                }
            });
        match kept {
            Ok(attr) => Ok(Entry { attr, ..entry }),
            Err(error) => {
                self.unmake(ctx, parent, name, &entry);
                Err(error)
            }
        }
    }

    /// Sets a file's permissions on disk.
    fn permit(&self, ctx: &Context, inode: u64, mode: u32) -> io::Result<fuse::Attr> {
        let wanted = fuse::SetattrIn {
            mode,
            ..Default::default()
        };
        let valid = SetattrValid::MODE;
        let (attr, _) = self
            .files
            .setattr(as_server(*ctx), inode, wanted, None, valid)?;
        Ok(attr)
    }

    fn unmake(&self, ctx: &Context, parent: u64, name: &CStr, entry: &Entry) {
        let server = as_server(*ctx);
        let _ = match entry.attr.mode & libc::S_IFMT {
            libc::S_IFDIR => self.files.rmdir(server, parent, name),
            _ => self.files.unlink(server, parent, name),
        };
        self.files.forget(server, entry.inode, 1);
    }

    /// A device, FIFO or socket: an empty file and its record. None where there can be no record.
    fn make_placeholder(
        &self,
        ctx: &Context,
        parent: u64,
        name: &CStr,
        record: &Record,
    ) -> io::Result<Option<Entry>> {
        let (server, mode) = (as_server(*ctx), libc::S_IFREG | record.on_disk());
        let plain = Extensions::default();
        let entry = self.files.mknod(server, parent, name, mode, 0, 0, plain)?;
        match self.keep_record(ctx, entry.inode, record) {
            Ok(true) => {
                self.keep(ctx, parent, HAS_PLACEHOLDERS, b"1")?;
                let attr = told(ctx, entry.attr, Some(record));
                Ok(Some(Entry { attr, ..entry }))
            }
            Ok(false) => {
                self.unmake(ctx, parent, name, &entry);
                Ok(None)
            }
            Err(error) => {
                self.unmake(ctx, parent, name, &entry);
                Err(error)
            }
        }
    }

    /// A file has come to this place: its folder's listing may have to be told from now on.
    fn moved_to(&self, ctx: &Context, folder: u64, name: &CStr) {
        let server = as_server(*ctx);
        let Ok(entry) = self.files.lookup(server, folder, name) else {
            return;
        };
        self.note_placeholder(ctx, folder, &entry);
        self.files.forget(server, entry.inode, 1);
    }

    fn note_placeholder(&self, ctx: &Context, folder: u64, entry: &Entry) {
        let record = self.record(ctx, entry.inode, &entry.attr);
        if record.is_some_and(|record| record.is_placeholder())
            && let Err(error) = self.keep(ctx, folder, HAS_PLACEHOLDERS, b"1")
        {
            tracing::debug!("a folder's listing will name a special file a regular one: {error}");
        }
    }

    /// Opened with O_TRUNC by other than root, a file loses set-user-ID, and set-group-ID where its group may run it (inode(7)). The
    /// guest's kernel sees to it when it writes and truncates, but leaves this one to the server (FUSE_ATOMIC_O_TRUNC).
    fn emptied(&self, ctx: &Context, inode: u64, flags: u32) {
        if flags & libc::O_TRUNC as u32 == 0 || ctx.uid.is_root() {
            return;
        }
        let Ok((attr, _)) = self.files.getattr(as_server(*ctx), inode, None) else {
            return;
        };
        let Some(mut record) = self.record(ctx, inode, &attr) else {
            return;
        };
        let before = record.mode;
        record.mode &= !libc::S_ISUID;
        if before & libc::S_IXGRP != 0 {
            record.mode &= !libc::S_ISGID;
        }
        if record.mode != before
            && let Err(error) = self.keep_record(ctx, inode, &record)
        {
            tracing::warn!("a file that was emptied keeps its set-user-ID bit: {error}");
        }
    }

    /// What the file is after a change of owner or mode, and the mode that it then has on disk.
    fn changed(
        &self,
        ctx: &Context,
        inode: u64,
        on_disk: &fuse::Attr,
        wanted: &fuse::SetattrIn,
        valid: SetattrValid,
    ) -> io::Result<(Record, u32)> {
        let record = self.record(ctx, inode, on_disk);
        let seen = told(ctx, *on_disk, record.as_ref()).mode;
        let mut record = record.unwrap_or_else(|| Record::new(seen, None));
        record.mode = seen;
        if valid.contains(SetattrValid::MODE) {
            record.mode = seen & libc::S_IFMT | wanted.mode & PERMISSIONS;
            if record.mode & SPECIAL_BITS & !seen != 0 {
                record.owner = record.owner.or(Some(caller(ctx)));
            }
        }
        if valid.intersects(SetattrValid::UID | SetattrValid::GID) {
            let (mut uid, mut gid) = record.owner.unwrap_or_else(|| caller(ctx));
            if valid.contains(SetattrValid::UID) {
                uid = wanted.uid.into_inner();
            }
            if valid.contains(SetattrValid::GID) {
                gid = wanted.gid.into_inner();
            }
            if uid == u32::MAX || gid == u32::MAX {
                return Err(error(libc::EINVAL));
            }
            record.owner = Some((uid, gid));
        }
        // What the host's user has set stays until it is taken away.
        let mode = record.on_disk() | on_disk.mode & record.mode & SPECIAL_BITS;
        Ok((record, mode))
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

impl<F: FileSystem<Inode = u64>> FileSystem for Ownership<F> {
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
        Ok(self.told_entry(&ctx, entry))
    }

    fn symlink(
        &self,
        ctx: Context,
        linkname: &CStr,
        parent: Self::Inode,
        name: &CStr,
        _: Extensions,
    ) -> io::Result<Entry> {
        // A link on the way would lead out of the tree of masks.
        self.masks.may_move(parent, name)?;
        let plain = Extensions::default();
        let entry = self
            .files
            .symlink(as_server(ctx), linkname, parent, name, plain)?;
        Ok(self.told_entry(&ctx, entry))
    }

    fn mkdir(
        &self,
        ctx: Context,
        parent: Self::Inode,
        name: &CStr,
        mode: u32,
        umask: u32,
        _: Extensions,
    ) -> io::Result<Entry> {
        self.masks.may_change(parent, name)?;
        let _changing = self.changing();
        let record = self.newborn(&ctx, parent, libc::S_IFDIR | mode & PERMISSIONS)?;
        let (server, plain) = (as_server(ctx), Extensions::default());
        let on_disk = record.on_disk();
        let entry = self
            .files
            .mkdir(server, parent, name, on_disk, umask, plain)?;
        let entry = self.born(&ctx, parent, name, entry, &record)?;
        self.masks.entered(parent, name, entry.inode);
        Ok(entry)
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
        self.note_placeholder(&ctx, newparent, &entry);
        Ok(self.told_entry(&ctx, entry))
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
        // What it leaves behind would be a device of the host.
        if flags & libc::RENAME_WHITEOUT != 0 {
            return Err(error(libc::EINVAL));
        }
        self.files
            .rename(as_server(ctx), olddir, oldname, newdir, newname, flags)?;
        if olddir != newdir {
            self.moved_to(&ctx, newdir, newname);
            if flags & libc::RENAME_EXCHANGE != 0 {
                self.moved_to(&ctx, olddir, oldname);
            }
        }
        Ok(())
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
        let noted = self
            .files
            .getxattr(as_server(ctx), inode, HAS_PLACEHOLDERS, 1);
        Ok(Visible {
            entries,
            masks: self.masks.clone(),
            folder: inode,
            has_placeholders: noted.is_ok(),
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
        Ok((self.told(&ctx, inode, attr), valid))
    }

    fn setattr(
        &self,
        ctx: Context,
        inode: Self::Inode,
        mut attr: fuse::SetattrIn,
        handle: Option<Self::Handle>,
        valid: SetattrValid,
    ) -> io::Result<(fuse::Attr, Duration)> {
        let server = as_server(ctx);
        let owner = SetattrValid::UID | SetattrValid::GID;
        let mut rest = valid & !owner;
        if !valid.intersects(owner | SetattrValid::MODE) {
            let (attr, timeout) = self.files.setattr(server, inode, attr, handle, rest)?;
            return Ok((self.told(&ctx, inode, attr), timeout));
        }
        let _changing = self.changing();
        let (on_disk, _) = self.files.getattr(server, inode, None)?;
        if !matches!(on_disk.mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR) {
            attr.mode &= 0o777;
            let (attr, timeout) = self.files.setattr(server, inode, attr, handle, rest)?;
            return Ok((self.told(&ctx, inode, attr), timeout));
        }
        let (record, mode) = self.changed(&ctx, inode, &on_disk, &attr, valid)?;
        attr.mode = mode;
        rest.set(SetattrValid::MODE, mode != on_disk.mode & PERMISSIONS);
        // First, as the host's user may not write the file yet, and so not its attributes.
        self.files.setattr(server, inode, attr, handle, rest)?;
        if !record.is_needed(libc::S_IFREG | mode) {
            match self.files.removexattr(server, inode, record::NAME) {
                Err(error) if error.raw_os_error() != Some(libc::ENODATA) && !is_lack(&error) => {
                    return Err(error);
                }
                _ => {}
            }
        } else if !self.keep_record(&ctx, inode, &record)? {
            // The permissions alone, then, as they were asked for.
            self.permit(&ctx, inode, record.mode & 0o777 | mode & SPECIAL_BITS)?;
        }
        // Asked again for the time of the change.
        let (attr, timeout) = self.files.getattr(server, inode, None)?;
        Ok((self.told(&ctx, inode, attr), timeout))
    }

    fn mknod(
        &self,
        ctx: Context,
        parent: Self::Inode,
        name: &CStr,
        mode: u32,
        rdev: u32,
        umask: u32,
        _: Extensions,
    ) -> io::Result<Entry> {
        self.masks.may_move(parent, name)?;
        let kind = match mode & libc::S_IFMT {
            0 => libc::S_IFREG,
            kind => kind,
        };
        let _changing = self.changing();
        let mut record = self.newborn(&ctx, parent, kind | mode & PERMISSIONS)?;
        let (server, plain) = (as_server(ctx), Extensions::default());
        let device = matches!(kind, libc::S_IFCHR | libc::S_IFBLK);
        if record.is_placeholder() {
            record.rdev = if device { rdev } else { 0 };
            if let Some(entry) = self.make_placeholder(&ctx, parent, name, &record)? {
                return Ok(entry);
            }
        }
        // Without a record: a device of the guest would be a device of the host.
        if device {
            return Err(error(libc::EPERM));
        }
        let mode = kind | record.on_disk();
        let entry = self
            .files
            .mknod(server, parent, name, mode, 0, umask, plain)?;
        if record.is_placeholder() {
            return Ok(self.told_entry(&ctx, entry));
        }
        self.born(&ctx, parent, name, entry, &record)
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
        _: Extensions,
    ) -> io::Result<(Entry, Option<Self::Handle>, OpenOptions)> {
        self.masks.may_move(parent, name)?;
        let _changing = self.changing();
        let record = self.newborn(&ctx, parent, libc::S_IFREG | mode & PERMISSIONS)?;
        let (server, on_disk) = (as_server(ctx), record.on_disk());
        let make = |flags| {
            let plain = Extensions::default();
            self.files.create(
                server, parent, name, on_disk, kill_priv, flags, umask, plain,
            )
        };
        let exclusive = libc::O_EXCL as u32;
        match make(flags | exclusive) {
            Ok((entry, handle, options)) => {
                let inode = entry.inode;
                match self.born(&ctx, parent, name, entry, &record) {
                    Ok(entry) => Ok((entry, handle, options)),
                    Err(error) => {
                        if let Some(handle) = handle {
                            let _ = self
                                .files
                                .release(server, inode, flags, handle, false, false, None);
                        }
                        Err(error)
                    }
                }
            }
            // It was there before the guest knew of it, and keeps what it has.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) && flags & exclusive == 0 => {
                let (entry, handle, options) = make(flags)?;
                self.emptied(&ctx, entry.inode, flags);
                Ok((self.told_entry(&ctx, entry), handle, options))
            }
            Err(error) => Err(error),
        }
    }

    fn open(
        &self,
        ctx: Context,
        inode: Self::Inode,
        kill_priv: bool,
        flags: u32,
    ) -> io::Result<(Option<Self::Handle>, OpenOptions)> {
        let opened = self.files.open(as_server(ctx), inode, kill_priv, flags)?;
        self.emptied(&ctx, inode, flags);
        Ok(opened)
    }

    fn setxattr(
        &self,
        _: Context,
        _: Self::Inode,
        _: &CStr,
        _: &[u8],
        _: u32,
        _: SetxattrFlags,
    ) -> io::Result<()> {
        Err(error(libc::ENOSYS))
    }

    fn getxattr(&self, _: Context, _: Self::Inode, _: &CStr, _: u32) -> io::Result<GetxattrReply> {
        Err(error(libc::ENOSYS))
    }

    fn listxattr(&self, _: Context, _: Self::Inode, _: u32) -> io::Result<ListxattrReply> {
        Err(error(libc::ENOSYS))
    }

    fn removexattr(&self, _: Context, _: Self::Inode, _: &CStr) -> io::Result<()> {
        Err(error(libc::ENOSYS))
    }

    pass_on! {
        fn readlink(inode: Self::Inode) -> io::Result<Vec<u8>>;
        fn flush(inode: Self::Inode, handle: Self::Handle, lock_owner: u64) -> io::Result<()>;
        fn fsync(inode: Self::Inode, datasync: bool, handle: Self::Handle) -> io::Result<()>;
        fn fallocate(inode: Self::Inode, handle: Self::Handle, mode: u32, offset: u64, length: u64) -> io::Result<()>;
        fn release(inode: Self::Inode, flags: u32, handle: Self::Handle, flush: bool, flock_release: bool, lock_owner: Option<u64>) -> io::Result<()>;
        fn statfs(inode: Self::Inode) -> io::Result<libc::statvfs64>;
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
impl<F: SerializableFileSystem> SerializableFileSystem for Ownership<F> {
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
