//! The json-file on disk: appended to with one write for each batch, rotated by size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use crate::config::LogConfig;
use crate::error::{Error, Result};
use crate::packed;

/// An open log file. All methods block on the disk.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    max_size: u64,
    max_files: u32,
    compress: bool,
    /// The last rotated file while it is packed.
    packing: Option<JoinHandle<()>>,
}

impl LogFile {
    /// Opens or creates the file of `config` and appends to it.
    pub(crate) fn open(config: &LogConfig) -> Result<LogFile> {
        let path = config.log_path();
        let opening = |source| Error::OpenLog {
            path: path.clone(),
            source,
        };
        let mut file = open_append(&path).map_err(opening)?;
        let size = file.seek(SeekFrom::End(0)).map_err(opening)?;
        let mut log = LogFile {
            path,
            file,
            size,
            max_size: config.max_size,
            max_files: config.max_files,
            compress: config.compress,
            packing: None,
        };
        log.end_torn_line();
        Ok(log)
    }

    /// A power cut may leave half a record; the next one must not be glued to it.
    fn end_torn_line(&mut self) {
        let mut last = [b'\n'];
        let torn = self.size > 0
            && self.file.read_exact_at(&mut last, self.size - 1).is_ok()
            && last[0] != b'\n';
        if torn && self.file.write_all(b"\n").is_ok() {
            self.size += 1;
        }
    }

    /// Appends whole records, each a line; a batch that is larger than a file goes on in the next. After an error (disk
    /// full) the file ends with a whole record, and the rest is lost.
    pub(crate) fn append(&mut self, records: &[u8]) -> io::Result<()> {
        let mut rest = records;
        while !rest.is_empty() {
            let room = match self.max_size {
                0 => rest.len(),
                most => usize::try_from(most.saturating_sub(self.size)).unwrap_or(usize::MAX),
            };
            let mut fits = lines_within(rest, room);
            if fits == 0 && self.size > 0 {
                // A log that cannot be rotated is still better than none.
                if self.rotate().is_ok() {
                    continue;
                }
                fits = rest.len();
            } else if fits == 0 {
                // A record that is larger than a whole file has one of its own.
                fits = first_line(rest);
            }
            let (now, later) = rest.split_at(fits);
            if let Err(error) = self.file.write_all(now) {
                drop(self.file.set_len(self.size));
                return Err(error);
            }
            self.size += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// `x` becomes `x.1`, `x.1` becomes `x.2` …; the oldest goes. The new file always has a new
    /// inode (also when only one file is kept), which is how followers notice.
    fn rotate(&mut self) -> Result<()> {
        let failed = |source| Error::Rotate {
            path: self.path.clone(),
            source,
        };
        if let Some(packing) = self.packing.take() {
            // It says itself why it failed.
            drop(packing.join());
        }
        for index in (1..self.max_files).rev() {
            let (from, to) = (rotated(&self.path, index - 1), rotated(&self.path, index));
            if self.compress {
                rename(&packed::name(&from), &packed::name(&to)).map_err(failed)?;
            }
            rename(&from, &to).map_err(failed)?;
        }
        if self.max_files == 1 {
            fs::remove_file(&self.path).map_err(failed)?;
        }
        self.file = open_append(&self.path).map_err(failed)?;
        self.size = 0;
        if self.compress && self.max_files > 1 {
            self.packing = Some(pack(rotated(&self.path, 1)));
        }
        Ok(())
    }
}

/// What is not there is not renamed; what is in the way goes.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::remove_file(to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        },
        done => done,
    }
}

/// Beside the container's output, which is not held up.
fn pack(path: PathBuf) -> JoinHandle<()> {
    thread::spawn(move || {
        if let Err(error) = packed::pack(&path) {
            eprintln!("log: cannot pack {}: {error}", path.display());
        }
    })
}

/// Bytes of the whole lines that fit into `room`.
fn lines_within(records: &[u8], room: usize) -> usize {
    if records.len() <= room {
        return records.len();
    }
    let end = records[..room].iter().rposition(|byte| *byte == b'\n');
    end.map_or(0, |end| end + 1)
}

/// Bytes of the first line.
fn first_line(records: &[u8]) -> usize {
    let end = records.iter().position(|byte| *byte == b'\n');
    end.map_or(records.len(), |end| end + 1)
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .mode(0o640)
        .open(path)
}

/// Name of the rotated file `index`; 0 is the current one.
pub(crate) fn rotated(path: &Path, index: u32) -> PathBuf {
    match index {
        0 => path.to_owned(),
        _ => {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{index}"));
            name.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotates_and_mends() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = LogConfig::new("c", dir.path());
        (config.max_size, config.max_files) = (10, 3);
        fs::write(config.log_path(), "torn").unwrap();
        let mut log = LogFile::open(&config).unwrap();
        for record in ["aaaa\n", "bbbb\n", "cccc\n", "dddddddddddddd\n", "e\n"] {
            log.append(record.as_bytes()).unwrap();
        }
        let read = |index| fs::read_to_string(rotated(&config.log_path(), index)).ok();
        assert_eq!(read(0).as_deref(), Some("e\n"));
        assert_eq!(read(1).as_deref(), Some("dddddddddddddd\n"));
        assert_eq!(read(2).as_deref(), Some("bbbb\ncccc\n"));
        assert_eq!(read(3), None);
    }

    #[test]
    fn packs_what_it_rotates() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = LogConfig::new("c", dir.path());
        (config.max_size, config.max_files, config.compress) = (10, 3, true);
        let mut log = LogFile::open(&config).unwrap();
        for record in ["aaaaaaaa\n", "bbbbbbbb\n", "cccccccc\n", "dddddddd\n"] {
            log.append(record.as_bytes()).unwrap();
        }
        log.packing.take().unwrap().join().unwrap();
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["c-json.log", "c-json.log.1.gz", "c-json.log.2.gz"]);
    }

    #[test]
    fn a_batch_larger_than_a_file_is_spread_over_several() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = LogConfig::new("c", dir.path());
        (config.max_size, config.max_files) = (10, 3);
        let mut log = LogFile::open(&config).unwrap();
        log.append(b"aaaa\nbbbb\ncccc\ndddddddddddddd\ne\n")
            .unwrap();
        let read = |index| fs::read_to_string(rotated(&config.log_path(), index)).ok();
        assert_eq!(read(0).as_deref(), Some("e\n"));
        assert_eq!(read(1).as_deref(), Some("dddddddddddddd\n"));
        assert_eq!(read(2).as_deref(), Some("cccc\n"));
    }
}
