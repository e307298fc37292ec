//! The record of a file's owner: whoever may write the file may write the record.

use longshore_file_share::ownership::record::{LONGEST, Record};

/// The mode on disk (4 bytes), then the record.
pub fn run(input: &[u8]) -> usize {
    let Some((mode, value)) = input.split_first_chunk() else {
        return 0;
    };
    let mode = u32::from_le_bytes(*mode);
    let Some(record) = Record::parse(value, mode) else {
        return 0;
    };
    assert_eq!(record.to_string().as_bytes(), value, "two ways to write it");
    assert!(value.len() <= LONGEST, "longer than is ever read");
    let seen = record.seen(mode);
    assert_eq!(seen & libc::S_IFMT, record.mode & libc::S_IFMT);
    // The host's user keeps the use of the file, and nobody gets it by these bits.
    let on_disk = record.on_disk();
    assert_eq!(on_disk & 0o600, 0o600);
    assert_eq!(on_disk & !0o777, 0);
    record.is_needed(mode);
    1
}
