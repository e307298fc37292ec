//! Names, links and listings.

use crate::calls::*;

pub fn all(cases: &mut Cases) {
    cases.case("link: the count of names", || {
        well(&[file("a", 0o644), link("a", "b"), link("b", "c")])?;
        is(data("a")?.st_nlink, 3)?;
        well(&[unlink("a")])?;
        is(
            (data("b")?.st_nlink, data("b")?.st_ino),
            (2, data("c")?.st_ino),
        )
    });
    for kind in ["file", "fifo", "link"] {
        cases.case(&format!("link: a {kind}"), || {
            well(&[match kind {
                "file" => file("a", 0o644),
                "fifo" => mkfifo("a", 0o644),
                _ => symlink("nowhere", "a"),
            }])?;
            well(&[link("a", "b")])?;
            let (a, b) = (data("a")?, data("b")?);
            is((a.st_ino, a.st_mode, 2), (b.st_ino, b.st_mode, b.st_nlink))
        });
    }
    cases.case("mkdir: the count of names", || {
        well(&[mkdir("a", 0o755)])?;
        let before = data("a")?.st_nlink;
        well(&[mkdir("a/b", 0o755), mkdir("a/c", 0o755)])?;
        is((before, data("a")?.st_nlink), (2, 4))?;
        well(&[rmdir("a/b")])?;
        is(data("a")?.st_nlink, 3)
    });
    cases.case("rename: a folder from one to another", || {
        well(&[mkdir("a", 0o755), mkdir("b", 0o755), mkdir("a/it", 0o755)])?;
        well(&[rename("a/it", "b/it")])?;
        is((data("a")?.st_nlink, data("b")?.st_nlink), (2, 3))?;
        is(data("b/it/..")?.st_ino, data("b")?.st_ino)
    });
    for length in [1, 59, 60, 61, 255, 4095] {
        cases.case(&format!("symlink: a target of {length} bytes"), || {
            let target = "t".repeat(length);
            well(&[symlink(&target, "link")])?;
            is(data("link")?.st_size, length as i64)?;
            let read = std::fs::read_link("link").map_err(|error| error.to_string())?;
            is(read.to_str(), Some(target.as_str()))
        });
    }
    for name in [
        "-",
        " ",
        "a b",
        "*?[",
        "\n",
        "\u{7f}",
        "ü",
        "…hidden",
        ".…",
        "~",
        "a\\b",
        "COM1",
    ] {
        cases.case(&format!("a file is named {name:?}"), || {
            well(&[file(name, 0o644)])?;
            let listed = std::fs::read_dir(".").map_err(|error| error.to_string())?;
            let names: Vec<_> = listed.flatten().map(|entry| entry.file_name()).collect();
            is(names, vec![name.into()])
        });
    }
    cases.case("names that are no UTF-8", || {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(b"\xff\xfe");
        std::fs::write(name, "x").map_err(|error| error.to_string())?;
        is(std::fs::read(name).ok(), Some(b"x".to_vec()))
    });
    cases.case("names that differ by case", || {
        well(&[file("Name", 0o644), file("name", 0o644)])?;
        is(data("Name")?.st_ino == data("name")?.st_ino, false)
    });
    cases.case("a listing of 1000", || {
        for number in 0..1000 {
            well(&[file(&format!("file-{number}"), 0o644)])?;
        }
        let listed = std::fs::read_dir(".").map_err(|error| error.to_string())?;
        let mut names: Vec<_> = listed.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        names.dedup();
        is(names.len(), 1000)
    });
    cases.case("a listing's types", || {
        well(&[
            file("1", 0o644),
            mkdir("2", 0o755),
            symlink("x", "3"),
            mkfifo("4", 0o644),
        ])?;
        let listed = std::fs::read_dir(".").map_err(|error| error.to_string())?;
        for entry in listed.flatten() {
            let (name, kind) = (entry.file_name(), entry.file_type());
            let kind = kind.map_err(|error| error.to_string())?;
            let right = match name.to_str() {
                Some("1") => kind.is_file(),
                Some("2") => kind.is_dir(),
                Some("3") => kind.is_symlink(),
                _ => std::os::unix::fs::FileTypeExt::is_fifo(&kind),
            };
            is((name, right), (entry.file_name(), true))?;
        }
        Ok(())
    });
    cases.case("a listing while everything is removed", || {
        for number in 0..300 {
            well(&[file(&format!("file-{number}"), 0o644)])?;
        }
        let listed = std::fs::read_dir(".").map_err(|error| error.to_string())?;
        for entry in listed.flatten() {
            std::fs::remove_file(entry.path()).map_err(|error| error.to_string())?;
        }
        let left = std::fs::read_dir(".").map_err(|error| error.to_string())?;
        is(left.count(), 0)
    });
    cases.case(
        "a folder that was removed while it is the working directory",
        || {
            well(&[mkdir("gone", 0o755)])?;
            std::env::set_current_dir("gone").map_err(|error| error.to_string())?;
            well(&[rmdir("../gone")])?;
            is(file("new", 0o644), libc::ENOENT)
        },
    );
    cases.case("a path of 60 folders", || {
        let mut path = String::from("d");
        for _ in 0..60 {
            well(&[mkdir(&path, 0o755)])?;
            path.push_str("/d");
        }
        well(&[file(&path, 0o600)])?;
        is(bits(&path)?, 0o600)
    });
}
