//! A VM's data disk whose every write is recorded, and the disk as it was at any moment of the record.
//!
//! QEMU's driver `blklogwrites` writes the format of Linux' dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst):
//! a sector that says how many entries follow, then for each a sector that describes it, and its data.

#![allow(dead_code)] // each test binary uses its part

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::random::Random;
use super::write_script;

const SECTOR: u64 = 512;
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
/// Durable by itself.
const FUA: u64 = 2;
const DISCARD: u64 = 4;
/// What a disk writes whole or not at all, at the most.
const PIECE: u64 = 4096;

/// Stands in for QEMU: the data disk gets a recorder in front of it.
const QEMU: &str = r#"#!/bin/bash
arguments=()
for argument in "$@"; do
  case $argument in
    if=none,id=data,*)
      argument="if=none,id=data,discard=unmap,detect-zeroes=unmap,werror=stop,rerror=stop,driver=blklogwrites,log-sector-size=512,log.driver=file,log.filename=RECORD,file.driver=file,file.discard=unmap,file.filename=${argument##*,file=}"
      ;;
  esac
  arguments+=("$argument")
done
exec qemu-system-x86_64 "${arguments[@]}"
"#;

/// Where a VM's writes go beside its disk.
pub struct Recorder {
    folder: tempfile::TempDir,
}

impl Recorder {
    pub fn new() -> Self {
        let folder = in_memory();
        let recorder = Self { folder };
        File::create(recorder.record()).expect("a record");
        let text = QEMU.replace("RECORD", recorder.record().to_str().expect("utf-8"));
        write_script(&recorder.qemu(), &text);
        recorder
    }

    /// The program that `LONGSHORE_QEMU` is to name.
    pub fn qemu(&self) -> PathBuf {
        self.folder.path().join("qemu")
    }

    fn record(&self) -> PathBuf {
        self.folder.path().join("record")
    }

    /// How far the record has come: whatever has been answered to anybody lies before.
    pub fn position(&self) -> u64 {
        let record = std::fs::metadata(self.record()).expect("the record");
        record.len()
    }

    /// All of it, once the VM has stopped.
    pub fn read(&self) -> Record {
        Record::open(&self.record())
    }
}

/// A folder that takes no disk's time.
pub fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a folder in memory")
}

/// One write, discard or flush.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Where in the record it stands.
    pub position: u64,
    /// Where on the disk, and how much: bytes.
    start: u64,
    length: u64,
    flags: u64,
}

impl Entry {
    pub fn is_flush(&self) -> bool {
        self.flags & FLUSH != 0
    }
}

pub struct Record {
    file: File,
    pub entries: Vec<Entry>,
}

impl Record {
    fn open(path: &Path) -> Self {
        let file = File::open(path).expect("the record");
        let number = |at: u64| {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, at).expect("a number");
            u64::from_le_bytes(bytes)
        };
        assert_eq!(number(0), MAGIC, "no record of QEMU's");
        let mut entries = Vec::new();
        let mut position = SECTOR;
        for _ in 0..number(16) {
            let entry = Entry {
                position,
                start: number(position) * SECTOR,
                length: number(position + 8) * SECTOR,
                flags: number(position + 16),
            };
            position += SECTOR;
            if entry.flags & DISCARD == 0 {
                position += entry.length;
            }
            entries.push(entry);
        }
        Self { file, entries }
    }
}

/// Which of the writes that no flush has covered a power cut leaves on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unflushed {
    Lost,
    /// Each piece of each with an even chance.
    Random,
}

/// The disk that grows from a record, moment by moment.
pub struct Replay<'a> {
    record: &'a Record,
    disk: PathBuf,
    folder: tempfile::TempDir,
    /// So many entries are on it, all of them flushed.
    applied: usize,
}

impl<'a> Replay<'a> {
    pub fn new(record: &'a Record, size: u64) -> Self {
        let folder = in_memory();
        let disk = folder.path().join("durable");
        let file = File::create(&disk).expect("a disk");
        file.set_len(size).expect("its size");
        Self {
            record,
            disk,
            folder,
            applied: 0,
        }
    }

    /// The disk after a power cut that comes when `reached` entries have been made. Calls go forward in time only.
    pub fn cut(&mut self, reached: usize, unflushed: Unflushed, random: &mut Random) -> PathBuf {
        let entries = &self.record.entries[..reached];
        let flushed = entries
            .iter()
            .rposition(Entry::is_flush)
            .map_or(0, |at| at + 1);
        assert!(flushed >= self.applied, "backwards in time");
        let durable = File::options()
            .write(true)
            .open(&self.disk)
            .expect("the disk");
        for entry in &entries[self.applied..flushed] {
            self.apply(entry, &durable, |_| true);
        }
        self.applied = flushed;
        // A file of its own for each: the last one's mount may still be on its way down, and writes as it goes.
        let cut = self.folder.path().join("cut");
        let _ = std::fs::remove_file(&cut);
        let mut copy = std::process::Command::new("cp");
        copy.arg("--sparse=always").args([&self.disk, &cut]);
        super::expect_success(&copy.output().expect("cp"), "cp");
        let disk = File::options().write(true).open(&cut).expect("the copy");
        for entry in &entries[flushed..] {
            match unflushed {
                _ if entry.flags & FUA != 0 => self.apply(entry, &disk, |_| true),
                Unflushed::Lost => {}
                Unflushed::Random => self.apply(entry, &disk, |_| random.below(2) == 0),
            }
        }
        cut
    }

    fn apply(&self, entry: &Entry, disk: &File, mut keeps: impl FnMut(u64) -> bool) {
        let mut piece = vec![0; PIECE as usize];
        if entry.flags & DISCARD != 0 {
            if keeps(0) {
                punch(disk, entry.start, entry.length);
            }
            return;
        }
        let mut done = 0;
        while done < entry.length {
            let length = PIECE.min(entry.length - done);
            let bytes = &mut piece[..length as usize];
            let at = entry.position + SECTOR + done;
            self.record.file.read_exact_at(bytes, at).expect("data");
            if !keeps(done) {
            } else if bytes.iter().all(|byte| *byte == 0) {
                punch(disk, entry.start + done, length);
            } else {
                disk.write_all_at(bytes, entry.start + done).expect("write");
            }
            done += length;
        }
    }
}

fn punch(disk: &File, start: u64, length: u64) {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: fallocate(2) on a file that is open for writing.
    let done = unsafe { libc::fallocate(disk.as_raw_fd(), mode, start as i64, length as i64) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}
