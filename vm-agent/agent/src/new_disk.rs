//! A new file system on a blank disk, such that a power cut on the way leaves what the next boot knows as its own beginning.
//!
//! mke2fs writes its tables before the superblock that they belong to: a disk that lost power in between looks like somebody
//! else's, and must not be touched. So it works on a sparse file in memory, and that goes to the disk behind a mark.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::unistd::{Whence, lseek};

/// The label of a superblock whose file system is not there yet.
pub const UNFINISHED: &str = "longshore-new";
/// The superblock and what comes before it: written first as a mark, and last.
const HEAD: usize = 4096;
/// ext4's superblock, its magic and its label (Documentation/filesystems/ext4/super.rst).
const SUPERBLOCK: usize = 1024;
const MAGIC_AT: usize = SUPERBLOCK + 0x38;
const LABEL_AT: usize = SUPERBLOCK + 0x78;
/// What is copied at once.
const PIECE: usize = 256 * 1024;

/// Copies the file system in `made` to `disk`, in an order that holds at every moment.
pub fn put(made: &Path, disk: &Path) -> io::Result<()> {
    let made = File::open(made)?;
    let disk = File::options().write(true).open(disk)?;
    let mut head = [0; HEAD];
    head[MAGIC_AT..MAGIC_AT + 2].copy_from_slice(&0xef53_u16.to_le_bytes());
    head[LABEL_AT..LABEL_AT + UNFINISHED.len()].copy_from_slice(UNFINISHED.as_bytes());
    disk.write_all_at(&head, 0)?;
    disk.sync_all()?;
    copy_data(&made, &disk)?;
    disk.sync_all()?;
    made.read_exact_at(&mut head, 0)?;
    disk.write_all_at(&head, 0)?;
    disk.sync_all()
}

/// All but the head and the holes.
fn copy_data(made: &File, disk: &File) -> io::Result<()> {
    let size = made.metadata()?.len();
    let mut piece = vec![0; PIECE];
    let mut at = HEAD as u64;
    while at < size {
        let data = match lseek(made, at as i64, Whence::SeekData) {
            // Nothing but a hole is left.
            Err(nix::errno::Errno::ENXIO) => return Ok(()),
            found => found? as u64,
        };
        let end = lseek(made, data as i64, Whence::SeekHole)? as u64;
        at = data;
        while at < end {
            let length = PIECE.min((end - at) as usize);
            made.read_exact_at(&mut piece[..length], at)?;
            disk.write_all_at(&piece[..length], at)?;
            at += length as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_a_mark_until_all_else_is_there() {
        let folder = std::env::temp_dir().join(format!("new-disk-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (made, disk) = (folder.join("made"), folder.join("disk"));
        let file = File::create(&made).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"first", 0).unwrap();
        file.write_all_at(b"far", 48 << 20).unwrap();
        File::create(&disk).unwrap().set_len(64 << 20).unwrap();
        put(&made, &disk).unwrap();
        let disk = std::fs::read(&disk).unwrap();
        assert_eq!(disk, std::fs::read(&made).unwrap());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
