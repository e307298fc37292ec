//! What a file is in the guest where the disk says something else: kept in the extended attribute `user.longshore.stat` of the file.
//!
//! Version 1 is ASCII, five fields with one space between them: `1 MODE UID GID RDEV`.
//!
//! | field | what it is |
//! | --- | --- |
//! | `1` | the version |
//! | `MODE` | type and permission bits as in `st_mode` (inode(7)), octal, without leading zeros |
//! | `UID`, `GID` | owner and group in the guest, decimal; both `-` where the file belongs to whoever asks |
//! | `RDEV` | a device's number as in linux/fuse.h (`new_encode_dev`), decimal; 0 where the file is no device |
//!
//! Anybody who may write the file may write the attribute. So what is not exactly as this program writes it counts as not there, and
//! all that it decides is what the guest's kernel is told.

use std::ffi::CStr;

/// The attribute's name.
pub const NAME: &CStr = c"user.longshore.stat";
/// Longest value in bytes: `1 177777 4294967294 4294967294 4294967295`.
pub const LONGEST: usize = 2 + 7 + 11 + 11 + 10;

/// Permission bits and the three bits above them.
pub const PERMISSIONS: u32 = 0o7777;
/// Set-user-ID, set-group-ID, sticky: never set on disk for the guest, where they would be the host user's.
pub const SPECIAL_BITS: u32 = 0o7000;

/// User and group in the guest.
pub type Owner = (u32, u32);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Type and permissions in the guest.
    pub mode: u32,
    /// None: whoever asks.
    pub owner: Option<Owner>,
    /// A device's number, as in linux/fuse.h.
    pub rdev: u32,
}

impl Record {
    pub fn new(mode: u32, owner: Option<Owner>) -> Self {
        Self {
            mode,
            owner,
            rdev: 0,
        }
    }

