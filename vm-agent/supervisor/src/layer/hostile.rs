//! Layers made to get out of their folder, and what becomes of them.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::unpack::{settle, unpack};

/// A tar archive whose names are written as they are: the library itself refuses most of these.
#[derive(Default)]
struct Hostile {
    bytes: Vec<u8>,
}

impl Hostile {
    fn entry(mut self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        let raw = header.as_old_mut();
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        let mut builder = Builder::new(&mut self.bytes);
        builder.append(&header, content).expect("an entry");
        // `finish` would end the archive here.
        std::mem::forget(builder);
        self
    }

    fn file(self, name: &str) -> Self {
        self.entry(EntryType::Regular, name, "", b"hostile")
    }

    fn folder(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, b"")
    }

    fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target, b"")
    }

    fn archive(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }
}

/// A folder with `inside` (where layers go) beside `secret`, which no layer may see or change.
struct Scene {
    _folder: tempfile::TempDir,
    inside: PathBuf,
    secret: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (inside, secret) = (folder.path().join("inside"), folder.path().join("secret"));
        fs::create_dir(&inside).expect("inside");
        fs::create_dir(&secret).expect("secret");
        fs::write(secret.join("key"), "secret").expect("the secret");
        Self {
            _folder: folder,
            inside,
            secret,
        }
    }

    /// The name of `secret` as an archive can spell it from its root, and absolutely.
    fn spellings(&self) -> [String; 2] {
        ["../secret".into(), self.secret.display().to_string()]
    }

    #[track_caller]
    fn assert_untouched(&self) {
        let names: Vec<_> = fs::read_dir(&self.secret).expect("secret").collect();
        assert_eq!(names.len(), 1, "something was made outside");
        let key = self.secret.join("key");
        assert_eq!(fs::read_to_string(&key).expect("the secret"), "secret");
        let beside = fs::read_dir(self.inside.parent().expect("a parent")).expect("beside");
        assert_eq!(beside.count(), 2, "something was made beside");
        assert_eq!(
            fs::metadata(&key).expect("the secret").nlink(),
            1,
            "the secret was linked in"
        );
    }
}

#[test]
fn parents_and_absolute_names_end_inside() {
    let scene = Scene::new();
    for name in [
        "../escaped",
        "/escaped",
        "a/../../escaped",
        "../../../../../../escaped",
    ] {
        let _ = fs::remove_file(scene.inside.join("escaped"));
        unpack(&Hostile::default().file(name).archive()[..], &scene.inside).expect(name);
        assert!(scene.inside.join("escaped").exists(), "{name}");
        scene.assert_untouched();
    }
}

#[test]
fn a_file_behind_a_link_is_made_inside_its_root() {
    for way in 0..2 {
        let scene = Scene::new();
        let target = scene.spellings()[way].clone();
        let archive = Hostile::default()
            .symlink("way", &target)
            .file("way/planted")
            .file("way/key")
            .archive();
        // The link leads to a place inside that is not there: a folder takes its place.
        unpack(&archive[..], &scene.inside).expect(&target);
        scene.assert_untouched();
        let planted = scene.inside.join("way/planted");
        assert!(planted.symlink_metadata().expect("inside").is_file());
    }
}

#[test]
fn a_chain_of_links_through_folders_ends_inside() {
    let scene = Scene::new();
    let archive = Hostile::default()
        .folder("deep/")
        .symlink("deep/up", "..")
        .symlink("deep/upper", "up/..")
        .file("deep/upper/../secret/planted")
        .symlink("proc", "/proc/self/root")
        .file("proc/tmp/longshore-planted")
        .archive();
    // `proc` leads to itself here: an error, and nothing outside.
    unpack(&archive[..], &scene.inside).expect_err("a loop");
    scene.assert_untouched();
    assert!(!Path::new("/tmp/longshore-planted").exists());
}

