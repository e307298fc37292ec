//! Which calls change which times, and times that are set.

use crate::calls::*;

type Times = ((i64, i64), (i64, i64), (i64, i64));

/// Of the last access, change of contents, change of anything.
fn times(name: &str) -> Result<Times, String> {
    let data = data(name)?;
    Ok((
        (data.st_atime, data.st_atime_nsec),
        (data.st_mtime, data.st_mtime_nsec),
        (data.st_ctime, data.st_ctime_nsec),
    ))
}

/// Long enough for a coarse clock to move on.
fn wait() {
    std::thread::sleep(std::time::Duration::from_millis(30));
}

pub fn all(cases: &mut Cases) {
    for (what, access, change) in [
        ("the epoch", (0, 0), (0, 0)),
        (
            "to the nanosecond",
            (1_000_000_000, 123_456_789),
            (1_234_567_890, 987_654_321),
        ),
        ("after 2038", (2_147_483_648, 1), (4_000_000_000, 2)),
        ("before the epoch", (-1, 0), (-1_000_000, 0)),
    ] {
        for kind in ["file", "folder", "link"] {
            cases.case(&format!("utimensat: {what}, a {kind}"), || {
                well(&[match kind {
                    "file" => file("it", 0o644),
                    "folder" => mkdir("it", 0o755),
                    _ => symlink("nowhere", "it"),
                }])?;
                well(&[utimes("it", access, change, libc::AT_SYMLINK_NOFOLLOW)])?;
                let (accessed, changed, _) = times("it")?;
                is((accessed, changed), (access, change))
            });
        }
    }
    cases.case("utimensat: one is left as it is", || {
        well(&[file("it", 0o644), utimes("it", (5, 5), (6, 6), 0)])?;
        well(&[utimes("it", (7, 7), OMIT, 0)])?;
        is(times("it")?.1, (6, 6))?;
        well(&[utimes("it", OMIT, (8, 8), 0)])?;
        is((times("it")?.0, times("it")?.1), ((7, 7), (8, 8)))
    });
    cases.ends("utimensat: nanoseconds that are none", libc::EINVAL, || {
        file("it", 0o644);
        utimes("it", (0, 1_000_000_000), NOW, 0)
    });

    let change: [Named; 6] = [
        ("chmod", || chmod("it", 0o600)),
        ("chmod to what the disk does not hold", || {
            chmod("it", 0o4111)
        }),
        ("chown", || chown("it", ANN, ANN)),
        ("link", || link("it", "other")),
        ("utimensat", || utimes("it", (1, 1), (1, 1), 0)),
        ("truncate", || truncate("it", 100)),
    ];
    for (name, call) in change {
        cases.case(&format!("{name} moves the time of change"), || {
            well(&[file("it", 0o644)])?;
            let before = times("it")?;
            wait();
            well(&[call()])?;
            let after = times("it")?;
            is(after.2 > before.2, true)?;
            let contents = matches!(name, "truncate" | "utimensat");
            is(after.1 != before.1, contents)
        });
        cases.case(&format!("{name} that is refused moves no time"), || {
            well(&[file("it", 0o644), chmod(".", 0o755)])?;
            let before = times("it")?;
            wait();
            is(by(BEN, call) != 0, true)?;
            is(times("it")?, before)
        });
    }
    let folders: [Named; 9] = [
        ("a file made", || file("in/new", 0o644)),
        ("a folder made", || mkdir("in/new", 0o755)),
        ("a FIFO made", || mkfifo("in/new", 0o644)),
        ("a device made", || {
            mknod("in/new", libc::S_IFCHR | 0o600, libc::makedev(1, 3))
        }),
        ("a link made", || symlink("x", "in/new")),
        ("another name made", || link("in/old", "in/new")),
        ("a file removed", || unlink("in/old")),
        ("a file renamed", || rename("in/old", "in/new")),
        ("a file moved away", || rename("in/old", "out")),
    ];
    for (name, call) in folders {
        cases.case(&format!("{name} moves the folder's times"), || {
            well(&[mkdir("in", 0o755), file("in/old", 0o644)])?;
            let before = times("in")?;
            wait();
            well(&[call()])?;
            let after = times("in")?;
            is((after.1 > before.1, after.2 > before.2), (true, true))
        });
    }
    cases.case("a write moves the times of contents and change", || {
        well(&[file("it", 0o644)])?;
        let before = times("it")?;
        wait();
        let fd = opened("it", libc::O_WRONLY, 0).map_err(|code| code.to_string())?;
        well(&[write(&fd, b"x")])?;
        drop(fd);
        let after = times("it")?;
        is((after.1 > before.1, after.2 > before.2), (true, true))
    });
    cases.case("a new file's times are now", || {
        let began = std::time::SystemTime::now() - std::time::Duration::from_millis(50);
        well(&[file("it", 0o644)])?;
        let made = std::fs::metadata("it").and_then(|data| data.modified());
        is(made.map_err(|error| error.to_string())? >= began, true)
    });
}