    /// The record of a file with this mode on disk; None when there is none, it is not well-formed, or not of such a file.
    pub fn parse(value: &[u8], on_disk: u32) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let fields: Vec<&str> = text.split(' ').collect();
        let ["1", mode, uid, gid, rdev] = fields[..] else {
            return None;
        };
        let owner = match (uid, gid) {
            ("-", "-") => None,
            _ => Some((uid.parse().ok()?, gid.parse().ok()?)),
        };
        let record = Self {
            mode: u32::from_str_radix(mode, 8).ok()?,
            owner,
            rdev: rdev.parse().ok()?,
        };
        // One way to write it: no signs, no leading zeros, nothing behind it.
        (record.to_string() == text && record.suits(on_disk)).then_some(record)
    }

    fn suits(&self, on_disk: u32) -> bool {
        let kind = self.kind();
        let fits = match on_disk & libc::S_IFMT {
            libc::S_IFREG => kind == libc::S_IFREG || self.is_placeholder(),
            libc::S_IFDIR => kind == libc::S_IFDIR,
            _ => false,
        };
        let device = matches!(kind, libc::S_IFCHR | libc::S_IFBLK);
        fits && self.mode == kind | self.mode & PERMISSIONS
            && (device || self.rdev == 0)
            // -1 is nobody (chown(2)).
            && self.owner.is_none_or(|(uid, gid)| uid != u32::MAX && gid != u32::MAX)
    }

    fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    /// Whether an empty file stands on disk for what the guest sees.
    pub fn is_placeholder(&self) -> bool {
        matches!(
            self.kind(),
            libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFCHR | libc::S_IFBLK
        )
    }

    /// Permissions that the file has on disk: the guest's, but the host's user keeps the use of it.
    pub fn on_disk(&self) -> u32 {
        let kept = match self.kind() {
            libc::S_IFDIR => 0o700,
            _ => 0o600,
        };
        self.mode & 0o777 | kept
    }

    /// The mode in the guest of a file that has this one on disk. Permissions that are not as they were left are the host user's
    /// own chmod: they count, and end the bits above them, as a chmod without these does.
    pub fn seen(&self, on_disk: u32) -> u32 {
        match on_disk & 0o777 == self.on_disk() {
            true => self.mode,
            false => self.kind() | on_disk & 0o777,
        }
    }

    /// Whether the disk alone would not say it.
    pub fn is_needed(&self, on_disk: u32) -> bool {
        self.owner.is_some()
            || self.is_placeholder()
            || self.mode & PERMISSIONS != on_disk & PERMISSIONS
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mode, owner, rdev } = self;
        match owner {
            Some((uid, gid)) => write!(f, "1 {mode:o} {uid} {gid} {rdev}"),
            None => write!(f, "1 {mode:o} - - {rdev}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: u32 = libc::S_IFREG | 0o644;
    const FOLDER: u32 = libc::S_IFDIR | 0o755;

    #[test]
    fn what_is_written_is_read() {
        let owner = Some((101, 4_294_967_294));
        for (record, on_disk) in [
            (Record::new(libc::S_IFREG | 0o4755, owner), FILE),
            (Record::new(libc::S_IFREG, None), FILE),
            (Record::new(libc::S_IFDIR | 0o1777, owner), FOLDER),
            (Record::new(libc::S_IFSOCK | 0o777, owner), FILE),
            (
                Record {
                    rdev: u32::MAX,
                    ..Record::new(libc::S_IFBLK | 0o660, owner)
                },
                FILE,
            ),
        ] {
            let text = record.to_string();
            assert!(text.len() <= LONGEST, "{text}");
            assert_eq!(Record::parse(text.as_bytes(), on_disk), Some(record));
        }
    }

    #[test]
    fn anything_else_counts_as_not_there() {
        for value in [
            "",
            "1",
            "2 100644 0 0 0",
            "1 100644 0 0",
            "1 100644 0 0 0 ",
            "1 100644 0 0 0\n",
            " 1 100644 0 0 0",
            "1  100644 0 0 0",
            "1 0100644 0 0 0",
            "1 100644 +1 0 0",
            "1 100644 01 0 0",
            "1 100644 -1 0 0",
            "1 100644 - 0 0",
            "1 100644 0 - 0",
            "1 100644 4294967295 0 0",
            "1 100644 0 4294967295 0",
            "1 100644 4294967296 0 0",
            "1 100644 0 0 5",
            "1 100648 0 0 0",
            "1 644 0 0 0",
            // A link, a folder, a type that is none, a bit above the mode.
            "1 120777 0 0 0",
            "1 40755 0 0 0",
            "1 170644 0 0 0",
            "1 1100644 0 0 0",
        ] {
            assert_eq!(Record::parse(value.as_bytes(), FILE), None, "{value:?}");
        }
        assert_eq!(Record::parse(b"1 100644 0 0 \xff", FILE), None);
        assert_eq!(Record::parse(b"1 20600 0 0 259", FOLDER), None);
        assert_eq!(
            Record::parse(b"1 100644 0 0 0", libc::S_IFIFO | 0o644),
            None
        );
        assert!(Record::parse(b"1 100644 0 0 0", FILE).is_some());
    }

    #[test]
    fn the_host_user_keeps_the_use_of_every_file_and_its_own_chmod_counts() {
        for (mode, on_disk) in [
            (libc::S_IFREG, 0o600),
            (libc::S_IFREG | 0o444, 0o644),
            (libc::S_IFREG | 0o4755, 0o755),
            (libc::S_IFREG | 0o111, 0o711),
            (libc::S_IFDIR | 0o555, 0o755),
            (libc::S_IFDIR | 0o3070, 0o770),
            (libc::S_IFCHR | 0o666, 0o666),
        ] {
            let record = Record::new(mode, Some((0, 0)));
            assert_eq!(record.on_disk(), on_disk, "{mode:o}");
            assert_eq!(record.seen(libc::S_IFREG | on_disk), mode, "{mode:o}");
            let other = record.seen(libc::S_IFREG | 0o640);
            assert_eq!(other, mode & libc::S_IFMT | 0o640, "{mode:o}");
        }
    }
}
