//! The set of rotated files of one log, opened consistently while the writer may rotate.
//!
//! A rotated file keeps its inode, and an inode that is open is not reused: so inodes tell which
//! files are which, whatever they are called by now. A packed one tells the inode that it had.

use std::fs::{File, Metadata};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::file::rotated;
use crate::packed;
use crate::reader::{Tail, missing_is_none};

/// More rotated files than anyone configures.
const MAX_FILES: u32 = 1000;

/// Opening is tried again when a rotation came in between; each rotation takes megabytes, but for tests.
const ATTEMPTS: u32 = 500;

/// How many names in a row may be missing before the end. A rotation moves one file after the other, oldest first: the name that
/// it has come to is missing. So is one where a writer was killed while it rotated.
const MISSING: u32 = 2;

/// One of the files; packed ones are unpacked when their turn comes.
#[derive(Debug)]
pub(crate) enum LogPart {
    Plain(File),
    Packed(File),
}

impl LogPart {
    /// The file to be read.
    pub(crate) fn into_plain(self, folder: &Path) -> io::Result<File> {
        match self {
            LogPart::Plain(file) => Ok(file),
            LogPart::Packed(file) => packed::unpack(&file, folder),
        }
    }

    pub(crate) fn try_clone(&self) -> io::Result<LogPart> {
        Ok(match self {
            LogPart::Plain(file) => LogPart::Plain(file.try_clone()?),
            LogPart::Packed(file) => LogPart::Packed(file.try_clone()?),
        })
    }

    /// Of the file, or of the one that was packed.
    fn inode(&self) -> io::Result<Option<u64>> {
        Ok(match self {
            LogPart::Plain(file) => Some(file.metadata()?.ino()),
            LogPart::Packed(file) => packed::origin(file),
        })
    }
}

/// All files, oldest first, positioned at the beginning of the tail.
pub(crate) fn open_all(path: &Path, tail: Tail) -> io::Result<Vec<LogPart>> {
    let mut parts = open_set(path)?;
    if let Tail::Last(count) = tail {
        skip_to_tail(&mut parts, folder_of(path), count)?;
    }
    Ok(parts)
}

