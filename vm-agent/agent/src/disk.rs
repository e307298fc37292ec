//! The data disk: recognised, made, checked, grown, mounted.

use longshore_protocol::config::DATA_DISK_SERIAL;
use nix::mount::{MsFlags, mount};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;

use crate::new_disk::{self, UNFINISHED};

/// A new file system before it goes to the disk: a sparse file in memory.
const IN_THE_MAKING: &str = "/run/new-disk";
const MOUNT_POINT: &str = "/var/lib/longshore";
/// The label that says a file system is ours (at most 16 bytes), and of the layout that this program writes: the first. Later ones
/// append a dot and their number, so that it is known before the disk is mounted, which writes to it.
const LABEL: &str = "longshore-data";
/// Folders that the links in `/var/lib` point to.
const FOLDERS: &[&str] = &["docker", "containerd"];

#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("no disk has the serial {DATA_DISK_SERIAL}")]
    NoDisk,
    #[error("read {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error(
        "{device} is not Longshore's data disk: {what}; it is left untouched. Give the VM another disk, or empty this one"
    )]
    NotOurs { device: String, what: String },
    #[error(
        "{device} is a data disk of layout {layout}, made by a newer Longshore; this one knows layout 1. It is left untouched: use the newer \
         Longshore again, or give the VM another disk"
    )]
    Newer { device: String, layout: u32 },
    #[error("run {program}: {source}")]
    Run {
        program: &'static str,
        source: io::Error,
    },
    #[error("{program} failed on {device} ({status}): {output}")]
    Tool {
        program: &'static str,
        device: String,
        status: std::process::ExitStatus,
        output: String,
    },
    #[error("mount {device} on {MOUNT_POINT}: {errno}")]
    Mount {
        device: String,
        errno: nix::errno::Errno,
    },
    #[error("make a file system on {device}: {source}")]
    Make { device: String, source: io::Error },
    #[error("make {path}: {source}")]
    Folder { path: String, source: io::Error },
}

/// What is on the disk.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    Blank,
    Ours { clean: bool, bytes: u64 },
    Newer { layout: u32 },
    Foreign(String),
}

pub fn prepare() -> Result<(), DiskError> {
    if is_mounted() {
        return Ok(());
    }
    let device = find()?;
    let read = |source| DiskError::Read {
        path: device.clone(),
        source,
    };
    let mut file = File::open(&device).map_err(read)?;
    let size = file.seek(SeekFrom::End(0)).map_err(read)?;
    match inspect(&mut file).map_err(read)? {
        Content::Foreign(what) => return Err(DiskError::NotOurs { device, what }),
        Content::Newer { layout } => return Err(DiskError::Newer { device, layout }),
        Content::Blank => make(&device, size)?,
        Content::Ours { clean, bytes } => {
            // A file system ends at a whole block; only a real difference is growth.
            let grown = size >= bytes + 1024 * 1024;
            if !clean || grown {
                check(&device)?;
            }
            if grown {
                run("resize2fs", &["-f", &device], &device, &[0])?;
            }
        }
    }
    drop(file);
    let flags = MsFlags::MS_NOATIME;
    mount(
        Some(device.as_str()),
        MOUNT_POINT,
        Some("ext4"),
        flags,
        Some("discard"),
    )
    .map_err(|errno| DiskError::Mount {
        device: device.clone(),
        errno,
    })?;
    for folder in FOLDERS {
        let path = format!("{MOUNT_POINT}/{folder}");
        std::fs::create_dir_all(&path).map_err(|source| DiskError::Folder { path, source })?;
    }
    Ok(())
}

fn is_mounted() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(MOUNT_POINT))
}

fn find() -> Result<String, DiskError> {
    let disks = std::fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten();
    disks
        .filter(|disk| {
            std::fs::read_to_string(disk.path().join("serial"))
                .is_ok_and(|serial| serial.trim() == DATA_DISK_SERIAL)
        })
        .map(|disk| {
            Path::new("/dev")
                .join(disk.file_name())
                .to_string_lossy()
                .into_owned()
        })
        .next()
        .ok_or(DiskError::NoDisk)
}

/// Looks at the first and last parts of the disk: the places where file systems and partition tables have their marks.
fn inspect(disk: &mut (impl Read + Seek)) -> io::Result<Content> {
    let mut start = vec![0; 128 * 1024];
    let read = read_up_to(disk, 0, &mut start)?;
    start.truncate(read);
    if let Some(content) = inspect_superblock(&start) {
        return Ok(content);
    }
    let size = disk.seek(SeekFrom::End(0))?;
    let mut end = vec![0; 64 * 1024];
    let read = read_up_to(disk, size.saturating_sub(end.len() as u64), &mut end)?;
    let blank = start.iter().chain(&end[..read]).all(|byte| *byte == 0);
    Ok(if blank {
        Content::Blank
    } else {
        Content::Foreign("it holds something else than ext4".into())
    })
}

