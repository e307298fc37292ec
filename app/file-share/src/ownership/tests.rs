//! Users of containers on one folder, without a VM between: what they are told, and what is on disk.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use virtiofsd::filesystem::{ROOT_ID, SecContext};
use virtiofsd::passthrough::{Config, PassthroughFs};

use super::*;

const ROOT: Owner = (0, 0);
const POSTGRES: Owner = (101, 102);
const OTHER: Owner = (33, 33);

struct Share {
    files: Ownership<PassthroughFs>,
    folder: PathBuf,
}

impl Share {
    /// On a file system that keeps attributes, or none.
    fn new(name: &str, xattr: bool) -> Self {
        let folder = std::env::temp_dir().join(format!("ownership-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let config = Config {
            root_dir: folder.display().to_string(),
            xattr,
            ..Config::default()
        };
        let files = PassthroughFs::new(config).expect("the share");
        let files = Ownership::new(files, Masks::default());
        files.init(FsOptions::empty()).expect("a beginning");
        Self { files, folder }
    }

    fn make(&self, who: Owner, parent: u64, name: &CStr, mode: u32) -> Entry {
        let flags = (libc::O_CREAT | libc::O_RDWR) as u32;
        let plain = Extensions::default();
        let made = self
            .files
            .create(by(who), parent, name, mode, false, flags, 0, plain);
        made.expect("a file").0
    }

    fn folder(&self, who: Owner, name: &CStr, mode: u32) -> Entry {
        let plain = Extensions::default();
        let made = self.files.mkdir(by(who), ROOT_ID, name, mode, 0, plain);
        made.expect("a folder")
    }

    fn node(
        &self,
        who: Owner,
        parent: u64,
        name: &CStr,
        mode: u32,
        rdev: u32,
    ) -> io::Result<Entry> {
        let plain = Extensions::default();
        self.files
            .mknod(by(who), parent, name, mode, rdev, 0, plain)
    }

    fn chown(&self, who: Owner, inode: u64, owner: Owner) -> fuse::Attr {
        let wanted = fuse::SetattrIn {
            uid: owner.0.into(),
            gid: owner.1.into(),
            ..Default::default()
        };
        let valid = SetattrValid::UID | SetattrValid::GID;
        let changed = self.files.setattr(by(who), inode, wanted, None, valid);
        changed.expect("chown").0
    }

    fn chmod(&self, who: Owner, inode: u64, mode: u32) -> fuse::Attr {
        let wanted = fuse::SetattrIn {
            mode,
            ..Default::default()
        };
        let changed = self
            .files
            .setattr(by(who), inode, wanted, None, SetattrValid::MODE);
        changed.expect("chmod").0
    }

    /// Owner and mode as this user is told them.
    fn seen(&self, who: Owner, inode: u64) -> (Owner, u32) {
        of(&self
            .files
            .getattr(by(who), inode, None)
            .expect("attributes")
            .0)
    }

    fn on_disk(&self, name: &str) -> std::fs::Metadata {
        let data = std::fs::symlink_metadata(self.folder.join(name)).expect(name);
        assert_eq!(data.uid(), nix::unistd::geteuid().as_raw(), "{name}");
        assert_eq!(data.mode() & SPECIAL_BITS, 0, "{name}: {:o}", data.mode());
        data
    }

    fn record_on_disk(&self, inode: u64) -> Option<String> {
        let inner = &self.files.files;
        let size = record::LONGEST as u32;
        match inner.getxattr(by(ROOT), inode, record::NAME, size) {
            Ok(GetxattrReply::Value(value)) => Some(String::from_utf8(value).expect("ASCII")),
            _ => None,
        }
    }

    fn types(&self, inode: u64) -> Vec<(CString, u32)> {
        let flags = libc::O_RDONLY as u32;
        let (handle, _) = self
            .files
            .opendir(by(ROOT), inode, flags)
            .expect("a folder");
        let handle = handle.expect("a handle");
        let mut entries = self
            .files
            .readdir(by(ROOT), inode, handle, 4096, 0)
            .expect("a listing");
        let mut types = Vec::new();
        while let Some(entry) = entries.next() {
            types.push((entry.name.to_owned(), entry.type_));
        }
        types
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn by((uid, gid): Owner) -> Context {
    Context {
        uid: uid.into(),
        gid: gid.into(),
        pid: 1,
    }
}

fn of(attr: &fuse::Attr) -> (Owner, u32) {
    ((attr.uid.into_inner(), attr.gid.into_inner()), attr.mode)
}

const FILE: u32 = libc::S_IFREG;

#[test]
fn a_file_belongs_to_whoever_asks_until_it_is_given_away() {
    let share = Share::new("whoever", true);
    let file = share.make(ROOT, ROOT_ID, c"file", 0o644).inode;
    assert_eq!(share.record_on_disk(file), None);
    assert_eq!(share.seen(OTHER, file), (OTHER, FILE | 0o644));
    assert_eq!(
        of(&share.chown(ROOT, file, POSTGRES)),
        (POSTGRES, FILE | 0o644)
    );
    assert_eq!(share.seen(OTHER, file), (POSTGRES, FILE | 0o644));
    assert_eq!(
        share.record_on_disk(file).as_deref(),
        Some("1 100644 101 102 0")
    );
    share.on_disk("file");
    // Hard links and renames keep it: it is the file's.
    let link = share
        .files
        .link(by(ROOT), file, ROOT_ID, c"link")
        .expect("a link");
    assert_eq!(
        (link.inode, of(&link.attr)),
        (file, (POSTGRES, FILE | 0o644))
    );
    share
        .files
        .rename(by(ROOT), ROOT_ID, c"link", ROOT_ID, c"other", 0)
        .expect("a rename");
    assert_eq!(share.chown(OTHER, file, OTHER).uid, OTHER.0.into());
    let other = share
        .files
        .lookup(by(ROOT), ROOT_ID, c"other")
        .expect("found");
    assert_eq!(of(&other.attr).0, OTHER);
}

#[test]
fn permissions_reach_the_disk_but_do_not_lock_its_user_out() {
    let share = Share::new("permissions", true);
    let file = share.make(ROOT, ROOT_ID, c"file", 0o644).inode;
    for (mode, on_disk, recorded) in [
        (0o755, 0o755, false),
        (0o600, 0o600, false),
        (0, 0o600, true),
        (0o444, 0o644, true),
        (0o4755, 0o755, true),
    ] {
        assert_eq!(share.chmod(ROOT, file, mode).mode, FILE | mode, "{mode:o}");
        assert_eq!(share.seen(ROOT, file).1, FILE | mode, "{mode:o}");
        assert_eq!(share.on_disk("file").mode() & 0o777, on_disk, "{mode:o}");
        assert_eq!(share.record_on_disk(file).is_some(), recorded, "{mode:o}");
    }
    // Whoever sets the bit owns the file: whoever comes later must not run as someone else by it.
    assert_eq!(share.seen(OTHER, file), (ROOT, FILE | 0o4755));
    // The host's user has the last word.
    let path = share.folder.join("file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("chmod");
    assert_eq!(share.seen(OTHER, file), (ROOT, FILE | 0o640));
    let made = share.make(ROOT, ROOT_ID, c"object", 0o444);
    assert_eq!(made.attr.mode, FILE | 0o444);
    assert_eq!(share.on_disk("object").mode() & 0o777, 0o644);
    let folder = share.folder(ROOT, c"folder", 0o1555);
    assert_eq!(of(&folder.attr), (ROOT, libc::S_IFDIR | 0o1555));
    assert_eq!(share.on_disk("folder").mode() & 0o777, 0o755);
}

#[test]
fn what_is_made_in_a_folder_with_an_owner_has_one() {
    let share = Share::new("owned", true);
    let data = share.folder(ROOT, c"data", 0o755).inode;
    share.chown(ROOT, data, POSTGRES);
    let file = share.make(OTHER, data, c"file", 0o600).inode;
    assert_eq!(share.seen(ROOT, file), (OTHER, FILE | 0o600));
    // The folder's group, for all in it and below.
    share.chmod(ROOT, data, 0o2775);
    let file = share.make(OTHER, data, c"shared", 0o640).inode;
    assert_eq!(
        share.seen(ROOT, file),
        ((OTHER.0, POSTGRES.1), FILE | 0o640)
    );
    let plain = Extensions::default();
    let below = share
        .files
        .mkdir(by(OTHER), data, c"below", 0o755, 0, plain);
    let below = below.expect("a folder");
    let seen = ((OTHER.0, POSTGRES.1), libc::S_IFDIR | 0o2755);
    assert_eq!(of(&below.attr), seen);
    assert_eq!(share.seen(ROOT, below.inode), seen);
    share.on_disk("data/below");
    // A file that was there before keeps what it has.
    std::fs::write(share.folder.join("data/there"), "").expect("a file");
    assert_eq!(of(&share.make(OTHER, data, c"there", 0o600).attr).0, OTHER);
    let there = share.files.lookup(by(ROOT), data, c"there").expect("found");
    assert_eq!(share.record_on_disk(there.inode), None);
}

#[test]
fn special_files_are_empty_files_on_disk() {
    let share = Share::new("special", true);
    for (name, mode, rdev) in [
        (c"null", libc::S_IFCHR | 0o666, 259),
        (c"disk", libc::S_IFBLK | 0o660, 1792),
        (c"pipe", libc::S_IFIFO | 0o4600, 0),
        (c"socket", libc::S_IFSOCK | 0o777, 0),
    ] {
        let made = share
            .node(POSTGRES, ROOT_ID, name, mode, rdev)
            .expect("a node");
        assert_eq!((of(&made.attr), made.attr.rdev), ((POSTGRES, mode), rdev));
        let found = share.files.lookup(by(OTHER), ROOT_ID, name).expect("found");
        assert_eq!((of(&found.attr), found.attr.rdev), ((POSTGRES, mode), rdev));
        let data = share.on_disk(name.to_str().expect("a name"));
        assert!(data.is_file() && data.len() == 0);
    }
    // A listing does not call them files, wherever they go.
    let regular = |inode| {
        share
            .types(inode)
            .iter()
            .any(|(_, kind)| *kind == u32::from(libc::DT_REG))
    };
    assert!(!regular(ROOT_ID));
    let there = share.folder(ROOT, c"there", 0o755).inode;
    share.make(ROOT, there, c"file", 0o644);
    assert!(regular(there));
    share
        .files
        .rename(by(ROOT), ROOT_ID, c"pipe", there, c"pipe", 0)
        .expect("a rename");
    assert!(!regular(there));
    let whiteout = libc::RENAME_WHITEOUT;
    let left = share
        .files
        .rename(by(ROOT), there, c"pipe", there, c"p", whiteout);
    assert_eq!(
        left.expect_err("refused").raw_os_error(),
        Some(libc::EINVAL)
    );
}

#[test]
fn the_guest_neither_sees_nor_forges_the_record() {
    let share = Share::new("forged", true);
    let file = share.make(ROOT, ROOT_ID, c"file", 0o644).inode;
    share.chown(ROOT, file, POSTGRES);
    let (ctx, none) = (by(ROOT), SetxattrFlags::empty());
    let code = |error: io::Error| error.raw_os_error().expect("a code");
    let forged = b"1 104755 0 0 0";
    for name in [record::NAME, c"user.other", c"security.capability"] {
        let set = share.files.setxattr(ctx, file, name, forged, 0, none);
        assert_eq!(set.map_err(code), Err(libc::ENOSYS));
        assert!(share.files.getxattr(ctx, file, name, 64).is_err());
        assert_eq!(
            share.files.removexattr(ctx, file, name).map_err(code),
            Err(libc::ENOSYS)
        );
    }
    assert!(share.files.listxattr(ctx, file, 64).is_err());
    // Nor by the security context of something new.
    let context = Extensions {
        secctx: Some(SecContext {
            name: record::NAME.to_owned(),
            secctx: forged.to_vec(),
        }),
        ..Extensions::default()
    };
    let flags = (libc::O_CREAT | libc::O_RDWR) as u32;
    let made = share
        .files
        .create(by(OTHER), ROOT_ID, c"new", 0o644, false, flags, 0, context)
        .expect("a file");
    assert_eq!(share.record_on_disk(made.0.inode), None);
    assert_eq!(share.seen(ROOT, file).0, POSTGRES);
    // What somebody on the host wrote wrongly counts as not there.
    let inner = &share.files.files;
    inner
        .setxattr(ctx, file, record::NAME, b"1 104755 0 0 0 ", 0, none)
        .expect("the host may");
    assert_eq!(share.seen(OTHER, file), (OTHER, FILE | 0o644));
}

#[test]
fn without_attributes_it_is_as_if_nothing_was_set() {
    let share = Share::new("without", false);
    let file = share.make(ROOT, ROOT_ID, c"file", 0o444);
    assert_eq!(of(&file.attr), (ROOT, FILE | 0o444));
    assert_eq!(share.on_disk("file").mode() & 0o777, 0o444);
    assert_eq!(of(&share.chown(ROOT, file.inode, POSTGRES)).0, ROOT);
    assert_eq!(share.chmod(ROOT, file.inode, 0o4511).mode, FILE | 0o511);
    assert_eq!(share.on_disk("file").mode() & 0o777, 0o511);
    assert!(share.files.told_of_lack.load(Ordering::Relaxed));
    let device = share.node(ROOT, ROOT_ID, c"null", libc::S_IFCHR | 0o666, 259);
    assert_eq!(
        device.err().expect("refused").raw_os_error(),
        Some(libc::EPERM)
    );
    let pipe = share.node(ROOT, ROOT_ID, c"pipe", libc::S_IFIFO | 0o600, 0);
    assert_eq!(pipe.expect("a pipe").attr.mode, libc::S_IFIFO | 0o600);
    assert_eq!(share.on_disk("pipe").mode() & libc::S_IFMT, libc::S_IFIFO);
}

#[test]
fn symbolic_links_belong_to_whoever_asks() {
    let share = Share::new("links", true);
    let plain = Extensions::default();
    let link = share
        .files
        .symlink(by(ROOT), c"nowhere", ROOT_ID, c"link", plain);
    let link = link.expect("a link").inode;
    assert_eq!(of(&share.chown(ROOT, link, POSTGRES)).0, ROOT);
    assert_eq!(share.seen(OTHER, link).0, OTHER);
}

#[test]
fn emptying_anothers_program_ends_its_bits() {
    let share = Share::new("emptied", true);
    let file = share.make(ROOT, ROOT_ID, c"file", 0o777).inode;
    let flags = (libc::O_WRONLY | libc::O_TRUNC) as u32;
    for (who, bits, left) in [
        (ROOT, 0o6777, 0o6777),
        (OTHER, 0o6777, 0o777),
        (OTHER, 0o6767, 0o2767),
    ] {
        share.chmod(ROOT, file, bits);
        share.files.open(by(who), file, false, flags).expect("open");
        assert_eq!(share.seen(ROOT, file).1, FILE | left, "{bits:o}");
    }
}