/// The files after the one that is open as `current`, oldest first. If it has been deleted, the
/// lines between are gone and reading goes on with the oldest there is.
pub(crate) fn open_newer(path: &Path, current: Option<Metadata>) -> io::Result<Vec<LogPart>> {
    let Some(current) = current else {
        return open_set(path);
    };
    if missing_is_none(path.metadata())?.is_none_or(|newest| same(&newest, &current)) {
        return Ok(Vec::new());
    }
    let mut parts = open_set(path)?;
    let mut known = None;
    for (index, part) in parts.iter().enumerate() {
        if part.inode()? == Some(current.ino()) {
            known = Some(index);
        }
    }
    parts.drain(..known.map_or(0, |index| index + 1));
    Ok(parts)
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Opens all, and then once more: names only ever move on to older numbers, so where every name has stayed the same, all of them
/// stood so at one moment.
fn open_set(path: &Path) -> io::Result<Vec<LogPart>> {
    let mut before = open_each(path)?;
    for _ in 0..ATTEMPTS {
        let now = open_each(path)?;
        if identities(&before)? == identities(&now)? {
            return Ok(now.into_iter().rev().map(|(_, part)| part).collect());
        }
        before = now;
    }
    Err(io::Error::other(
        "the log rotates faster than it can be opened",
    ))
}

/// What each name holds, newest first.
fn open_each(path: &Path) -> io::Result<Vec<(u32, LogPart)>> {
    let mut parts = Vec::new();
    let mut missing = 0;
    for index in 0..MAX_FILES {
        match open_part(&rotated(path, index))? {
            Some(part) => {
                parts.push((index, part));
                missing = 0;
            }
            None if missing == MISSING => break,
            None => missing += 1,
        }
    }
    Ok(parts)
}

/// Numbers and inodes.
fn identities(parts: &[(u32, LogPart)]) -> io::Result<Vec<(u32, Option<u64>)>> {
    let identity = |(index, part): &(u32, LogPart)| Ok((*index, part.inode()?));
    parts.iter().map(identity).collect()
}

/// A packed file is there before the plain one goes.
fn open_part(path: &Path) -> io::Result<Option<LogPart>> {
    if let Some(file) = missing_is_none(File::open(path))? {
        return Ok(Some(LogPart::Plain(file)));
    }
    let packed = missing_is_none(File::open(packed::name(path)))?;
    Ok(packed.map(LogPart::Packed))
}

/// Drops and positions the files so that `count` records are left.
fn skip_to_tail(parts: &mut Vec<LogPart>, folder: &Path, mut count: u64) -> io::Result<()> {
    let mut tail = Vec::new();
    while let Some(part) = parts.pop() {
        let mut file = part.into_plain(folder)?;
        let (start, found) = tail_start(&file, count)?;
        file.seek(SeekFrom::Start(start))?;
        tail.push(LogPart::Plain(file));
        count -= found;
        if count == 0 {
            break;
        }
    }
    tail.reverse();
    *parts = tail;
    Ok(())
}

/// Where the last `count` records begin, and how many there really are.
fn tail_start(file: &File, count: u64) -> io::Result<(u64, u64)> {
    let mut end = file.metadata()?.len();
    if count == 0 {
        return Ok((end, 0));
    }
    let mut buffer = vec![0; 64 << 10];
    // The last line feed ends the last record; the one before it begins that record.
    let mut feeds = 0;
    while end > 0 {
        let length = end.min(buffer.len() as u64);
        let chunk = &mut buffer[..length as usize];
        file.read_exact_at(chunk, end - length)?;
        for at in (0..chunk.len()).rev().filter(|at| chunk[*at] == b'\n') {
            feeds += 1;
            if feeds > count {
                return Ok((end - length + at as u64 + 1, count));
            }
        }
        end -= length;
    }
    Ok((0, feeds))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn read_tail(contents: &[&str], count: u64) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for (index, text) in contents.iter().rev().enumerate() {
            std::fs::write(rotated(&path, index as u32), text).unwrap();
            if index > 1 {
                packed::pack(&rotated(&path, index as u32)).unwrap();
            }
        }
        let mut out = String::new();
        for part in open_all(&path, Tail::Last(count)).unwrap() {
            let mut file = part.into_plain(dir.path()).unwrap();
            file.read_to_string(&mut out).unwrap();
        }
        out
    }

    #[test]
    fn tails() {
        let files = ["1\n2\n", "3\n", "4\n5\n"];
        for (count, expected) in [
            (0, ""),
            (1, "5\n"),
            (2, "4\n5\n"),
            (3, "3\n4\n5\n"),
            (4, "2\n3\n4\n5\n"),
            (9, "1\n2\n3\n4\n5\n"),
        ] {
            assert_eq!(read_tail(&files, count), expected, "{count}");
        }
        assert_eq!(read_tail(&[], 3), "");
    }

    #[test]
    fn nothing_is_missed_while_a_rotation_is_under_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let write = |index, text: &str| std::fs::write(rotated(&path, index), text).unwrap();
        // The writer has moved 2 to 3, and comes to 1 next; an earlier one was killed when it had moved 3 to 4.
        for (index, text) in [(5, "1\n"), (3, "2\n"), (1, "3\n"), (0, "4\n")] {
            write(index, text);
        }
        let oldest = File::open(rotated(&path, 5)).unwrap();
        let newer = open_newer(&path, Some(oldest.metadata().unwrap())).unwrap();
        let texts = newer.into_iter().map(|part| {
            let file = part.into_plain(dir.path()).unwrap();
            io::read_to_string(file).unwrap()
        });
        assert_eq!(texts.collect::<Vec<_>>(), ["2\n", "3\n", "4\n"]);
    }

    #[test]
    fn a_packed_file_is_known_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(rotated(&path, 1), "old\n").unwrap();
        let open = File::open(rotated(&path, 1)).unwrap();
        packed::pack(&rotated(&path, 1)).unwrap();
        std::fs::write(&path, "new\n").unwrap();
        let newer = open_newer(&path, Some(open.metadata().unwrap())).unwrap();
        let texts = newer.into_iter().map(|part| {
            let mut text = String::new();
            let mut file = part.into_plain(dir.path()).unwrap();
            file.read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(texts.collect::<Vec<_>>(), ["new\n"]);
    }
}