#[test]
fn links_that_loop_are_an_error_or_replaced_never_an_endless_walk() {
    let scene = Scene::new();
    let archive = Hostile::default()
        .symlink("one", "two")
        .symlink("two", "one")
        .file("one/file")
        .archive();
    let _ = unpack(&archive[..], &scene.inside);
    scene.assert_untouched();
}

#[test]
fn a_hard_link_reaches_nothing_outside() {
    for way in 0..2 {
        let scene = Scene::new();
        let key = format!("{}/key", scene.spellings()[way]);
        let archive = Hostile::default().hardlink("stolen", &key).archive();
        let deferred = unpack(&archive[..], &scene.inside).expect("deferred");
        settle(&deferred, &scene.inside, &[]).expect_err("no layer has it");
        assert!(!scene.inside.join("stolen").exists());
        // Through a symbolic link, and from a layer below.
        let archive = Hostile::default()
            .symlink("way", &scene.spellings()[way])
            .hardlink("stolen", "way/key")
            .archive();
        let upper = tempfile::tempdir().expect("a folder");
        let below = Scene::new();
        unpack(&archive[..], &below.inside).expect("deferred");
        let deferred = unpack(&archive[..], upper.path()).expect("deferred");
        settle(&deferred, upper.path(), std::slice::from_ref(&below.inside)).expect_err("nowhere");
        scene.assert_untouched();
        below.assert_untouched();
    }
}

#[test]
fn attributes_are_set_on_a_link_never_through_it() {
    let scene = Scene::new();
    let before = fs::metadata(scene.secret.join("key")).expect("the secret");
    let key = format!("{}/key", scene.spellings()[1]);
    let archive = Hostile::default().symlink("link", &key).archive();
    unpack(&archive[..], &scene.inside).expect("a link");
    let after = fs::metadata(scene.secret.join("key")).expect("the secret");
    assert_eq!(
        (before.mode(), before.mtime(), before.uid()),
        (after.mode(), after.mtime(), after.uid())
    );
    // A file over a link replaces the link.
    unpack(
        &Hostile::default().file("link").archive()[..],
        &scene.inside,
    )
    .expect("a file");
    let made = scene.inside.join("link").symlink_metadata().expect("made");
    assert!(made.is_file());
    assert_eq!(made.permissions().mode() & 0o7777, 0o644);
    scene.assert_untouched();
}

#[test]
fn whiteouts_of_parents_and_of_the_root_hide_nothing_outside() {
    for name in [
        ".wh...",
        ".wh..",
        "a/.wh...",
        "../.wh.secret",
        ".wh..wh..opq",
        "../secret/.wh..wh..opq",
        ".wh.",
        ".wh..wh.aufs",
    ] {
        let scene = Scene::new();
        let _ = unpack(&Hostile::default().file(name).archive()[..], &scene.inside);
        scene.assert_untouched();
        assert!(
            scene.secret.metadata().expect("secret").is_dir(),
            "{name} hid a folder outside"
        );
    }
}

#[test]
fn a_device_that_spells_a_whiteout_is_not_made() {
    let scene = Scene::new();
    let mut header = Header::new_ustar();
    header.set_path("hidden").expect("a name");
    header.set_entry_type(EntryType::Char);
    header.set_mode(0o666);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    for minor in [0, 3] {
        header.set_device_major(minor / 3).expect("a number");
        header.set_device_minor(minor).expect("a number");
        header.set_cksum();
        let mut builder = Builder::new(Vec::new());
        builder.append(&header, &b""[..]).expect("an entry");
        let archive = builder.into_inner().expect("an archive");
        unpack(&archive[..], &scene.inside).expect("unpacked");
        let made = scene.inside.join("hidden").symlink_metadata();
        assert_eq!(
            made.is_ok_and(|made| made.file_type().is_char_device()),
            minor == 3
        );
    }
}

