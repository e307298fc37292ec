//! Who may do what: permission bits by class, owners' rights, sticky folders, and the bits above the permissions.

use libc::{EACCES, EPERM};

use crate::calls::*;

/// A group that neither has of itself.
const TEAM: u32 = 1100;

pub fn all(cases: &mut Cases) {
    classes(cases);
    modes(cases);
    owners(cases);
    sticky(cases);
    set_bits(cases);
    nodes(cases);
}

/// Each class by each set of its three bits: reading, writing, and searching where it is a folder.
fn classes(cases: &mut Cases) {
    for (class, shift, user, group) in [
        ("the owner", 6, ANN, ANN),
        ("the group", 3, BEN, TEAM),
        ("others", 0, BEN, BEN),
    ] {
        for granted in 0..8 {
            // The other classes may all that this one may not: only one of them counts.
            let mode = (0o777 & !(7 << shift)) | (granted << shift);
            let may = |bit| if granted & bit != 0 { 0 } else { EACCES };
            let all = move |bits| if granted & bits == bits { 0 } else { EACCES };
            let name = format!("mode {mode:03o} for {class}");
            cases.case(&format!("{name}: a file"), || {
                well(&[
                    file("file", 0o644),
                    chown("file", ANN, TEAM),
                    chmod("file", mode),
                ])?;
                let as_user = |call: fn() -> Code| by_member(user, group, call);
                is(as_user(|| open("file", libc::O_RDONLY)), may(4))?;
                is(as_user(|| open("file", libc::O_WRONLY)), may(2))?;
                is(as_user(|| open("file", libc::O_RDWR)), all(6))?;
                is(as_user(|| truncate("file", 1)), may(2))?;
                is(as_user(|| access("file", libc::X_OK)), may(1))?;
                // Root may all but run what nobody may.
                well(&[
                    open("file", libc::O_RDWR),
                    access("file", libc::R_OK | libc::W_OK),
                ])
            });
            cases.case(&format!("{name}: a folder"), || {
                well(&[mkdir("folder", 0o755), file("folder/file", 0o666)])?;
                well(&[chown("folder", ANN, TEAM), chmod("folder", mode)])?;
                let as_user = |call: fn() -> Code| by_member(user, group, call);
                let list = || open("folder", libc::O_RDONLY | libc::O_DIRECTORY);
                is(as_user(list), may(4))?;
                is(as_user(|| stat("folder/file")), may(1))?;
                is(as_user(|| open("folder/file", libc::O_RDONLY)), may(1))?;
                is(as_user(|| file("folder/new", 0o644)), all(3))?;
                is(as_user(|| rename("folder/file", "folder/other")), all(3))?;
                well(&[file("folder/by-root", 0o600), unlink("folder/by-root")])
            });
        }
    }
}

