//! Each call on paths that lead nowhere, and on what is of the wrong kind.

use libc::{
    EACCES, EBUSY, EEXIST, EFBIG, EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY,
    ENXIO, EPERM,
};

use crate::calls::*;

type Call = (&'static str, fn(&str) -> Code);

/// Calls on something that is there.
const ON_WHAT_IS: [Call; 12] = [
    ("chmod", |path| chmod(path, 0o644)),
    ("chown", |path| chown(path, 0, 0)),
    ("lchown", |path| lchown(path, 0, 0)),
    ("open", |path| open(path, libc::O_RDONLY)),
    ("truncate", |path| truncate(path, 1)),
    ("unlink", unlink),
    ("rmdir", rmdir),
    ("stat", stat),
    ("access", |path| access(path, libc::R_OK)),
    ("utimensat", |path| utimes(path, NOW, NOW, 0)),
    ("link from", |path| link(path, "fresh")),
    ("rename from", |path| rename(path, "fresh")),
];

/// Calls that make something, with a file named `source` at hand.
const THAT_MAKE: [Call; 7] = [
    ("mkdir", |path| mkdir(path, 0o755)),
    ("mkfifo", |path| mkfifo(path, 0o644)),
    ("mknod", |path| mknod(path, libc::S_IFREG | 0o644, 0)),
    ("open O_CREAT|O_EXCL", |path| {
        open(path, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY)
    }),
    ("symlink", |path| symlink("anywhere", path)),
    ("link to", |path| link("source", path)),
    ("rename to", |path| rename("source", path)),
];

pub fn all(cases: &mut Cases) {
    for (name, call) in ON_WHAT_IS.into_iter().chain(THAT_MAKE) {
        paths(cases, name, call);
    }
    for (name, call) in ON_WHAT_IS {
        cases.ends(&format!("{name}: nothing there"), ENOENT, || call("none"));
    }
    for (name, call) in THAT_MAKE {
        makers(cases, name, call);
    }
    kinds(cases);
    renames(cases);
}

/// Where a path leads nowhere, whatever is done there.
fn paths(cases: &mut Cases, name: &str, call: fn(&str) -> Code) {
    let mut ends = |what: &str, wanted, path: &str| {
        cases.case(&format!("{name}: {what}"), || {
            well(&[
                file("source", 0o644),
                file("file", 0o644),
                symlink("loop-b", "loop-a"),
                symlink("loop-a", "loop-b"),
                mkdir("closed", 0o700),
            ])?;
            let user = if wanted == EACCES { ANN } else { 0 };
            chmod(".", 0o777);
            is(by(user, || call(path)), wanted)
        });
    };
    ends("a name of 256 bytes", ENAMETOOLONG, &"n".repeat(256));
    ends("a path of 4096 bytes", ENAMETOOLONG, &"./".repeat(2048));
    ends("a folder on the way is not there", ENOENT, "none/any");
    ends("a file on the way", ENOTDIR, "file/any");
    ends("links in a circle", ELOOP, "loop-a/any");
    ends(
        "a folder on the way may not be searched",
        EACCES,
        "closed/any",
    );
    ends("an empty path", ENOENT, "");
}

fn makers(cases: &mut Cases, name: &str, call: fn(&str) -> Code) {
    let replaces = name == "rename to";
    for kind in ["file", "folder", "fifo", "link", "dangling link"] {
        let wanted = match (replaces, kind) {
            (true, "folder") => EISDIR,
            (true, _) => 0,
            _ => EEXIST,
        };
        cases.case(&format!("{name}: a {kind} is there"), || {
            let made = match kind {
                "file" => file("there", 0o644),
                "folder" => mkdir("there", 0o755),
                "fifo" => mkfifo("there", 0o644),
                "link" => symlink("source", "there"),
                _ => symlink("nowhere", "there"),
            };
            well(&[file("source", 0o644), made])?;
            is(call("there"), wanted)
        });
    }
    cases.case(&format!("{name}: a name of 255 bytes"), || {
        well(&[file("source", 0o644)])?;
        let longest = "n".repeat(255);
        is(call(&longest), 0)?;
        data(&longest).map(drop)
    });
    cases.case(&format!("{name}: in a folder that is another's"), || {
        well(&[
            file("source", 0o666),
            chown("source", ANN, ANN),
            mkdir("shut", 0o755),
        ])?;
        is(by(ANN, || call("shut/new")), EACCES)
    });
    cases.case(&format!("{name}: in a folder of the user's own"), || {
        well(&[mkdir("own", 0o700), chown("own", ANN, ANN)])?;
        std::env::set_current_dir("own").map_err(|error| error.to_string())?;
        well(&[by(ANN, || file("source", 0o644))])?;
        is(by(ANN, || call("new")), 0)?;
        is(owner("new")?, (ANN, ANN))
    });
}

/// What is of the wrong kind for the call.
fn kinds(cases: &mut Cases) {
    cases.ends("unlink: a folder", EISDIR, || {
        mkdir("folder", 0o755);
        unlink("folder")
    });
    cases.ends("rmdir: a file", ENOTDIR, || {
        file("file", 0o644);
        rmdir("file")
    });
    cases.ends("rmdir: a link to a folder", ENOTDIR, || {
        mkdir("folder", 0o755);
        symlink("folder", "link");
        rmdir("link")
    });
    for what in ["file", "folder", "link", "fifo"] {
        cases.ends(&format!("rmdir: a {what} is in it"), ENOTEMPTY, || {
            mkdir("full", 0o755);
            match what {
                "file" => file("full/any", 0o644),
                "folder" => mkdir("full/any", 0o755),
                "link" => symlink("x", "full/any"),
                _ => mkfifo("full/any", 0o644),
            };
            rmdir("full")
        });
    }
    cases.ends("rmdir: `.`", EINVAL, || {
        mkdir("folder", 0o755);
        rmdir("folder/.")
    });
    cases.ends("rmdir: `..`", ENOTEMPTY, || {
        mkdir("folder", 0o755);
        rmdir("folder/..")
    });
    cases.ends("link: a folder", EPERM, || {
        mkdir("folder", 0o755);
        link("folder", "other")
    });
    cases.ends("open: a folder for writing", EISDIR, || {
        mkdir("folder", 0o755);
        open("folder", libc::O_WRONLY)
    });
    cases.ends("open O_CREAT: a folder", EISDIR, || {
        mkdir("folder", 0o755);
        open("folder", libc::O_RDONLY | libc::O_CREAT)
    });
    cases.ends("open O_DIRECTORY: a file", ENOTDIR, || {
        file("file", 0o644);
        open("file", libc::O_RDONLY | libc::O_DIRECTORY)
    });
    cases.ends("open O_NOFOLLOW: a link", ELOOP, || {
        file("file", 0o644);
        symlink("file", "link");
        open("link", libc::O_RDONLY | libc::O_NOFOLLOW)
    });
    cases.ends("open: a link in a circle", ELOOP, || {
        symlink("link", "link");
        open("link", libc::O_RDONLY)
    });
    cases.ends("open: a dangling link", ENOENT, || {
        symlink("none", "link");
        open("link", libc::O_RDONLY)
    });
    cases.case("open O_CREAT: through a dangling link", || {
        well(&[
            symlink("made", "link"),
            open("link", libc::O_WRONLY | libc::O_CREAT),
        ])?;
        is(data("made")?.st_mode & libc::S_IFMT, libc::S_IFREG)
    });
    cases.ends("open O_NONBLOCK: a FIFO without a reader", ENXIO, || {
        mkfifo("fifo", 0o644);
        open("fifo", libc::O_WRONLY | libc::O_NONBLOCK)
    });
    cases.ends("open O_NONBLOCK: a FIFO for reading", 0, || {
        mkfifo("fifo", 0o644);
        open("fifo", libc::O_RDONLY | libc::O_NONBLOCK)
    });
    cases.ends("open: a socket", ENXIO, || {
        mknod("socket", libc::S_IFSOCK | 0o644, 0);
        open("socket", libc::O_RDONLY)
    });
    cases.ends("open: a device", 0, || {
        mknod("null", libc::S_IFCHR | 0o666, libc::makedev(1, 3));
        open("null", libc::O_RDONLY)
    });
    cases.ends("truncate: a folder", EISDIR, || {
        mkdir("folder", 0o755);
        truncate("folder", 0)
    });
    cases.ends("truncate: a size below nothing", EINVAL, || {
        file("file", 0o644);
        truncate("file", -1)
    });
    cases.ends("truncate: more than a file can have", EFBIG, || {
        file("file", 0o644);
        truncate("file", i64::MAX)
    });
    cases.ends("ftruncate: opened for reading", EINVAL, || {
        file("file", 0o644);
        let Ok(fd) = opened("file", libc::O_RDONLY, 0) else {
            return -1;
        };
        // SAFETY: no memory is involved.
        result(unsafe { libc::ftruncate(fd.0, 1) })
    });
    cases.ends("readlink: a file", EINVAL, || {
        file("file", 0o644);
        let read = std::fs::read_link("file");
        read.err()
            .and_then(|error| error.raw_os_error())
            .unwrap_or(0)
    });
    cases.ends("symlink: a target of 4096 bytes", ENAMETOOLONG, || {
        symlink(&"t".repeat(4096), "link")
    });
    cases.ends("symlink: an empty target", ENOENT, || symlink("", "link"));
    cases.ends(
        "access: a file that nobody may run, by root",
        EACCES,
        || {
            file("file", 0o644);
            access("file", libc::X_OK)
        },
    );
}

/// rename(2), from one kind over another.
fn renames(cases: &mut Cases) {
    let make = |kind: &str, name: &str| match kind {
        "file" => file(name, 0o644),
        "empty folder" => mkdir(name, 0o755),
        "full folder" => mkdir(name, 0o755) | file(&format!("{name}/any"), 0o644),
        "link" => symlink("nowhere", name),
        "fifo" => mkfifo(name, 0o644),
        _ => mknod(name, libc::S_IFSOCK | 0o644, 0),
    };
    let kinds = [
        "file",
        "empty folder",
        "full folder",
        "link",
        "fifo",
        "socket",
    ];
    for from in kinds {
        for to in kinds {
            let wanted = match (from.contains("folder"), to.contains("folder")) {
                (true, false) => ENOTDIR,
                (false, true) => EISDIR,
                _ if to == "full folder" => ENOTEMPTY,
                _ => 0,
            };
            cases.case(&format!("rename: {from} over {to}"), || {
                well(&[make(from, "from"), make(to, "to")])?;
                let before = data("from")?;
                is(rename("from", "to"), wanted)?;
                if wanted == 0 {
                    let after = data("to")?;
                    is(
                        (after.st_ino, after.st_mode),
                        (before.st_ino, before.st_mode),
                    )?;
                    is(data("from").is_err(), true)?;
                }
                Ok(())
            });
        }
    }
    cases.ends("rename: a folder into itself", EINVAL, || {
        mkdir("folder", 0o755);
        rename("folder", "folder/below")
    });
    cases.ends("rename: `.`", EBUSY, || {
        mkdir("folder", 0o755);
        rename("folder/.", "other")
    });
    cases.case("rename: two names of one file stay", || {
        well(&[file("a", 0o644), link("a", "b"), rename("a", "b")])?;
        is((data("a")?.st_nlink, data("b")?.st_nlink), (2, 2))
    });
    cases.ends("renameat2 NOREPLACE: something is there", EEXIST, || {
        file("a", 0o644);
        file("b", 0o644);
        rename_with("a", "b", libc::RENAME_NOREPLACE)
    });
    cases.ends("renameat2 NOREPLACE: nothing is there", 0, || {
        file("a", 0o644);
        rename_with("a", "b", libc::RENAME_NOREPLACE)
    });
    cases.case("renameat2 EXCHANGE: a file and a folder", || {
        well(&[file("a", 0o644), mkdir("b", 0o755)])?;
        well(&[rename_with("a", "b", libc::RENAME_EXCHANGE)])?;
        is(data("a")?.st_mode & libc::S_IFMT, libc::S_IFDIR)
    });
    cases.ends("renameat2 EXCHANGE: nothing is there", ENOENT, || {
        file("a", 0o644);
        rename_with("a", "b", libc::RENAME_EXCHANGE)
    });
}
