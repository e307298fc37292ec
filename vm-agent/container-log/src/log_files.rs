//! The set of rotated files of one log, opened consistently while the writer may rotate.
//!
//! A rotated file keeps its inode, and an inode that is open is not reused: so inodes tell which
//! files are which, whatever they are called by now.

use std::fs::{File, Metadata};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::file::rotated;
use crate::reader::{Tail, missing_is_none};

/// More rotated files than anyone configures.
const MAX_FILES: u32 = 1000;
/// Opening is tried again when a rotation came in between; each rotation takes megabytes.
const ATTEMPTS: u32 = 20;

/// All files, oldest first, positioned at the beginning of the tail.
pub(crate) fn open_all(path: &Path, tail: Tail) -> io::Result<Vec<File>> {
    let mut files = open_set(path)?;
    if let Tail::Last(count) = tail {
        skip_to_tail(&mut files, count)?;
    }
    Ok(files)
}

/// The files after the one that is open as `current`, oldest first. If it has been deleted, the
/// lines between are gone and reading goes on with the oldest there is.
pub(crate) fn open_newer(path: &Path, current: Option<Metadata>) -> io::Result<Vec<File>> {
    let Some(current) = current else {
        return open_set(path);
    };
    if missing_is_none(path.metadata())?.is_none_or(|newest| same(&newest, &current)) {
        return Ok(Vec::new());
    }
    let mut files = open_set(path)?;
    let mut known = None;
    for (index, file) in files.iter().enumerate() {
        if same(&file.metadata()?, &current) {
            known = Some(index);
        }
    }
    files.drain(..known.map_or(0, |index| index + 1));
    Ok(files)
}

fn same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

fn open_set(path: &Path) -> io::Result<Vec<File>> {
    for _ in 0..ATTEMPTS {
        let mut files = Vec::new();
        for index in 0..MAX_FILES {
            match missing_is_none(File::open(rotated(path, index)))? {
                Some(file) => files.push(file),
                // The current file is missing for a moment while the writer rotates.
                None if index == 0 => {}
                None => break,
            }
        }
        // The newest is unchanged: no rotation came in between.
        let newest = missing_is_none(path.metadata())?;
        let unchanged = match (&newest, files.first()) {
            (Some(newest), Some(file)) => same(newest, &file.metadata()?),
            (None, None) => true,
            _ => false,
        };
        if unchanged {
            files.reverse();
            return Ok(files);
        }
    }
    Err(io::Error::other(
        "the log rotates faster than it can be opened",
    ))
}

/// Drops and positions the files so that `count` records are left.
fn skip_to_tail(files: &mut Vec<File>, mut count: u64) -> io::Result<()> {
    for index in (0..files.len()).rev() {
        let (start, found) = tail_start(&files[index], count)?;
        if found >= count {
            files[index].seek(SeekFrom::Start(start))?;
            files.drain(..index);
            return Ok(());
        }
        count -= found;
    }
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
        }
        let mut out = String::new();
        for mut file in open_all(&path, Tail::Last(count)).unwrap() {
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
}