fn modes(cases: &mut Cases) {
    for mode in [
        0, 0o1, 0o10, 0o100, 0o111, 0o200, 0o222, 0o400, 0o444, 0o555, 0o600, 0o640, 0o644, 0o666,
        0o700, 0o755, 0o777, 0o1644, 0o1777, 0o2755, 0o4755, 0o6755, 0o7777, 0o4000, 0o2000,
    ] {
        cases.case(&format!("chmod {mode:04o}: a file"), || {
            well(&[file("file", 0o644), chmod("file", mode)])?;
            is(bits("file")?, mode)?;
            is(std::fs::read("file").ok(), Some(b"line\n".to_vec()))?;
            well(&[open("file", libc::O_RDWR), chmod("file", 0o644)])?;
            is(bits("file")?, 0o644)
        });
        cases.case(&format!("chmod {mode:04o}: a folder"), || {
            well(&[mkdir("folder", 0o755), chmod("folder", mode)])?;
            is(bits("folder")?, mode)?;
            well(&[file("folder/any", 0o644), unlink("folder/any")])
        });
        let made = mode & 0o1777;
        cases.case(
            &format!("made with {made:04o} of mode {mode:04o}, umask 027"),
            || {
                umask(0o027);
                well(&[
                    file("file", mode & 0o777),
                    mkdir("folder", made),
                    mkfifo("fifo", mode & 0o777),
                    mknod("node", libc::S_IFREG | mode & 0o777, 0),
                ])?;
                for (name, wanted) in [
                    ("file", mode & 0o750),
                    ("folder", made & 0o1750),
                    ("fifo", mode & 0o750),
                    ("node", mode & 0o750),
                ] {
                    is((name, bits(name)?), (name, wanted))?;
                }
                Ok(())
            },
        );
    }
    cases.case("chmod: by another name of the file", || {
        well(&[file("a", 0o644), link("a", "b"), chmod("b", 0o4711)])?;
        is((bits("a")?, data("a")?.st_ino), (0o4711, data("b")?.st_ino))
    });
    cases.case("chmod: through a link", || {
        well(&[
            file("file", 0o644),
            symlink("file", "link"),
            chmod("link", 0o600),
        ])?;
        is(bits("file")?, 0o600)
    });
    cases.case(
        "fchmod and fchown: a file that has no name any more",
        || {
            well(&[file("file", 0o644)])?;
            let fd = opened("file", libc::O_RDWR, 0).map_err(|code| code.to_string())?;
            well(&[unlink("file")])?;
            // SAFETY: no memory is involved.
            well(&[result(unsafe { libc::fchmod(fd.0, 0o4710) })])?;
            // SAFETY: no memory is involved.
            well(&[result(unsafe { libc::fchown(fd.0, ANN, TEAM) })])?;
            let data = data_of(&fd)?;
            is((data.st_uid, data.st_gid, data.st_nlink), (ANN, TEAM, 0))?;
            is(data.st_mode & 0o777, 0o710)
        },
    );
}

fn owners(cases: &mut Cases) {
    for (kind, make) in KINDS {
        cases.case(&format!("chown: a {kind}"), || {
            well(&[make("it"), lchown("it", ANN, TEAM)])?;
            is(owner("it")?, (ANN, TEAM))?;
            well(&[lchown("it", u32::MAX, BEN)])?;
            is(owner("it")?, (ANN, BEN))?;
            well(&[rename("it", "moved")])?;
            is(owner("moved")?, (ANN, BEN))
        });
        cases.case(&format!("made by a user: a {kind}"), || {
            well(&[chmod(".", 0o777)])?;
            let made = by(ANN, || make("it"));
            if kind.ends_with("device") {
                return is(made, EPERM);
            }
            is(made, 0)?;
            is(owner("it")?, (ANN, ANN))
        });
    }
    let change: [Ending; 9] = [
        ("chmod", || chmod("file", 0o600), EPERM),
        ("chown to self", || chown("file", BEN, u32::MAX), EPERM),
        ("chown of the group", || chown("file", u32::MAX, BEN), EPERM),
        ("utimensat now", || utimes("file", NOW, NOW, 0), EACCES),
        (
            "utimensat then",
            || utimes("file", (1, 1), (1, 1), 0),
            EPERM,
        ),
        ("utimensat neither", || utimes("file", OMIT, OMIT, 0), 0),
        ("truncate", || truncate("file", 0), EACCES),
        (
            "open O_TRUNC",
            || open("file", libc::O_RDONLY | libc::O_TRUNC),
            EACCES,
        ),
        ("open for writing", || open("file", libc::O_WRONLY), EACCES),
    ];
    for (name, call, wanted) in change {
        cases.case(&format!("{name}: another's file"), || {
            well(&[file("file", 0o644), chown("file", ANN, ANN)])?;
            is(by(BEN, call), wanted)?;
            is(owner("file")?, (ANN, ANN))
        });
    }
    let own: [Ending; 7] = [
        ("chmod", || chmod("file", 0o600), 0),
        ("chown to itself", || chown("file", ANN, ANN), 0),
        ("chown to another", || chown("file", BEN, u32::MAX), EPERM),
        (
            "chown to another group",
            || chown("file", u32::MAX, TEAM),
            EPERM,
        ),
        ("utimensat now", || utimes("file", NOW, NOW, 0), 0),
        ("utimensat then", || utimes("file", (1, 1), (1, 1), 0), 0),
        ("truncate", || truncate("file", 0), 0),
    ];
    for (name, call, wanted) in own {
        cases.case(&format!("{name}: one's own file"), || {
            well(&[file("file", 0o644), chown("file", ANN, ANN)])?;
            is(by(ANN, call), wanted)
        });
    }
    cases.ends(
        "chown: of one's own file to a group that one is in",
        0,
        || {
            file("file", 0o644);
            chown("file", ANN, ANN);
            by_member(ANN, TEAM, || chown("file", u32::MAX, TEAM))
        },
    );
    cases.ends(
        "utimensat now: another's file that one may write",
        0,
        || {
            file("file", 0o666);
            chown("file", ANN, ANN);
            by(BEN, || utimes("file", NOW, NOW, 0))
        },
    );
    cases.ends(
        "utimensat then: another's file that one may write",
        EPERM,
        || {
            file("file", 0o666);
            chown("file", ANN, ANN);
            by(BEN, || utimes("file", (1, 1), (1, 1), 0))
        },
    );
}

