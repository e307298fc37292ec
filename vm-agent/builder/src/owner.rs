//! `--chown=user[:group]`: numbers, or names of the image's own passwd and group files.

use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::root::Root;

/// More than any passwd file that means well.
const LIMIT: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

pub fn look_up(text: &str, root: &Root) -> Result<Owner> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, group),
        None => (text, text),
    };
    let bad = |what: &str, name: &str| {
        Error::instruction(format!(
            "unable to convert uid/gid chown string to host mapping: can't find {what} for {what} {name}: no such {what}: {name}"
        ))
    };
    let uid = match user.parse() {
        Ok(uid) => uid,
        Err(_) => field(&read(root, "etc/passwd"), user).ok_or_else(|| bad("uid", user))?,
    };
    let gid = match group.parse() {
        Ok(gid) => gid,
        Err(_) => field(&read(root, "etc/group"), group).ok_or_else(|| bad("gid", group))?,
    };
    Ok(Owner { uid, gid })
}

fn read(root: &Root, path: &str) -> String {
    let mut text = Vec::new();
    if let Ok(place) = root.place(Path::new(path), true)
        && place.meta.is_file()
        && let Ok(file) = place.read()
    {
        let _ = file.take(LIMIT).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The third field of the line of `name`.
fn field(text: &str, name: &str) -> Option<u32> {
    let mut lines = text.lines().map(|line| line.split(':'));
    let mut line = lines.find(|line| line.clone().next() == Some(name))?;
    line.nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        std::fs::write(
            folder.path().join("etc/passwd"),
            "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:\n",
        )
        .unwrap();
        std::fs::write(folder.path().join("etc/group"), "web:x:44:\n").unwrap();
        let root = Root::open(folder.path()).unwrap();
        for (text, uid, gid) in [
            ("web", 33, 44),
            ("1:2", 1, 2),
            ("7", 7, 7),
            ("web:5", 33, 5),
        ] {
            assert_eq!(look_up(text, &root).unwrap(), Owner { uid, gid }, "{text}");
        }
        assert!(look_up("nobody", &root).is_err());
    }
}