fn read_up_to(disk: &mut (impl Read + Seek), at: u64, buffer: &mut [u8]) -> io::Result<usize> {
    disk.seek(SeekFrom::Start(at))?;
    let mut filled = 0;
    while filled < buffer.len() {
        match disk.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// ext4's superblock is at byte 1024 (Documentation/filesystems/ext4/super.rst); `None` when there is none.
fn inspect_superblock(start: &[u8]) -> Option<Content> {
    let block = start.get(1024..2048)?;
    let u16_at = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
    let u32_at =
        |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    if u16_at(0x38) != 0xef53 {
        return None;
    }
    let label = String::from_utf8_lossy(&block[0x78..0x88])
        .trim_end_matches('\0')
        .to_owned();
    if label == UNFINISHED {
        return Some(Content::Blank);
    }
    let layout = label
        .strip_prefix(LABEL)
        .and_then(|rest| rest.strip_prefix('.')?.parse().ok());
    if let Some(layout) = layout {
        return Some(Content::Newer { layout });
    }
    if label != LABEL {
        return Some(Content::Foreign(format!(
            "its file system is named {label:?}"
        )));
    }
    let blocks = u64::from(u32_at(0x4)) | u64::from(u32_at(0x150)) << 32;
    // Bit 0: cleanly unmounted; bit 1: errors seen. Feature bit 2: the journal must be replayed, which the mount does by itself.
    let clean = u16_at(0x3a) & 0b11 == 0b01;
    Some(Content::Ours {
        clean,
        bytes: blocks << (10 + u32_at(0x18)),
    })
}

/// Quick, because the rest of the work is done when the space is first used: some megabytes are written.
fn make(device: &str, size: u64) -> Result<(), DiskError> {
    let failed = |source| DiskError::Make {
        device: device.into(),
        source,
    };
    let file = File::create(IN_THE_MAKING).map_err(failed)?;
    file.set_len(size).map_err(failed)?;
    let options = "lazy_itable_init=1,lazy_journal_init=1,discard";
    let arguments = [
        "-q",
        "-F",
        "-t",
        "ext4",
        "-m",
        "0",
        "-L",
        LABEL,
        "-E",
        options,
        IN_THE_MAKING,
    ];
    let made = run("mke2fs", &arguments, device, &[0])
        .and_then(|()| new_disk::put(Path::new(IN_THE_MAKING), Path::new(device)).map_err(failed));
    // Memory of the guest; should it stay, nothing else does.
    let _ = std::fs::remove_file(IN_THE_MAKING);
    made
}

/// 1 and 2: errors were found and mended.
fn check(device: &str) -> Result<(), DiskError> {
    run("e2fsck", &["-p", "-f", device], device, &[0, 1, 2])
}

fn run(
    program: &'static str,
    arguments: &[&str],
    device: &str,
    good: &[i32],
) -> Result<(), DiskError> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|source| DiskError::Run { program, source })?;
    if output
        .status
        .code()
        .is_some_and(|code| good.contains(&code))
    {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    let output_text = text.trim().replace('\n', "; ");
    Err(DiskError::Tool {
        program,
        device: device.into(),
        status: output.status,
        output: output_text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn superblock(label: &str, state: u16) -> Vec<u8> {
        let mut disk = vec![0; 256 * 1024];
        let block = &mut disk[1024..2048];
        block[0x4..0x8].copy_from_slice(&1000u32.to_le_bytes());
        block[0x18..0x1c].copy_from_slice(&2u32.to_le_bytes());
        block[0x38..0x3a].copy_from_slice(&0xef53u16.to_le_bytes());
        block[0x3a..0x3c].copy_from_slice(&state.to_le_bytes());
        block[0x78..0x78 + label.len()].copy_from_slice(label.as_bytes());
        disk
    }

    #[test]
    fn what_is_on_a_disk() {
        let mut partitioned = vec![0; 256 * 1024];
        partitioned[510..512].copy_from_slice(&[0x55, 0xaa]);
        let mut with_backup_table = vec![0; 256 * 1024];
        *with_backup_table.last_mut().unwrap() = 1;
        let foreign = |what: &str| Content::Foreign(what.into());
        let cases = [
            (vec![0; 256 * 1024], Content::Blank),
            (
                superblock(LABEL, 1),
                Content::Ours {
                    clean: true,
                    bytes: 4_096_000,
                },
            ),
            (
                superblock(LABEL, 0),
                Content::Ours {
                    clean: false,
                    bytes: 4_096_000,
                },
            ),
            (
                superblock(LABEL, 3),
                Content::Ours {
                    clean: false,
                    bytes: 4_096_000,
                },
            ),
            // The power went while it was made.
            (superblock(UNFINISHED, 0), Content::Blank),
            (
                superblock("longshore-data.2", 1),
                Content::Newer { layout: 2 },
            ),
            (
                superblock("longshore-data-x", 1),
                foreign("its file system is named \"longshore-data-x\""),
            ),
            (
                superblock("photos", 1),
                foreign("its file system is named \"photos\""),
            ),
            (partitioned, foreign("it holds something else than ext4")),
            (
                with_backup_table,
                foreign("it holds something else than ext4"),
            ),
        ];
        for (disk, content) in cases {
            assert_eq!(inspect(&mut Cursor::new(disk)).unwrap(), content);
        }
    }
}