type Make = fn(&str) -> Code;

const KINDS: [(&str, Make); 7] = [
    ("file", |name| file(name, 0o644)),
    ("folder", |name| mkdir(name, 0o755)),
    ("fifo", |name| mkfifo(name, 0o644)),
    ("socket", |name| mknod(name, libc::S_IFSOCK | 0o644, 0)),
    ("link", |name| symlink("nowhere", name)),
    ("character device", |name| {
        mknod(name, libc::S_IFCHR | 0o644, libc::makedev(1, 3))
    }),
    ("block device", |name| {
        mknod(name, libc::S_IFBLK | 0o644, libc::makedev(7, 300))
    }),
];

/// Folders in which only a file's owner, the folder's and root remove and rename.
fn sticky(cases: &mut Cases) {
    for (kind, make) in KINDS {
        for (who, user, wanted) in [
            ("its owner", ANN, 0),
            ("another", BEN, EPERM),
            ("the folder's owner", 1003, 0),
            ("root", 0, 0),
        ] {
            let prepare = move || {
                well(&[mkdir("sticky", 0o1777), chown("sticky", 1003, 1003)])?;
                well(&[chmod("sticky", 0o1777), make("sticky/it")])?;
                well(&[lchown("sticky/it", ANN, ANN)])
            };
            let remove = if kind == "folder" { rmdir } else { unlink };
            cases.case(&format!("sticky folder: {who} removes a {kind}"), || {
                prepare()?;
                is(by(user, || remove("sticky/it")), wanted)
            });
            cases.case(&format!("sticky folder: {who} renames a {kind}"), || {
                prepare()?;
                is(by(user, || rename("sticky/it", "sticky/other")), wanted)
            });
        }
    }
    cases.ends(
        "sticky folder: another's file is renamed over",
        EPERM,
        || {
            mkdir("sticky", 0o1777);
            file("sticky/theirs", 0o666);
            chown("sticky/theirs", ANN, ANN);
            by(BEN, || {
                file("sticky/mine", 0o666);
                rename("sticky/mine", "sticky/theirs")
            })
        },
    );
}