#[test]
fn overlayfs_attributes_of_an_archive_are_ignored() {
    let scene = Scene::new();
    let mut builder = Builder::new(Vec::new());
    builder
        .append_pax_extensions([
            ("SCHILY.xattr.trusted.overlay.opaque", &b"y"[..]),
            ("SCHILY.xattr.trusted.overlay.redirect", &b"/secret"[..]),
        ])
        .expect("attributes");
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Directory);
    header.set_size(0);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    builder
        .append_data(&mut header, "folder/", &b""[..])
        .expect("a folder");
    let archive = builder.into_inner().expect("an archive");
    unpack(&archive[..], &scene.inside).expect("unpacked");
    let folder = fs::File::open(scene.inside.join("folder")).expect("made");
    for name in [c"trusted.overlay.opaque", c"trusted.overlay.redirect"] {
        use std::os::fd::AsRawFd;
        // SAFETY: asks for the size only: no buffer is given.
        let size =
            unsafe { libc::fgetxattr(folder.as_raw_fd(), name.as_ptr(), std::ptr::null_mut(), 0) };
        assert_eq!(size, -1, "{name:?} was set");
    }
}

#[test]
fn an_archive_that_is_cut_off_is_an_error() {
    let scene = Scene::new();
    let whole = Hostile::default()
        .entry(EntryType::Regular, "file", "", &[7; 5000])
        .file("second")
        .archive();
    for length in [1, 100, 511, 513, 2000, 5600, 6000] {
        let result = unpack(&whole[..length], &scene.inside);
        assert!(result.is_err(), "cut at {length} of {}", whole.len());
    }
    unpack(&whole[..], &scene.inside).expect("the whole one");
    // Wrong sums and nonsense.
    let mut broken = whole.clone();
    broken[0] ^= 1;
    assert!(unpack(&broken[..], &scene.inside).is_err());
    assert!(unpack(&[b'x'; 4096][..], &scene.inside).is_err());
}

#[test]
fn names_longer_than_any_path_are_refused() {
    let scene = Scene::new();
    let long = format!("{}/x", "d/".repeat(3000));
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, &long, &b""[..])
        .expect("an entry");
    let archive = builder.into_inner().expect("an archive");
    let error = unpack(&archive[..], &scene.inside).expect_err("too long");
    assert!(error.to_string().contains("out of bounds"), "{error}");
    // A name whose length alone would fill the memory: refused before it is read to its end.
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let endless = std::io::repeat(b'a');
    let endless = header.as_bytes().chain(endless);
    let mut counted = Counted(endless, 0);
    unpack(&mut counted, &scene.inside).expect_err("refused");
    assert!(counted.1 < 64 << 20, "{} bytes were read", counted.1);
}

struct Counted<R>(R, u64);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1 += read as u64;
        Ok(read)
    }
}

#[test]
fn what_comes_twice_or_changes_its_kind_is_what_came_last() {
    let scene = Scene::new();
    let archive = Hostile::default()
        .folder("thing/")
        .file("thing/child")
        .symlink("thing", "/etc")
        .file("thing")
        .folder("thing/")
        .archive();
    unpack(&archive[..], &scene.inside).expect("unpacked");
    let thing = scene.inside.join("thing");
    assert!(thing.symlink_metadata().expect("made").is_dir());
    assert_eq!(fs::read_dir(thing).expect("a folder").count(), 0);
    scene.assert_untouched();
}

#[test]
fn numbers_that_an_archive_left_out_are_zero() {
    let scene = Scene::new();
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Directory);
    header.set_mode(0o750);
    header.set_size(0);
    let mut builder = Builder::new(Vec::new());
    builder
        .append_data(&mut header, "folder/", &b""[..])
        .expect("an entry");
    let archive = builder.into_inner().expect("an archive");
    unpack(&archive[..], &scene.inside).expect("unpacked");
    let made = scene.inside.join("folder").metadata().expect("made");
    assert_eq!((made.mode() & 0o7777, made.mtime()), (0o750, 0));
}