/// Set-user-ID and set-group-ID.
fn set_bits(cases: &mut Cases) {
    let drops: [Named; 5] = [
        ("another writes", || by(BEN, append)),
        ("another truncates", || by(BEN, || truncate("file", 1))),
        ("another opens it with O_TRUNC", || {
            by(BEN, || open("file", libc::O_WRONLY | libc::O_TRUNC))
        }),
        ("its owner writes", || by(ANN, append)),
        ("root changes its owner", || chown("file", BEN, BEN)),
    ];
    for (name, call) in drops {
        cases.case(&format!("set-user-ID goes when {name}"), || {
            well(&[
                file("file", 0o644),
                chown("file", ANN, ANN),
                chmod("file", 0o6777),
            ])?;
            is(call(), 0)?;
            is(bits("file")?, 0o777)
        });
    }
    cases.case("set-user-ID stays when root writes", || {
        well(&[
            file("file", 0o644),
            chown("file", ANN, ANN),
            chmod("file", 0o4777),
            append(),
        ])?;
        is(bits("file")?, 0o4777)
    });
    cases.case(
        "set-group-ID goes when one who is not in the group changes the mode",
        || {
            well(&[file("file", 0o644), chown("file", ANN, TEAM)])?;
            is(by(ANN, || chmod("file", 0o2755)), 0)?;
            is(bits("file")?, 0o755)
        },
    );
    cases.case(
        "set-group-ID stays when one who is in the group changes the mode",
        || {
            well(&[file("file", 0o644), chown("file", ANN, TEAM)])?;
            is(by_member(ANN, TEAM, || chmod("file", 0o2755)), 0)?;
            is(bits("file")?, 0o2755)
        },
    );
    for (kind, make) in KINDS {
        cases.case(&format!("in a set-group-ID folder: a {kind}"), || {
            well(&[
                mkdir("team", 0o777),
                chown("team", 0, TEAM),
                chmod("team", 0o2777),
            ])?;
            well(&[make("team/it")])?;
            is(owner("team/it")?, (0, TEAM))?;
            let inherits = if kind == "folder" { 0o2000 } else { 0 };
            is(bits("team/it")? & 0o7000, inherits)
        });
    }
    cases.case("a set-user-ID program runs as its owner", || {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        std::fs::copy(own, "who").map_err(|error| error.to_string())?;
        well(&[chown("who", ANN, ANN), chmod("who", 0o4755)])?;
        let status = std::process::Command::new("./who").arg("--who").status();
        let code = status.map_err(|error| error.to_string())?.code();
        is(code, Some((ANN & 0xff) as i32))
    });
}

fn append() -> Code {
    match opened("file", libc::O_WRONLY | libc::O_APPEND, 0) {
        Ok(fd) => write(&fd, b"more\n"),
        Err(code) => code,
    }
}

/// Devices, FIFOs and sockets are what they were made.
fn nodes(cases: &mut Cases) {
    for (name, kind, major, minor) in [
        ("null", libc::S_IFCHR, 1, 3),
        ("a large number", libc::S_IFCHR, 4095, 1_048_575),
        ("a disk", libc::S_IFBLK, 7, 0),
        ("a whiteout", libc::S_IFCHR, 0, 0),
        ("FIFO", libc::S_IFIFO, 0, 0),
        ("socket", libc::S_IFSOCK, 0, 0),
    ] {
        cases.case(&format!("mknod: {name}"), || {
            well(&[mknod("it", kind | 0o640, libc::makedev(major, minor))])?;
            let data = data("it")?;
            is(data.st_mode, kind | 0o640)?;
            is((data.st_size, data.st_nlink), (0, 1))?;
            is(
                (libc::major(data.st_rdev), libc::minor(data.st_rdev)),
                (major, minor),
            )?;
            well(&[
                link("it", "again"),
                chmod("it", 0o4600),
                chown("again", ANN, TEAM),
            ])?;
            is(
                (bits("again")?, owner("it")?),
                (0o600 | bits("it")? & 0o7000, (ANN, TEAM)),
            )?;
            let listed = std::fs::read_dir(".").map_err(|error| error.to_string())?;
            for entry in listed.flatten() {
                let is_file = entry
                    .file_type()
                    .map_err(|error| error.to_string())?
                    .is_file();
                is((entry.file_name(), is_file), (entry.file_name(), false))?;
            }
            Ok(())
        });
    }
}
